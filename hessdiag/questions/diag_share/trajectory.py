"""Whether the diagonal share changes along checkpoints: as a whole, at each step, and as a trend, against its errors.

Checkpoints that are measured with one seed sample the same rows, so that the error of a difference is at most the one
given here: changes that are called significant are.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hessdiag.errors import SpecError
from hessdiag.numbers import counted, factor_of_log, p_value, percent, ratio, with_error
from hessdiag.questions.common.metric import Metric, noun
from hessdiag.questions.common.result import Finding, Status
from hessdiag.questions.common.steps import step_numbers
from hessdiag.questions.common.verdict import most_severe_first
from hessdiag.questions.diag_share.result import Change, Checkpoint, CheckpointLayer, DiagShare, Difference, Trend
from hessdiag.statistics.differences import holm

ALPHA = 0.05
ROUNDING = 1e-9  # relative: exact shares that differ by less are alike
FEWEST_FOR_TREND = 3
WORSE: tuple[Status, ...] = ("ok", "inexact", "interrupted")  # each than those before it


@dataclass(frozen=True)
class Compared:
    """A share as it is held against others.

    Attributes:
        label: Of its checkpoint.
        share: `None` where there is none.
        stderr: 0 where every row was computed.
        trusted: Whether its self-checks passed.
    """

    label: str
    share: float | None
    stderr: float
    trusted: bool = True


def diag_share_along(checkpoints: Iterable[tuple[str, DiagShare]]) -> DiagShare:
    """The diagonal share along checkpoints of one training run: the last one's result, with how it came there.

    Args:
        checkpoints: Labels and results, in order. Where all labels but for one growing number are alike, it counts
            steps. Results that were sampled with one seed have the same rows: their differences are told best.

    Returns:
        The last result with `trajectory`, the shares at all checkpoints, and `change`: the differences with their
        errors, corrected for how many they are (Holm 1979), and the trend. Its findings begin with what changes, and
        have what is bad of the others; its status is the worst of all. Of one checkpoint, its result as it is.

    Raises:
        SpecError: if there is no checkpoint.

    >>> import torch
    >>> from hessdiag import Problem, diag_share
    >>> model, data = torch.nn.Linear(2, 1, bias=False).double(), [(torch.eye(2).double(), torch.ones(2, 1).double())]
    >>> share = diag_share(Problem(model, data=data, loss="mse"))
    >>> found = diag_share_along([("step0", share), ("step100", share)])
    >>> [point.label for point in found.trajectory], found.change.whole.significant
    (['step0', 'step100'], False)
    """
    runs = list(checkpoints)
    if not runs:
        raise SpecError("a trajectory has no checkpoint.", "diag_share_along([('step 0', share), ...])")
    _, last = runs[-1]
    if len(runs) == 1:
        return last
    metrics = list(dict.fromkeys(None if share.metric is None else share.metric.optimizer for _, share in runs))
    if len(metrics) > 1:
        raise SpecError(
            f"shares in several metrics are no trajectory: {' and '.join(str(one) for one in metrics)}.",
            "diag_share(problem, metric=...) with one metric for all checkpoints, or with none",
        )
    compared = [_compared(label, share) for label, share in runs]
    statuses = [share.status for _, share in runs]
    return replace(
        last,
        trajectory=tuple(_checkpoint(label, share) for label, share in runs),
        change=change(compared),
        findings=tuple(verdict(compared, [(label, share.findings) for label, share in runs], last.metric)),
        status=max(statuses, key=WORSE.index),
        provenance=replace(last.provenance, resumed_pieces=sum(share.resumed_pieces for _, share in runs) or None),
    )


def _compared(label: str, share: DiagShare) -> Compared:
    return Compared(label, share.diag_share, share.diag_share_stderr or 0.0, share.trusted)


def _checkpoint(label: str, share: DiagShare) -> Checkpoint:
    return Checkpoint(
        label=label,
        diag_share=share.diag_share,
        diag_share_stderr=share.diag_share_stderr,
        diag_share_interval=share.diag_share_interval,
        layer_block_share=share.layer_block_share,
        wigner=share.baselines.wigner,
        ols_gaussian=share.baselines.ols_gaussian,
        layers=tuple(CheckpointLayer(name=layer.name, diag_share=layer.diag_share) for layer in share.layers),
    )


def change(points: Sequence[Compared]) -> Change | None:
    """The change along measured checkpoints; `None` where fewer than two can be compared.

    >>> found = change([Compared("a", 0.10, 0.01), Compared("b", 0.12, 0.01), Compared("c", 0.20, 0.01)])
    >>> found.whole.significant, [step.significant for step in found.steps]
    (True, [False, True])
    """
    known = [point for point in points if _usable(point)]
    if len(known) < 2 or not (_usable(points[0]) and _usable(points[-1])):
        return None
    pairs = list(itertools.pairwise(known))
    adjusted = holm([_p(a, b) for a, b in pairs])
    steps = tuple(_difference(a, b, p) for (a, b), p in zip(pairs, adjusted, strict=True))
    first, last = known[0], known[-1]
    assert first.share is not None
    assert last.share is not None
    return Change(
        before=first.share,
        after=last.share,
        whole=_difference(first, last, _p(first, last)),
        steps=steps,
        trend=_trend(known),
    )


def _usable(point: Compared) -> bool:
    return point.trusted and point.share is not None and math.isfinite(point.share)


def _difference(a: Compared, b: Compared, p: float) -> Difference:
    difference, stderr = (b.share or 0.0) - (a.share or 0.0), math.hypot(a.stderr, b.stderr)
    return Difference(start=a.label, end=b.label, difference=difference, stderr=stderr, p=p, significant=p < ALPHA)


def _p(a: Compared, b: Compared) -> float:
    """Two-sided, by the normal law; of exact shares 0 or 1, as they differ or not."""
    before, after = a.share or 0.0, b.share or 0.0
    stderr = math.hypot(a.stderr, b.stderr)
    if stderr == 0:
        return 1.0 if abs(after - before) <= ROUNDING * max(abs(before), abs(after)) else 0.0
    return math.erfc(abs(after - before) / stderr / math.sqrt(2))


def _trend(known: Sequence[Compared]) -> Trend | None:
    """A weighted line through the log shares; its slope is as certain as they are, on a line or not."""
    shares = [point.share or 0.0 for point in known]
    if len(known) < FEWEST_FOR_TREND or min(shares) <= 0:
        return None
    errors = [point.stderr / share for point, share in zip(known, shares, strict=True)]
    exact = not all(errors)  # without errors all count alike
    weights = [1.0 if exact else error**-2 for error in errors]
    steps = step_numbers([point.label for point in known])
    places = steps or [float(index) for index in range(len(known))]
    middle = _average(places, weights)
    spread = sum(weight * (place - middle) ** 2 for weight, place in zip(weights, places, strict=True))
    logs = [math.log(share) for share in shares]
    slope = sum(w * (x - middle) * y for w, x, y in zip(weights, places, logs, strict=True)) / spread
    stderr = (
        math.sqrt(sum(((x - middle) * w * e) ** 2 for w, x, e in zip(weights, places, errors, strict=True))) / spread
    )
    unit = abs(slope) * (places[-1] - places[0])
    p = math.erfc(abs(slope) / stderr / math.sqrt(2)) if stderr else float(unit <= ROUNDING)
    return Trend(along="step" if steps else "checkpoint", slope=slope, stderr=stderr, p=p, significant=p < ALPHA)


def _average(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)


@most_severe_first
def verdict(
    points: Sequence[Compared], measured: Sequence[tuple[str, Sequence[Finding]]], metric: Metric | None = None
) -> list[Finding]:
    """The findings on the change, then those on the last checkpoint, and what is bad of the others.

    Args:
        points: The shares.
        measured: Label and findings of each checkpoint.
        metric: In which all shares are.
    """
    last = len(measured) - 1
    return [
        *findings(points, metric),
        *(
            replace(finding, says=f"{label}: {finding.says}")
            for index, (label, found) in enumerate(measured)
            for finding in found
            if index == last or finding.level == "bad"
        ),
    ]


def findings(points: Sequence[Compared], metric: Metric | None = None) -> list[Finding]:
    """What is said of the change."""
    found = change(points)
    if found is None:
        missing = [point.label for point in points if not _usable(point)]
        says = "The change along the checkpoints is not judged: not all of them could be measured."
        return [
            Finding("warn", says, f"no trusted share at {', '.join(missing)}", "see the findings of that checkpoint")
        ]
    return [_whole(found, metric), *_steps(found), *_of_trend(found)]


def _whole(found: Change, metric: Metric | None) -> Finding:
    whole, exact = found.whole, found.whole.stderr == 0
    shares = f"share {percent(found.before)} at {whole.start}, {percent(found.after)} at {whole.end}"
    error = "exact on this batch: every row was computed" if exact else p_value(whole.p)
    because = f"{shares}; difference {with_error(whole.difference, whole.stderr or None, 3)}, {error}"
    if not whole.significant:
        says = f"No change is shown between {whole.start} and {whole.end}."
        return Finding("note", says, because, "" if exact else "more --rows for smaller errors")
    word = "more" if whole.difference > 0 else "less"
    matrix, by = noun("Hessian", metric), ratio(found.after, found.before)
    says = f"The {matrix} becomes {word} diagonal along the checkpoints: {by}."
    if metric is not None:
        return Finding("note", says, because, f"all shares are in the metric of {metric.optimizer} at their checkpoint")
    cure = (
        "diagonal preconditioning has more to work with there"
        if whole.difference > 0
        else "diagonal preconditioning has less to work with there"
    )
    return Finding("note", says, because, f"{cure}: judge an optimizer at the checkpoint that matters")


def _steps(found: Change) -> list[Finding]:
    if len(found.steps) < 2:
        return []
    kept = [step for step in found.steps if step.significant]
    up = sum(step.difference > 0 for step in kept)
    each = "all of them exact" if found.whole.stderr == 0 else f"p below {ALPHA} after Holm's correction for all"
    if not kept:
        return [Finding("note", "No single step is significant.", f"{counted(len(found.steps), 'step')}, {each}", "")]
    largest = max(kept, key=lambda step: abs(step.difference))
    how = "up" if up == len(kept) else "down" if not up else f"{up} up and {len(kept) - up} down"
    are = "is" if len(kept) == 1 else "are"
    says = f"{len(kept)} of {counted(len(found.steps), 'step')} between checkpoints {are} significant: {how}."
    by = with_error(largest.difference, largest.stderr or None, 3)
    because = f"the largest is {largest.start} to {largest.end}, by {by}; {each}"
    return [Finding("note", says, because, "")]


def _of_trend(found: Change) -> list[Finding]:
    trend = found.trend
    if trend is None:
        return []
    because = f"{factor_of_log(trend.slope, trend.stderr)} per {trend.along} along a line through the log shares"
    because += f", {p_value(trend.p)}" if trend.stderr else ", exact"
    if not trend.significant:
        return [Finding("note", "The share has no trend over the checkpoints.", because, "")]
    up = trend.slope > 0
    against = sum(step.significant and (step.difference > 0) is not up for step in found.steps)
    though = f", though {counted(against, 'step')} {'goes' if against == 1 else 'go'} the other way" if against else ""
    return [Finding("note", f"The share {'rises' if up else 'falls'} over the checkpoints{though}.", because, "")]
