"""What slopes over the size of a network mean for its learning rate."""

from collections.abc import Iterator

from hessdiag.numbers import counted, number
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import checks_findings, data_findings, interrupted_early, most_severe_first
from hessdiag.questions.transfer.result import LayerPowers, Slope, Transfer, changes_rate

COARSE = 0.1  # relative residual of an eigenvalue; its error is no larger, and usually far smaller
SHOWN = 3  # layers that a sentence names


def transfers(result: Transfer) -> bool | None:
    """Whether a learning rate holds: not where one slope drifts; where all hold; else it cannot be told.

    Judged are the curvature that the optimizer sees, and how much the outputs of every inner layer change; the output
    layer's are not, for they hang on how near the first outputs happen to be to the targets, and the curvature holds
    what their kernel does. The curvature that an adaptive optimizer sees in its first steps is ruled by entries with
    hardly any gradient: it can speak against, and need not speak for.
    """
    if any(size.diverged for size in result.sizes):
        return False
    seen, inner = result.slopes.lambda_max_weighted, [line.activation for line in judged(result)]
    told = [one.held for one in (seen, *inner)]
    if "drifts" in told:
        return False
    needed = inner if result.weighted_at != "start" else [seen, *inner]
    known = [one.held for one in needed if one.slope is not None]
    return True if known and all(held == "holds" for held in known) else None


def judged(result: Transfer) -> tuple[LayerPowers, ...]:
    """Layers whose outputs should change by as much in networks of any size."""
    return tuple(line for line in result.layers if line.role in ("input", "hidden", "fixed"))


@most_severe_first
def findings(result: Transfer) -> list[Finding]:
    """The verdict on slopes over widths or depths, the most important sentence first."""
    if len(result.widths) < 2:
        return [interrupted_early()] if result.interrupted else list(_left_out(result))
    found = checks_findings(result.checks, result.check_tolerance, result.point)
    if any(finding.level == "bad" for finding in found):
        return found
    return [
        *found,
        *_judgement(result),
        *_mending(result),
        *_starts(result),
        *_raw(result),
        *_converged(result),
        *_adaptive(result),
        *_left_out(result),
        *_chosen(result),
        *data_findings(result.problem),
    ]


def power(slope: Slope, varied: str) -> str:
    """A slope in a sentence: a power of the width, with its interval.

    >>> power(Slope(slope=0.953, low=0.9, high=1.0), "width")
    'width^0.95 (95 %: 0.90 to 1.00)'
    """
    bounds = "" if slope.low is None or slope.high is None else f" (95 %: {slope.low:.2f} to {slope.high:.2f})"
    return f"{varied}^{0.0 if slope.slope is None else slope.slope:.2f}{bounds}"


def _judgement(result: Transfer) -> Iterator[Finding]:
    small, large, varied = result.sizes[0], result.sizes[-1], result.varied
    tuned, there = f"at {varied} {number(small.size)}", f"at {number(large.size)}"
    seen = result.slopes.lambda_max_weighted
    if result.transfers:
        yield Finding(
            "ok",
            f"A learning rate tuned {tuned} holds {there}.",
            _both(result),
            "",
        )
        return
    if exploded := [size for size in result.sizes if size.diverged]:
        yield Finding(
            "warn",
            f"The learning rate {number(result.lr)} does not hold: training diverges at {varied} {number(exploded[0].size)}.",
            f"in {exploded[0].diverged} of {counted(exploded[0].networks, 'network')} the loss is not finite or grew tenfold in {counted(result.steps, 'step')}",
            _smaller(result),
        )
    if result.transfers is None:
        yield Finding(
            "note",
            f"Whether a learning rate tuned {tuned} holds {there} cannot be told.",
            f"not all slopes are known to be within {number(result.tolerance)} of zero: {_both(result)}",
            f"--seeds {4 * result.seeds} halves the errors; {varied}s that are farther apart do more",
        )
        return
    if seen.held == "drifts":
        grows = "grows" if (seen.slope or 0) > 0 else "shrinks"
        limits = ""
        if small.largest_lr is not None and large.largest_lr is not None:
            limits = (
                f"; the largest stable learning rate goes from {number(small.largest_lr)} to {number(large.largest_lr)}"
            )
        yield Finding(
            "warn",
            f"A learning rate tuned {tuned} does not hold {there}: the curvature that the optimizer sees {grows} with the {varied}.",
            f"it goes as {power(seen, varied)}{limits}",
            _smaller(result),
        )
    drifting = [line for line in judged(result) if line.activation.held == "drifts"]
    for line in sorted(drifting, key=lambda one: -abs(one.activation.slope or 0))[:SHOWN]:
        more = "more" if (line.activation.slope or 0) > 0 else "less"
        yield Finding(
            "warn",
            f"The larger the {varied}, the {more} the outputs of {line.name} change in {counted(result.steps, 'step')}.",
            f"by entry, their change goes as {power(line.activation, varied)}",
            "the learning rates and initial sizes below"
            if result.varied == "width"
            else "scale what layers add to the stream, or their learning rates, with the depth",
        )


def _both(result: Transfer) -> str:
    """The curvature, and the layer whose slope is farthest from zero."""
    parts = []
    if result.slopes.lambda_max_weighted.slope is not None:
        said = power(result.slopes.lambda_max_weighted, result.varied)
        parts.append(f"the curvature that the optimizer sees goes as {said}")
    known = [line for line in judged(result) if line.activation.slope is not None]
    if known:
        worst = max(known, key=lambda line: max(abs(line.activation.low or 0), abs(line.activation.high or 0)))
        said = power(worst.activation, result.varied)
        parts.append(f"of changes of layers' outputs, those of {worst.name} are the farthest from even: {said}")
    return "; ".join(parts) or "no slope could be measured"


def _smaller(result: Transfer) -> str:
    limits = [size.largest_lr for size in result.sizes if size.largest_lr is not None]
    if limits and min(limits) > 0:
        return f"below {number(min(limits))} all {result.varied}s measured are stable; to tune once, the learning rates and initial sizes below"
    return "a smaller learning rate for larger networks, tuned there"


def _mending(result: Transfer) -> Iterator[Finding]:
    """Which learning rates and initial sizes would make it hold."""
    if result.transfers is not False or result.varied != "width":
        return
    base = number(result.sizes[0].size)
    changes: dict[str, list[str]] = {}
    for line in result.layers:
        if changes_rate(line):
            off = (line.mended_rate or 0) - (line.rate or 0)
            changes.setdefault(f"learning rate × (width/{base})^{off:.1f}", []).append(line.name)
        if line.mended_weight is not None and line.initial_weight is not None:
            off = line.mended_weight - line.initial_weight
            changes.setdefault(f"initial weights × (width/{base})^{off:.1f}", []).append(line.name)
    if changes:
        said = "; ".join(f"{what} of {', '.join(names)}" for what, names in changes.items())
        yield Finding(
            "note",
            f"These learning rates and initial sizes would make every layer learn alike at any width: {said}.",
            "by what the first step changed in each layer, and muP's table (arXiv 2203.03466)",
            "parameter groups with these learning rates, then this command with --optimizer train.py:make",
        )


def _starts(result: Transfer) -> Iterator[Finding]:
    """Layers whose outputs are of another size at another width before the first step."""
    odd = [line for line in judged(result) if abs(line.initial_activation or 0) > 2 * result.tolerance]
    for line in odd[:SHOWN]:
        grow = "grow" if (line.initial_activation or 0) > 0 else "shrink"
        yield Finding(
            "warn",
            f"Before any step, the outputs of {line.name} already {grow} with the {result.varied}.",
            f"root mean square goes as {result.varied}^{line.initial_activation:.2f}",
            "initial weights of standard deviation 1/sqrt(inputs), or a normalization behind the layer",
        )


def _raw(result: Transfer) -> Iterator[Finding]:
    """That the largest eigenvalue itself drifts, where the optimizer does not see that."""
    if result.transfers and result.slopes.lambda_max.held == "drifts":
        yield Finding(
            "note",
            f"The largest eigenvalue itself drifts with the {result.varied}, which is no harm here: learning rates make up for it.",
            f"lambda_max goes as {power(result.slopes.lambda_max, result.varied)}, and weighted by learning rates as "
            f"{power(result.slopes.lambda_max_weighted, result.varied)}",
            "",
        )


def _converged(result: Transfer) -> Iterator[Finding]:
    if result.residual is not None and result.residual > COARSE:
        yield Finding(
            "warn",
            f"An eigenvalue has not converged: slopes of curvature may be off by {number(result.residual, 2)} or so.",
            f"its residual is {number(result.residual, 2)} of it after the most products that are spent on one network",
            f"more --seeds, or {result.varied}s that are farther apart, in which that is less",
        )


def _adaptive(result: Transfer) -> Iterator[Finding]:
    seen = result.slopes.lambda_max_weighted
    if result.weighted_at != "start" and seen.held == "open":
        yield Finding(
            "note",
            f"How the curvature in this optimizer's metric goes with the {result.varied} cannot be told so early; layers' changes are what is judged.",
            f"after {counted(result.steps, 'step')} it goes as {power(seen, result.varied)}: entries with hardly any gradient rule it",
            f"more --steps, or --seeds {4 * result.seeds}",
        )


def _left_out(result: Transfer) -> Iterator[Finding]:
    for failure in result.failed:
        yield Finding(
            "warn",
            f"{result.varied.capitalize()} {number(failure.size)} could not be measured.",
            failure.says,
            failure.hint or f"other {result.varied}s",
        )
    missing = [size for size in result.asked if size not in result.widths]
    if result.interrupted and missing and len(result.widths) > 1:
        yield Finding(
            "note",
            f"Interrupted: slopes are of {result.varied}s up to {number(result.widths[-1])}.",
            f"{counted(len(result.widths), result.varied)} of {len(result.asked)} finished",
            "--resume DIR, with which the next run goes on",
        )


def _chosen(result: Transfer) -> Iterator[Finding]:
    if result.lr_chosen:
        yield Finding(
            "note",
            f"The learning rate was chosen here: {number(result.lr)}, small enough that slopes are those of laws.",
            f"a twentieth of the largest stable one of the first network of {result.varied} {number(result.asked[0])}",
            "--lr yours, to see whether that one holds",
        )
