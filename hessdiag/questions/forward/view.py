"""The view of `forward`: what is left of a signal layer by layer, typically and on average."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from hessdiag.questions.common.ensembles.agreement_view import agreement_fact, agreement_table
from hessdiag.questions.common.result import ModelSubject
from hessdiag.questions.common.view import computed, subject
from hessdiag.questions.forward import charts, own_view
from hessdiag.questions.forward.result import Forward, InitRatios, LayerAgreement, LayerGain, LayerRatio
from hessdiag.report.names import Name
from hessdiag.report.numbers import MISSING, counted, deviation, interval, number, percent, ratio, with_error
from hessdiag.report.view import Fact, Lines, Table, View, without_empty

L = TypeVar("L", LayerRatio, LayerGain)

QUESTION = "What is left of a signal after so many layers?"
IN_ONE_CHART = 4  # as many as there are marks and colours
FEW_LAYERS = 12  # up to here a table shows them all, beyond that the powers of two and the last
RARE = 1e-6  # a share of networks below which no run is expected to meet one


def view(result: Forward) -> View:
    """Lay out a result of `forward`."""
    inits, own = result.inits, result.own
    groups = [inits[start : start + IN_ONE_CHART] for start in range(0, len(inits), IN_ONE_CHART)]
    return View(
        question=QUESTION,
        subject=_subject(result),
        headline=(None if own is None else own_view.headline(own)) or _headline(inits),
        facts=(
            *(() if own is None else own_view.facts(own)),
            *_facts(inits, result.agreement, experiment=own is not None),
        ),
        blocks=(
            *(() if own is None else own_view.blocks(own)),
            *_solutions(inits),
            *(block for group in groups for block in _layer_gains(group)),
            *(charts.norms(group) for group in groups),
            *(charts.gaps(group) for group in groups),
            *(chart for group in groups for chart in (*charts.gains(group), *charts.kurtosis(group))),
            *(_table(init) for init in inits),
        ),
        extra=_agreement(result.agreement),
    )


def _subject(result: Forward) -> tuple[tuple[str, str], ...]:
    problem, inits = result.problem, result.inits
    if not inits:
        return subject(problem) if isinstance(problem, ModelSubject) else (("network", "fully connected"),)
    first = inits[0]
    named = ", ".join(f"{init.init} ({init.distribution or 'dependent'})" for init in inits)
    if isinstance(problem, ModelSubject):
        return (
            *subject(problem),
            (
                "experiment",
                f"{counted(first.seeds, 'network')} with fresh weights for each of {named}; "
                f"biases zero, all else as it was{_in_float64(inits)}",
            ),
            (
                "norm",
                "root mean square of a layer's output, before its activation, over that of the first layer's input",
            ),
        )
    return (
        ("network", f"fully connected, depth {number(first.depth)}, width {number(first.width)}, {first.activation}"),
        ("inits", named),
        ("averaged over", f"{counted(first.seeds, 'network')} for each, inputs uniform on the unit sphere"),
        computed(problem),
    )


def _in_float64(inits: Sequence[InitRatios]) -> str:
    """Where the model's own numbers were too narrow."""
    many = {init.init: init.in_float64 for init in inits if init.in_float64}
    said = " and ".join(f"{count:,} under {init}" for init, count in many.items())
    return f"; computed in float64, for the model's dtype does not hold their numbers: {said}" if many else ""


def _headline(inits: Sequence[InitRatios]) -> tuple[str, str]:
    """Of the initialization that keeps the typical norm best."""
    if not inits:
        return MISSING, "interrupted before two networks were measured"
    alive = [init for init in inits if init.last.live]
    if not alive:
        return "0", "is what every network puts out: all are dead"
    best = min(alive, key=lambda init: abs(init.log_median_per_layer or 0.0))
    exact = best.last.theory_rms
    rms = f"{number(best.rms)} measured" if exact is None else f"{number(exact, 4)} in theory"
    return (
        number(best.median),
        f"times the input's norm is what a typical network puts out under {best.init}"
        f"{', the best of these' if len(inits) > 1 else ''}; the root mean square is {rms}",
    )


def _facts(inits: Sequence[InitRatios], agreement: Sequence[LayerAgreement], *, experiment: bool) -> Iterator[Fact]:
    for init in inits:
        last = init.last
        exact = f", {number(last.theory_median, 4)} in theory" if last.theory_median is not None else ""
        rms = last.rms if last.theory_rms is None else last.theory_rms
        median = last.median if last.theory_median is None else last.theory_median
        where = last.name or f"layer {number(init.depth)}"
        meaning = f"median at {where}{exact}; root mean square over median {ratio(rms, median)}"
        value = with_error(init.median, init.median_stderr, 3) if last.live else "all dead"
        yield Fact(f"fresh {init.init}" if experiment else init.init, value, meaning)
    yield from agreement_fact(agreement, "of a log-median with its exact value")
    dead = max((init.last.dead_fraction or 0.0 for init in inits), default=0.0)
    if dead:
        likely = max((init.last.theory_dead_fraction or 0.0 for init in inits), default=0.0)
        theory = f"; {percent(likely)} in theory" if likely >= RARE else ""
        yield Fact("dead networks", percent(dead), f"output exactly zero{theory}; medians are those of the others")


def _may_die(layer: LayerRatio) -> bool:
    """Whether dead networks are to be expected in some run."""
    return layer.theory_dead_fraction is not None and layer.theory_dead_fraction >= RARE


def _of(init: InitRatios) -> str:
    """Of which networks a table is: of a user's model they are an experiment."""
    return init.init if init.width is not None else f"Experiment, {init.init}"


def _table(init: InitRatios) -> Table:
    rows = tuple(
        (
            name or number(layer.layer),
            with_error(layer.median, layer.median_stderr, 3),
            number(layer.theory_median, 4),
            MISSING if layer.q05 is None or layer.q95 is None else interval((layer.q05, layer.q95), 3),
            number(layer.mean),
            number(layer.rms),
            number(layer.theory_rms, 4),
            percent(layer.dead_fraction),
            percent(layer.theory_dead_fraction) if _may_die(layer) else MISSING,
            number(layer.variation, 2),
        )
        for name, layer in _named(init, init.layers)
    )
    columns = ("layer", "median", "exact", "5 % to 95 %", "mean", "rms", "exact rms", "dead", "exact dead", "differs")
    table = Table(
        f"{_of(init)}: norm over the input's",
        columns,
        rows,
        text_columns=_text_columns(init),
        optional=("exact dead", "dead", "5 % to 95 %", "mean"),
    )
    return without_empty(table, set(columns) - {"exact", "exact rms", "exact dead", "differs"})


def _solutions(inits: Sequence[InitRatios]) -> Iterator[Table]:
    solved = [(init.init, init.solution) for init in inits if init.solution is not None]
    if not solved:
        return
    rows = tuple(
        (
            name,
            with_error(found.gain, found.gain_stderr, 5),
            number(found.mean_square_growth, 5),
            number(found.mean_square_growth_deep, 5),
            with_error(found.achieved, found.achieved_stderr, 3),
            deviation(found.z),
            found.method,
        )
        for name, found in solved
    )
    first = solved[0][1]
    if first.layers:
        gain, achieved, z = "mean gain", "last layer of fresh ones", "worst z"
        title = f"With a gain for each layer, the {first.target} is 1 after every one"
    else:
        gain, achieved, z = "scale weights by", "on fresh networks", "z"
        title = f"The gain that makes the {first.target} 1 at layer {inits[0].depth}"
    columns = ("init", gain, "mean square", "infinite depth", achieved, z, "found by")
    yield without_empty(Table(title, columns, rows, optional=("found by", "infinite depth")))


def _layer_gains(inits: Sequence[InitRatios]) -> Iterator[Lines | Table]:
    """The gains of single layers: all in a chart, and in a table those that a table of layers shows."""
    yield from charts.layer_gains(inits)
    for init in inits:
        if init.solution is None or not init.solution.layers:
            continue
        rows = tuple(
            (
                name or number(layer.layer),
                with_error(layer.gain, layer.gain_stderr, 5),
                with_error(layer.achieved, layer.achieved_stderr, 3),
                deviation(layer.z),
            )
            for name, layer in _named(init, init.solution.layers)
        )
        columns = ("layer", "scale weights by", "on fresh networks", "z")
        yield Table(f"{_of(init)}: gain of each layer", columns, rows, text_columns=_text_columns(init))


def _named(init: InitRatios, layers: Sequence[L]) -> list[tuple[Name | None, L]]:
    """The layers that a table shows, with their names where the network is the user's own.

    Of a long network without names these are the powers of two, and the last.
    """
    if init.width is None:
        return list(zip(charts.names_of(layers), layers, strict=True))
    few = init.depth <= FEW_LAYERS
    return [(None, one) for one in layers if few or one.layer == init.depth or one.layer.bit_count() == 1]


def _text_columns(init: InitRatios) -> int:
    return 1 if init.width is None else 0


def _agreement(rows: Sequence[LayerAgreement]) -> tuple[Table, ...]:
    return agreement_table(
        rows,
        lambda row: (row.init, number(row.layer)),
        "Agreement with theory where it is exact",
        ("init", "layer", "measured log median", "exact"),
    )
