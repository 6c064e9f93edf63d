"""The view of a `forward` document: what is left of a signal layer by layer, typically and on average."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hessdiag.report.names import Name, shortened
from hessdiag.report.numbers import MISSING, counted, deviation, interval, number, percent, ratio, with_error
from hessdiag.report.subject import subject
from hessdiag.report.view import (
    Fact,
    Lines,
    Series,
    Table,
    Values,
    View,
    agreement_fact,
    findings,
    side_tables,
    warnings,
    without_empty,
)

Json = Mapping[str, Any]

QUESTION = "What is left of a signal after so many layers?"
IN_ONE_CHART = 4  # as many as there are marks and colours
AVERAGES = ("rms", "median")
MOST_NAMES = 16  # of layers along an axis
FEW_LAYERS = 12  # up to here a table shows them all, beyond that the powers of two and the last


def view(doc: Json) -> View:
    """Lay out a `forward` document."""
    inits, problem = doc["result"]["inits"], doc["problem"]
    if not inits:
        return View(
            question=QUESTION,
            subject=subject(problem) if "parameters" in problem else (("network", "fully connected"),),
            warnings=warnings(doc),
            headline=(MISSING, "interrupted before two networks were measured"),
            facts=(),
            blocks=(),
            verdict=findings(doc),
            notes=tuple(problem.get("notes", ())),
            extra=side_tables(doc),
        )
    groups = [inits[start : start + IN_ONE_CHART] for start in range(0, len(inits), IN_ONE_CHART)]
    return View(
        question=QUESTION,
        subject=_subject(problem, inits),
        warnings=warnings(doc),
        headline=_headline(inits),
        facts=tuple(_facts(inits, doc["result"]["agreement"])),
        blocks=(
            *_solutions(inits),
            *(block for group in groups for block in _layer_gains(group)),
            *(_norms(group) for group in groups),
            *(_gaps(group) for group in groups),
            *(chart for group in groups for chart in (*_gains(group), *_kurtosis(group))),
            *(_table(init) for init in inits),
        ),
        verdict=findings(doc),
        notes=tuple(problem.get("notes", ())),
        extra=(*_agreement(doc["result"]["agreement"]), *side_tables(doc)),
    )


def _subject(problem: Json, inits: Sequence[Json]) -> tuple[tuple[str, str], ...]:
    first = inits[0]
    named = ", ".join(f"{init['init']} ({init['distribution'] or 'dependent'})" for init in inits)
    if _is_model(inits):
        return (
            *subject(problem),
            ("inits", named),
            ("averaged over", f"{counted(first['seeds'], 'network')} for each; biases zero, all else as it was"),
            (
                "norm",
                "root mean square of a layer's output, before its activation, over that of the first layer's input",
            ),
        )
    return (
        (
            "network",
            f"fully connected, depth {number(first['depth'])}, width {number(first['width'])}, {first['activation']}",
        ),
        ("inits", named),
        ("averaged over", f"{counted(first['seeds'], 'network')} for each, inputs uniform on the unit sphere"),
        ("computed", f"{problem['dtype']} on {problem['device']}, seed {problem['seed']}"),
    )


def _is_model(inits: Sequence[Json]) -> bool:
    return inits[0]["width"] is None


def _headline(inits: Sequence[Json]) -> tuple[str, str]:
    """Of the initialization that keeps the typical norm best."""
    alive = [init for init in inits if init["layers"][-1]["live"]]
    if not alive:
        return "0", "is what every network puts out: all are dead"
    best = min(alive, key=lambda init: abs(init["log_median_per_layer"] or 0.0))
    exact = best["layers"][-1]["theory_rms"]
    rms = f"{number(best['rms'])} measured" if exact is None else f"{number(exact, 4)} in theory"
    return (
        number(best["median"]),
        f"times the input's norm is what a typical network puts out under {best['init']}"
        f"{', the best of these' if len(inits) > 1 else ''}; the root mean square is {rms}",
    )


def _facts(inits: Sequence[Json], agreement: Sequence[Json]) -> Iterator[Fact]:
    for init in inits:
        last = init["layers"][-1]
        exact = f", {number(last['theory_median'], 4)} in theory" if last["theory_median"] is not None else ""
        rms, median = (last[f"theory_{key}"] if last[f"theory_{key}"] is not None else last[key] for key in AVERAGES)
        where = last.get("name") or f"layer {number(init['depth'])}"
        meaning = f"median at {where}{exact}; root mean square over median {ratio(rms, median)}"
        value = with_error(init["median"], init["median_stderr"], 3) if last["live"] else "all dead"
        yield Fact(init["init"], value, meaning)
    yield from agreement_fact(agreement, "of a log-median with its exact value")
    dead = max(init["layers"][-1]["dead_fraction"] or 0.0 for init in inits)
    if dead:
        yield Fact("dead networks", percent(dead), "output exactly zero; medians are those of the others")


def _of(init: Json, key: str) -> Values:
    return tuple(layer.get(key) for layer in init["layers"])


def _norms(inits: Sequence[Json]) -> Lines:
    series: list[Series] = []
    for group, init in enumerate(inits):
        name = init["init"]
        series.append(Series(f"{name}: median", _of(init, "median"), _of(init, "q05"), _of(init, "q95"), group=group))
        series.append(Series(f"{name}: root mean square", _of(init, "rms"), role="mean", group=group))
        for key, said in (("theory_median", "exact median"), ("theory_rms", "exact root mean square")):
            if init["layers"][-1][key] is not None:
                series.append(Series(f"{name}: {said}", _of(init, key), role="theory", group=group))
    return _lines(
        series,
        inits,
        title="Norm of the activations against depth",
        caption=(
            "Bold lines are medians over networks, bands hold 90 % of them, dashed lines are root mean squares, and "
            "dash-dotted lines their exact values. A straight line is exponential decay or growth. Where root mean "
            "square and median part, a few networks carry the average, and the median is what one network will show."
        ),
        alt=f"Median, 90 % band and root mean square of norms, by layer: {counted(len(inits), 'initialization')}.",
        y_axis="over the input's",
        text="chart",
    )


def _gaps(inits: Sequence[Json]) -> Lines:
    series: list[Series] = []
    for group, init in enumerate(inits):
        name = init["init"]
        series.append(Series(f"{name}: root mean square", _quotient(init, "rms", "median"), group=group))
        series.append(Series(f"{name}: mean", _quotient(init, "mean", "median"), role="mean", group=group))
        if init["layers"][-1]["theory_median"] is not None:
            exact = _quotient(init, "theory_rms", "theory_median")
            series.append(Series(f"{name}: exact root mean square", exact, role="theory", group=group))
    return _lines(
        series,
        inits,
        title="How far the average runs ahead of a typical network",
        caption=(
            "Root mean square (bold) and mean (dashed) over median, layer by layer; 1 at the input. Where depth "
            "exceeds width, the measured root mean square falls behind the exact one (dash-dotted): the networks that "
            "carry it are too rare to be among those drawn. Initializations that draw from one distribution share "
            "their random numbers: with linear or (leaky) ReLU layers their lines coincide."
        ),
        alt="Root mean square and mean over median of the norm ratio in every layer, measured and exact.",
        y_axis="average / median",
        text="none",
    )


def _gains(inits: Sequence[Json]) -> Iterator[Lines]:
    """What a positively homogeneous network's norms say of the scale that would keep them, depth by depth."""
    series: list[Series] = []
    for group, init in enumerate(inits):
        last = init["layers"][-1]
        if last["theory_rms"] is None:
            continue
        name, middle = init["init"], _keeping(init, "log_median")
        low, high = (_keeping(init, "log_median", errors) for errors in (2, -2))
        series.append(Series(f"{name}: median 1", middle, low, high, group=group))
        if last["theory_median"] is not None:
            series.append(Series(f"{name}: exact", _keeping(init, "theory_log_median"), role="theory", group=group))
        exact = _keeping(init, "theory_log_rms")
        series.append(Series(f"{name}: root mean square 1, exact", exact, role="mean", group=group))
    if series:
        yield _lines(
            series,
            inits,
            title="The factor of the weights that keeps a norm, by depth",
            caption=(
                "By what all weights would have to be multiplied for networks of so many layers to keep the norm of a "
                "typical one (bold, with two standard errors) or the mean square (dashed). The narrower a network, the "
                "further the two are apart: one factor cannot do both."
            ),
            alt="Factors of the weights that keep median or root mean square, at every depth.",
            y_axis="factor of the weights",
            text="none",
        )


def _keeping(init: Json, key: str, errors: float = 0.0) -> Values:
    """exp(-log / layer) of a log ratio, moved by some standard errors: the factor that scales it to 1."""
    logs = zip(_of(init, "layer"), _of(init, key), _of(init, "log_median_stderr"), strict=True)
    return tuple(
        math.exp(min(-(log + errors * stderr) / layer, 700.0))
        if layer and log is not None and stderr is not None
        else None
        for layer, log, stderr in logs
    )


def _kurtosis(inits: Sequence[Json]) -> Iterator[Lines]:
    series: list[Series] = []
    for group, init in enumerate(inits):
        if init["layers"][-1].get("theory_kurtosis") is None:
            continue
        measured, stderr = _of(init, "kurtosis"), _of(init, "kurtosis_stderr")
        low, high = (
            tuple(None if m is None or s is None else m + k * s for m, s in zip(measured, stderr, strict=True))
            for k in (-2, 2)
        )
        series.append(Series(init["init"], measured, low, high, group=group))
        series.append(Series(f"{init['init']}: exact", _of(init, "theory_kurtosis"), role="theory", group=group))
    if series:
        yield _lines(
            series,
            inits,
            title="Fourth moment over the square of the second",
            caption=(
                "E r⁴ / (E r²)² of the norm ratio r, with two standard errors; 1 where all networks agree. It grows "
                "exponentially with depth at any scale of the weights, and the less the wider the network. Once the "
                "networks that carry it are too rare to be drawn, the measured value falls behind the exact one."
            ),
            alt="Kurtosis of the norm ratio in every layer, measured and exact.",
            y_axis="E r⁴ / (E r²)²",
            text="none",
        )


def _quotient(init: Json, upper: str, lower: str) -> Values:
    pairs = zip(_of(init, upper), _of(init, lower), strict=True)
    return tuple(a / b if a is not None and b else None for a, b in pairs)


def _lines(
    series: Sequence[Series], inits: Sequence[Json], *, title: str, caption: str, alt: str, y_axis: str, text: Any
) -> Lines:
    layers = _of(inits[0], "layer")
    names = _names(inits[0]["layers"])
    rows = tuple(
        (number(layer), *(number(one.values[index], 4) for one in series)) for index, layer in enumerate(layers)
    )
    return Lines(
        title=title,
        caption=caption,
        alt=alt,
        table=Table(title, ("layer", *(one.name for one in series)), rows, text_columns=0),
        text=text,
        x=tuple(float(layer or 0) for layer in layers),
        series=tuple(series),
        x_axis="layer, from the input",
        names=names if all(names) and len(names) <= MOST_NAMES else (),
        y_axis=y_axis,
    )


def _table(init: Json) -> Table:
    named = _is_model([init])
    rows = tuple(
        (
            name or number(layer["layer"]),
            with_error(layer["median"], layer["median_stderr"], 3),
            number(layer["theory_median"], 4),
            interval((layer["q05"], layer["q95"]), 3) if layer["q05"] is not None else MISSING,
            number(layer["mean"]),
            number(layer["rms"]),
            number(layer["theory_rms"], 4),
            percent(layer["dead_fraction"]),
        )
        for name, layer in _named(init, init["layers"])
    )
    columns = ("layer", "median", "exact", "5 % to 95 %", "mean", "rms", "exact rms", "dead")
    table = Table(
        f"{init['init']}: norm over the input's",
        columns,
        rows,
        text_columns=1 if named else 0,
        optional=("dead", "5 % to 95 %", "mean"),
    )
    return without_empty(table, set(columns) - {"exact", "exact rms"})


def _solutions(inits: Sequence[Json]) -> Iterator[Table]:
    solved = [(init["init"], found) for init in inits if (found := init.get("solution"))]
    if not solved:
        return
    rows = tuple(
        (
            name,
            with_error(found["gain"], found["gain_stderr"], 5),
            number(found["mean_square_growth"], 5),
            number(found["mean_square_growth_deep"], 5),
            with_error(found["achieved"], found["achieved_stderr"], 3),
            deviation(found["z"]),
            found["method"],
        )
        for name, found in solved
    )
    columns = ("init", "scale weights by", "mean square", "infinite depth", "on fresh networks", "z", "found by")
    first = solved[0][1]
    if first.get("layers"):
        columns = (
            "init",
            "mean gain",
            "mean square",
            "infinite depth",
            "last layer of fresh ones",
            "worst z",
            "found by",
        )
        title = f"With a gain for each layer, the {first['target']} is 1 after every one"
    else:
        title = f"The gain that makes the {first['target']} 1 at layer {inits[0]['depth']}"
    yield without_empty(Table(title, columns, rows, optional=("found by", "infinite depth")))


def _layer_gains(inits: Sequence[Json]) -> Iterator[Lines | Table]:
    """The gains of single layers: all in a chart, and in a table those that a table of layers shows."""
    solved = [(init, layers) for init in inits if (layers := (init.get("solution") or {}).get("layers"))]
    if not solved:
        return
    series = [
        Series(init["init"], tuple(layer["gain"] for layer in layers), group=group)
        for group, (init, layers) in enumerate(solved)
    ]
    yield _lines(
        series,
        [init for init, _ in solved],
        title="Gain of each layer",
        caption="The factor of each layer's weights with which the signal keeps its size after that layer.",
        alt="The factor of each layer's weights, by layer.",
        y_axis="gain",
        text="none",
    )
    for init, layers in solved:
        named = _is_model([init])
        rows = tuple(
            (
                name or number(layer["layer"]),
                with_error(layer["gain"], layer["gain_stderr"], 5),
                with_error(layer["achieved"], layer["achieved_stderr"], 3),
                deviation(layer["z"]),
            )
            for name, layer in _named(init, layers)
        )
        columns = ("layer", "scale weights by", "on fresh networks", "z")
        yield Table(f"{init['init']}: gain of each layer", columns, rows, text_columns=1 if named else 0)


def _names(layers: Sequence[Json]) -> tuple[Name, ...]:
    return shortened([layer.get("name") or "" for layer in layers])


def _named(init: Json, layers: Sequence[Json]) -> list[tuple[Name | None, Json]]:
    """The layers that a table shows, with their names where the network is the user's own."""
    shown = _shown(init, layers)
    return list(zip(_names(shown) if _is_model([init]) else [None] * len(shown), shown, strict=True))


def _shown(init: Json, layers: Sequence[Json]) -> list[Json]:
    """Of a long network without names, the layers that a table shows: powers of two, and the last."""
    if _is_model([init]) or init["depth"] <= FEW_LAYERS:
        return list(layers)
    return [layer for layer in layers if layer["layer"] == init["depth"] or layer["layer"].bit_count() == 1]


def _agreement(rows: Sequence[Json]) -> tuple[Table, ...]:
    if not rows:
        return ()
    cells = tuple(
        (
            row["init"],
            number(row["layer"]),
            with_error(row["measured_log_median"], row["stderr"]),
            number(row["theory_log_median"], 4),
            deviation(row["z"]),
        )
        for row in rows
    )
    columns = ("init", "layer", "measured log median", "exact", "z")
    return (Table("Agreement with theory where it is exact", columns, cells),)
