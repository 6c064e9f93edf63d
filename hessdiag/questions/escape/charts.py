"""Charts of `escape`: the loss against what was spent, radius and rho beneath, what was predicted, the landscape."""

import math
from collections.abc import Callable, Sequence

from hessdiag.fields import Number
from hessdiag.questions.escape.result import Escape, Landscape, Run, Spent
from hessdiag.questions.escape.summary import (
    compared_by_score,
    plain,
    plateau_of,
    prediction_of,
    ratio,
    ratios,
    runs_of,
    typical_run,
)
from hessdiag.report.numbers import MISSING, counted, drawable, number
from hessdiag.report.view import Curve, Curves, Heat, Panel, Span, Table

POINTS = 160  # of a curve; of longer ones, an even part
HIGHEST = 3.0  # ratio above which a diverging loss leaves the picture
DEEPEST = 1e-6
ABOVE = 2.0  # times the loss at the start: what is higher has one colour in a landscape
RHO = (-1.0, 2.0)  # what is shown of it
STOOD = (1e-6, 1e3)  # what is shown of ratios to what an optimizer stands
QUARTER = 0.25  # below, a trust region shrinks


def race(result: Escape) -> tuple[Curves, ...]:
    """The loss of every run against backpropagations, samples and time."""
    if not any(len(run.loss) > 1 for run in result.runs):
        return ()
    return (_by_backprops(result), _by_epochs(result), _by_seconds(result))


def _by_backprops(result: Escape) -> Curves:
    spans = _spans(result)
    regions, stability = _regions(result), _stability(result)
    beneath = [panel for panel in (_predicted(spans), stability, *regions) if panel is not None]
    said = [f"{_loss(result).capitalize()} against gradients and products with curvature, each counted as one."]
    if not compared_by_score(result):
        level = plain(result.threshold)
        said.append(f"Marks show where a run fell below {level} and stayed there; faint lines are other seeds.")
    if spans:
        said.append("Bars are the bands in which the escape was predicted, the line in them the typical value.")
    if stability is not None:
        said.append("Beneath: learning rate x curvature over what the optimizer stands; above 1 steps grow.")
    if regions:
        said.append("Beneath: the trust radius (or the damping) and rho, the actual over the predicted decrease.")
    return Curves(
        title="The race, in backpropagations",
        caption=" ".join(said),
        alt=f"{_loss(result).capitalize()} of {counted(len(result.contenders), 'optimizer')} against backpropagations.",
        table=_watched(result),
        text="spark",
        panels=(_losses(result, lambda spent: spent.backprops, lambda run: run.backprops), *beneath),
        x_axis="backpropagations",
    )


def _by_epochs(result: Escape) -> Curves:
    return Curves(
        title="The race, in samples drawn",
        caption="The same against samples drawn over all samples: a batch counts once, however many products it is "
        "used for.",
        alt="The same against samples drawn.",
        table=_watched(result),
        text="none",
        panels=(_losses(result, lambda spent: spent.epochs, lambda run: run.epochs),),
        x_axis="samples drawn, in epochs",
    )


def _by_seconds(result: Escape) -> Curves:
    return Curves(
        title="The race, in seconds",
        caption="The same against time, without what it takes to watch the runs and to search for learning rates.",
        alt="The same against seconds.",
        table=_watched(result),
        text="none",
        panels=(_losses(result, lambda spent: spent.seconds, lambda run: run.seconds),),
        x_axis="seconds",
    )


def _loss(result: Escape) -> str:
    return "loss" if compared_by_score(result) else "loss over the reference loss"


def _losses(result: Escape, spent: Callable[[Spent], Number], until: Callable[[Run], Number]) -> Panel:
    """The loss of all runs; in its own units, and without marks, where the task compares it so."""
    own = compared_by_score(result)
    curves = []
    for group, contender in enumerate(result.contenders):
        typical = typical_run(result, contender)
        for run in runs_of(result, contender):
            places = tuple(map(spent, run.at))
            values, at = (run.loss, None) if own else (ratios(result, run), until(run))
            curves.append(_curve(contender.optimizer, places, values, group, main=run is typical, at=at))
    firsts = [run.loss[0] for run in result.runs if run.loss and drawable(run.loss[0], log=True)]
    deepest = DEEPEST**2 * max((loss for loss in firsts if loss is not None), default=1.0)
    return Panel(
        y_axis=_loss(result),
        curves=tuple(curves),
        levels=() if own else (result.threshold,),
        limits=(deepest, None) if own else (DEEPEST, HIGHEST),
    )


def _curve(name: str, x: Sequence[Number], y: Sequence[Number], group: int, *, main: bool, at: Number = None) -> Curve:
    """A curve with as many points as are seen, and its mark where it was at that place."""
    every = max(1, -(-len(x) // POINTS))
    kept = sorted({*range(0, len(x), every), *([len(x) - 1] if x else [])})
    mark = None
    if at is not None:
        beyond = [value for place, value in zip(x, y, strict=True) if place is not None and place >= at]
        if beyond and drawable(beyond[0], log=True):
            mark = (float(at), float(beyond[0]))
    return Curve(name, tuple(x[i] for i in kept), tuple(y[i] for i in kept), group, main, mark)


def _spans(result: Escape) -> tuple[Span, ...]:
    """Predicted steps, in backpropagations of that optimizer."""
    found = []
    for group, contender in enumerate(result.contenders):
        runs = runs_of(result, contender)
        said, each = prediction_of(runs), _each(runs)
        if said is None or said.typical is None:
            continue
        low, high = (said.typical if end is None else end for end in (said.low, said.high))
        seen = tuple(None if run.steps is None else run.backprops for run in runs)
        found.append(Span(contender.optimizer, low * each, said.typical * each, high * each, seen, group))
    return tuple(found)


def _each(runs: Sequence[Run]) -> float:
    """Backpropagations of one step: until the escape, where there was one."""
    out = [(run.steps, run.backprops) for run in runs if run.steps and run.backprops is not None]
    taken = out or [(run.spent.steps, run.spent.backprops) for run in runs]
    steps = sum(count for count, _ in taken)
    return sum(backprops for _, backprops in taken) / steps if steps else 1.0


def _predicted(spans: tuple[Span, ...]) -> Panel | None:
    return Panel(y_axis="", spans=spans) if spans else None


def _regions(result: Escape) -> tuple[Panel, ...]:
    """Radius and rho of the runs that are drawn in full."""
    radii, rhos = [], []
    for group, contender in enumerate(result.contenders):
        run = typical_run(result, contender)
        if run is None or run.region is None or not run.region.backprops:
            continue
        region = run.region
        radii.append(_curve(contender.optimizer, region.backprops, region.radius, group, main=True))
        rhos.append(_curve(contender.optimizer, region.backprops, region.rho, group, main=True))
    if not radii:
        return ()
    return (
        Panel("radius", tuple(radii)),
        Panel("rho", tuple(rhos), log=False, levels=(QUARTER, 1.0), limits=RHO),
    )


def _stability(result: Escape) -> Panel | None:
    """How near the runs that are drawn in full came to what their optimizers stand."""
    curves = []
    for group, contender in enumerate(result.contenders):
        run = typical_run(result, contender)
        if run is not None and run.stability is not None and len(run.stability.ratio) > 1:
            found = run.stability
            curves.append(_curve(contender.optimizer, found.backprops, found.ratio, group, main=True))
    return Panel("lr x curvature", tuple(curves), levels=(1.0,), limits=STOOD) if curves else None


def _watched(result: Escape) -> Table:
    """The losses of each optimizer's run in the middle, over the reference loss: what is read beside the chart."""
    rows = []
    for contender in result.contenders:
        run = typical_run(result, contender)
        if run is None or not run.loss:
            continue
        start = plateau_of(result, run)
        first, last, best = (ratio(loss, start) for loss in (run.loss[0], run.final_loss, run.best_loss))
        rows.append((contender.optimizer, number(run.seed), number(first), number(last), number(best)))
    return Table("Loss over the reference loss", ("optimizer", "seed", "first", "last", "smallest"), tuple(rows))


def landscape(found: Landscape | None) -> Heat | None:
    """The loss in the plane of the gradient and of the most negative eigenvector."""
    if found is None or not found.loss:
        return None
    known = [value for row in found.loss for value in row if drawable(value, log=True)]
    across, up = ([_signed(value) for value in axis] for axis in (found.along_gradient, found.along_curvature))
    middle = (len(up) // 2, len(across) // 2)
    here = found.loss[middle[0]][middle[1]]
    top = None if not known else max(known) if not drawable(here, log=True) else min(max(known), ABOVE * here)
    rows = tuple(
        (name, *(number(value) for value in row[:: max(1, len(row) // 6)]))
        for name, row in zip(up[::-1], found.loss[::-1], strict=True)
    )
    return Heat(
        title="Landscape around the start",
        caption="The loss in the plane of the negative gradient (across) and of the eigenvector of the smallest "
        f"eigenvalue (up), in units of the weights' norm; the cross marks the start, where it is {number(here)}. "
        f"White is where it is no number; the brightest colour stands for all losses from {number(top)} on. On a "
        "plateau the colours around the cross are all alike.",
        alt=f"Loss between {number(min(known, default=None))} and {number(max(known, default=None))} around the start.",
        table=Table("Loss around the start", ("up", *across[:: max(1, len(across) // 6)]), rows),
        text="none",
        labels=tuple(up[::-1]),
        matrix=found.loss[::-1],
        axis="loss",
        columns=tuple(across),
        scale=None if top is None else (min(known), top),
        x_axis="along the negative gradient",
        y_axis="along the most negative curvature",
        marked=(len(up) - 1 - middle[0], middle[1]),
    )


def _signed(value: Number) -> str:
    return MISSING if value is None else "0" if math.isclose(value, 0.0, abs_tol=1e-12) else f"{value:+.2g}"
