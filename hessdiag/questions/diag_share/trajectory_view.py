"""What `diag-share` shows of several checkpoints: first of all, how the share changes along them."""

from collections.abc import Sequence
from dataclasses import replace

from hessdiag.questions.common.metric import Metric, here, noun
from hessdiag.questions.diag_share.result import Change, Checkpoint, Difference
from hessdiag.report.numbers import (
    counted,
    factor_of_log,
    interval,
    number,
    p_value,
    ratio,
    with_error,
)
from hessdiag.report.view import Fact, Lines, Series, Table, View

NOT_MEASURED = "not measured"


def along(view: View, points: Sequence[Checkpoint], change: Change | None, metric: Metric | None = None) -> View:
    """The view of the last checkpoint as one of the whole trajectory, in a metric or in none."""
    labels = [point.label for point in points]
    checkpoints = f"{counted(len(points), 'checkpoint')}, {labels[0]} to {labels[-1]}"
    of_last = tuple(replace(block, title=f"{block.title}, at {labels[-1]}") for block in view.blocks)
    steps = _steps(change)
    return replace(
        view,
        question=f"How does the diagonal share of the {noun('Hessian', metric)} change along the checkpoints?",
        subject=(("along", checkpoints), *view.subject),
        headline=_headline(points, change, metric),
        facts=(*_facts(change), *(replace(fact, meaning=f"at {labels[-1]}; {fact.meaning}") for fact in view.facts)),
        blocks=(_chart(points, ols=metric is None), *((steps,) if steps else ()), *of_last),
    )


def _share(share: float | None) -> str:
    return NOT_MEASURED if share is None else number(share)


def _headline(points: Sequence[Checkpoint], change: Change | None, metric: Metric | None) -> tuple[str, str]:
    first, last = points[0], points[-1]
    shares = (
        f"the diagonal share{here(metric)} goes from {_share(first.diag_share)} at {first.label} to "
        f"{_share(last.diag_share)} at {last.label}"
    )
    if change is None:
        return ratio(last.diag_share, first.diag_share), f"{shares}; whether it changes is not judged"
    whole = change.whole
    return ratio(change.after, change.before), f"{shares}: {'a' if whole.significant else 'no'} significant change"


def _difference(difference: Difference) -> str:
    return with_error(difference.difference, difference.stderr or None, 3)


def _p(difference: Difference) -> str:
    return p_value(difference.p).removeprefix("p = ").removeprefix("p ") if difference.stderr else "exact"


def _facts(change: Change | None) -> tuple[Fact, ...]:
    if change is None:
        return ()
    whole, trend, steps = change.whole, change.trend, change.steps
    significant = sum(step.significant for step in steps)
    facts = [
        Fact(
            "change",
            _difference(whole),
            f"of the share, {whole.start} to {whole.end}"
            + (f"; {p_value(whole.p)}" if whole.stderr else "; exact on this batch"),
        )
    ]
    if len(steps) > 1:
        facts.append(
            Fact(
                "significant steps",
                f"{significant} of {len(steps)}",
                "from one checkpoint to the next, at 5 % for all together (Holm)",
            )
        )
    if trend is not None:
        facts.append(
            Fact(
                "trend",
                f"{factor_of_log(trend.slope, trend.stderr)} per {trend.along}",
                f"slope of the log share; {p_value(trend.p) if trend.stderr else 'exact'}",
            )
        )
    return tuple(facts)


def _steps(change: Change | None) -> Table | None:
    """Every step, and the whole where there are several."""
    if change is None:
        return None
    steps = change.steps
    rows = tuple(
        (
            f"{step.start} → {step.end}",
            _difference(step),
            _p(step),
            "yes" if step.significant else "no",
        )
        for step in (*steps, *((change.whole,) if len(steps) > 1 else ()))
    )
    title = "Changes, with p-values of steps corrected for all of them (Holm)" if len(steps) > 1 else "The change"
    return Table(title, ("from, to", "difference", "p", "significant"), rows)


def _chart(points: Sequence[Checkpoint], *, ols: bool) -> Lines:
    bounds = [point.diag_share_interval for point in points]
    rows = tuple(
        (
            point.label,
            _share(point.diag_share),
            *((interval(ends, 3),) if any(bounds) else ()),
            ratio(point.diag_share, point.wigner),
            *((number(point.ols_gaussian),) if ols else ()),
            number(point.layer_block_share),
        )
        for point, ends in zip(points, bounds, strict=True)
    )
    return Lines(
        title="Along the checkpoints",
        caption=(
            "The share at each checkpoint, in the order given, with a 95 % interval where rows were sampled; "
            "the other lines are the random baselines. Training that moves away from Wigner is training that "
            "makes the Hessian more diagonal."
        ),
        alt=f"Diagonal share at {counted(len(points), 'checkpoint')} with its baselines.",
        table=Table(
            "Diagonal share along the checkpoints",
            (
                "checkpoint",
                "share",
                *(("95 % interval",) if any(bounds) else ()),
                "/ Wigner",
                *(("OLS",) if ols else ()),
                "in layer blocks",
            ),
            rows,
            optional=("95 % interval",),
        ),
        text="table",
        x=tuple(float(index) for index in range(len(points))),
        series=(
            Series(
                "this network",
                tuple(point.diag_share for point in points),
                tuple(b[0] if b else None for b in bounds) if any(bounds) else (),
                tuple(b[1] if b else None for b in bounds) if any(bounds) else (),
            ),
            *(
                (Series("OLS, Gaussian data", tuple(point.ols_gaussian for point in points), role="theory", group=2),)
                if ols
                else ()
            ),
            Series("Wigner, 1/d", tuple(point.wigner for point in points), role="reference", group=1),
        ),
        x_axis="checkpoint",
        y_axis="diagonal share",
        names=tuple(point.label for point in points),
    )
