"""The view of a `vanishing` document: norms against depth, and within the deepest network."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hessdiag.report.names import shortened
from hessdiag.report.numbers import (
    MISSING,
    counted,
    deviation,
    drawable,
    factor,
    factor_of_log,
    interval,
    number,
    percent,
    ratio,
    with_error,
)
from hessdiag.report.subject import subject
from hessdiag.report.view import (
    Dots,
    Fact,
    Lines,
    Series,
    Table,
    View,
    agreement_fact,
    findings,
    side_tables,
    warnings,
    without_empty,
)

QUANTITIES = {  # rate, key in a depth's entry, name
    "gradient": ("gradient_norm", "gradient"),
    "hessian": ("hessian_norm", "Hessian"),
    "hessian_diagonal_blocks": ("hessian_diagonal_blocks_norm", "Hessian's diagonal blocks"),
    "hessian_offdiagonal_blocks": ("hessian_offdiagonal_blocks_norm", "Hessian's off-diagonal blocks"),
    "vjp": ("vjp_norm", "backpropagated vector"),
}
NORMS = {  # which norms share a figure, with its title and how to read it
    ("gradient", "hessian"): (
        "Norms against depth",
        "Bold lines are medians over networks, dashed lines are means. A "
        "straight line is exponential decay or growth. Where mean and median part, the mean is carried by a "
        "few networks, and the median is what one network will show.",
    ),
    ("hessian_diagonal_blocks", "hessian_offdiagonal_blocks"): (
        "The Hessian's blocks against depth",
        "The Hessian split into the blocks of one layer with itself and those of two different layers. Where "
        "the off-diagonal blocks dominate, the Hessian is nearly hollow: its eigenvalues come in pairs of "
        "both signs, and there is next to no diagonal to scale steps by.",
    ),
}

BANDS = " Bands hold 90 % of the networks, where there are enough to know that."
STATS = {"median": "median", "q05": "5 %", "q95": "95 %"}
KEPT = ("depth", "median", "mean")  # columns that stay though nothing is known in them

Json = Mapping[str, Any]


def view(doc: Json) -> View:
    """Lay out a `vanishing` document."""
    result = doc["result"]
    depths = result["depths"]
    norms = [_norms(depths, pair, *words) for pair, words in NORMS.items()]
    rates = _rates(result["rates"], depths)
    layers = _layers(result["layers"])
    tables = tuple(_table(depths, quantity) for quantity in QUANTITIES if quantity != "vjp")
    widths = _widths(depths)
    extra = (*_vjp(depths), *_layer_widths(result["layers"]), *_agreement(result.get("agreement")))
    blocks = (norms[0], *((rates,) if rates else ()), *((layers,) if layers else ()), norms[1], *tables, *widths)
    return View(
        question="Do gradient and curvature survive the depth?",
        subject=_subject(doc["problem"], result),
        warnings=warnings(doc),
        headline=_headline(result),
        facts=_facts(result),
        blocks=blocks,
        verdict=findings(doc),
        notes=tuple(doc["problem"].get("notes", ())),
        extra=(*extra, *side_tables(doc)),
    )


def _width(value: int | str) -> str:
    return "width = depth" if value == "same" else f"width {value}"


def _subject(problem: Json, result: Json) -> tuple[tuple[str, str], ...]:
    depths = [entry["depth"] for entry in result["depths"]]
    span = f"depth {number(min(depths))} to {number(max(depths))}" if depths else "no depth finished"
    if result["width"] is None:
        law = f" ({result['distribution']})" if result["distribution"] else ""
        init = f"{result['init']}{law}" if result["init"] else "as the model draws its weights"
        seeds = f"{counted(result['seeds'], 'seed')}"
        return (("depths", span), ("init", init), ("averaged over", seeds), *subject(problem))
    return (
        ("network", f"fully connected, {span}, {_width(result['width'])}, {result['activation']}"),
        ("init", f"{result['init']} ({result['distribution']})"),
        ("averaged over", f"{counted(result['seeds'], 'seed')}, batch of {number(result['batch'])}"),
        (
            "computed",
            f"{problem['dtype']} on {problem['device']}, seed {problem['seed']}",
        ),
    )


def _headline(result: Json) -> tuple[str, str]:
    """What becomes of the norms between the depths that the rates are taken between, or the first and the last."""
    depths, rates = result["depths"], result["rates"]
    if not depths:
        return MISSING, "no depth was finished"
    first, last = _ends(depths, rates)
    gradient, hessian = rates.get("gradient"), rates.get("hessian")
    if first is last:
        return number(_median(last["gradient_norm"])), f"is the median gradient norm at depth {number(last['depth'])}"
    said = (
        f"from depth {number(first['depth'])} to {number(last['depth'])} the median gradient norm goes from "
        f"{_change(first, last, 'gradient_norm')}"
    )
    if None not in (_median(first["hessian_norm"]), _median(last["hessian_norm"])):
        said += f", and the Hessian's from {_change(first, last, 'hessian_norm')}"
    if gradient is None:
        return ratio(_median(last["gradient_norm"]), _median(first["gradient_norm"])), f"is what is left: {said}"
    if hessian is not None:
        said += f" ({_factor(hessian)} per layer)"
    return _factor(gradient), f"per layer: {said}"


def _ends(depths: Sequence[Json], rates: Json) -> tuple[Json, Json]:
    """The depths between which rates are taken; of a document without any, the first and the last."""
    known = next((rate for rate in rates.values() if rate and rate.get("from_depth") is not None), None)
    if known is not None:
        ends = [entry for entry in depths if entry["depth"] in (known["from_depth"], known["to_depth"])]
        if len(ends) == 2:
            return ends[0], ends[1]
    return depths[0], depths[-1]


def _change(first: Json, last: Json, key: str) -> str:
    return f"{number(_median(first[key]))} to {number(_median(last[key]))}"


def _factor(rate: Json) -> str:
    """The factor per layer of a rate, which is a natural logarithm per layer, with its standard error."""
    return MISSING if rate["per_layer"] is None else factor_of_log(rate["per_layer"], rate["per_layer_stderr"])


def _limit(per_layer: float | None) -> str:
    """The same factor in theory, which has no error."""
    return MISSING if per_layer is None else factor(math.exp(min(per_layer, 700.0)), 4)


def _facts(result: Json) -> tuple[Fact, ...]:
    if not result["depths"]:
        return ()
    deepest = result["depths"][-1]
    gradient = deepest["gradient_norm"]
    limit = (result["rates"].get("gradient") or {}).get("theory_per_layer")
    facts = [
        Fact(
            "gradient in theory",
            _limit(limit),
            "per layer, in the limit of large depth",
        ),
        Fact(
            "median Hessian norm",
            number(_median(deepest["hessian_norm"])),
            f"Frobenius, at depth {number(deepest['depth'])}",
        ),
        Fact(
            "mean over median",
            ratio(gradient["mean"], _median(gradient)),
            f"of the gradient norm at depth {number(deepest['depth'])}; far above 1, the mean is of rare networks",
        ),
        Fact(
            "dead networks",
            percent(deepest["dead_fraction"]),
            f"at depth {number(deepest['depth'])}: output zero for the whole batch",
        ),
        Fact(
            "off-diagonal blocks",
            ratio(
                _median(deepest["hessian_offdiagonal_blocks_norm"]),
                _median(deepest["hessian_diagonal_blocks_norm"]),
            ),
            "their median norm over that of the diagonal blocks; far above 1, the Hessian is hollow",
        ),
        Fact(
            "diagonal share",
            number(_median(deepest["hessian_diag_share"])),
            f"of the Hessian at depth {number(deepest['depth'])}",
        ),
    ]
    if deepest.get("hessian_probe_error") is not None:
        meaning = "standard error of one deepest network's Hessian norm; the errors of medians hold it"
        facts.append(Fact("probe error", percent(deepest["hessian_probe_error"]), meaning))
    facts += agreement_fact(result.get("agreement") or (), "of a log-median with its exact value")
    return tuple(fact for fact in facts if fact.value != MISSING)


def _median(value: Json | float | None) -> float | None:
    """A median; `None` where no network was live."""
    found = value["median"] if isinstance(value, Mapping) else value
    return None if found is None or math.isnan(found) else found


def _stat(entries: Sequence[Json], key: str, name: str) -> tuple[float | None, ...]:
    return tuple((entry.get(key) or {}).get(name) for entry in entries)


def _norms(depths: Sequence[Json], pair: tuple[str, str], title: str, caption: str) -> Lines:
    series = []
    for group, quantity in enumerate(pair):
        key, name = QUANTITIES[quantity]
        median, mean, low, high = (_stat(depths, key, stat) for stat in ("median", "mean", "q05", "q95"))
        series.append(Series(f"{name}: median", median, low, high, group=group))
        series.append(Series(f"{name}: mean", mean, role="mean", group=group))
        theory = _stat(depths, "theory_rms", quantity)
        if any(value is not None for value in theory):
            series.append(Series(f"{name}: rms in theory", theory, role="theory", group=group))
    names = [QUANTITIES[quantity][1] for quantity in pair]
    banded = any(drawable(value, log=True) for one in series for value in one.low)
    rows = tuple(
        (number(entry["depth"]), *(number(value[index]) for value in (s.values for s in series)))
        for index, entry in enumerate(depths)
    )
    return Lines(
        title=title,
        caption=caption + BANDS * banded,
        alt=f"{'Median, mean and 90 % band' if banded else 'Median and mean'} of the norms of {' and '.join(names)}.",
        table=Table("Norms against depth", ("depth", *(s.name for s in series)), rows, text_columns=0),
        text="chart" if "gradient" in pair else "none",
        x=tuple(float(entry["depth"]) for entry in depths),
        series=tuple(series),
        x_axis="depth (weight matrices)",
        y_axis="Frobenius norm",
    )


def _table(depths: Sequence[Json], quantity: str) -> Table:
    key, name = QUANTITIES[quantity]
    rows = tuple(
        (
            number(entry["depth"]),
            number(_median(norm) if norm else None),
            _error(norm),
            interval((norm["q05"], norm["q95"]), 3) if norm.get("q05") is not None else MISSING,
            number(norm.get("mean")),
            ratio(norm.get("mean"), _median(norm) if norm else None),
            number(entry["seeds"] if quantity == "gradient" else entry["hessian_seeds"]),
            number((entry.get("theory_rms") or {}).get(quantity)),
        )
        for entry in depths
        for norm in (entry.get(key) or {},)
    )
    columns = ("depth", "median", "± error", "5 % to 95 %", "mean", "/ median", "networks", "theory rms")
    optional = ("theory rms", "networks", "± error")
    return without_empty(Table(f"Norm of the {name}", columns, rows, text_columns=0, optional=optional), KEPT)


def _error(norm: Json) -> str:
    """The standard error of a median, relative to it."""
    error = norm.get("log_median_stderr")
    return MISSING if not drawable(error, log=True) else f"± {percent(error, 2)}"


def _vjp(depths: Sequence[Json]) -> tuple[Table, ...]:
    return (_table(depths, "vjp"),) if any(entry.get("vjp_norm") for entry in depths) else ()


def _widths(depths: Sequence[Json]) -> tuple[Table, ...]:
    """Effective widths by depth, where they were measured."""
    rows = tuple(
        (
            number(entry["depth"]),
            number(entry["path_width"]),
            with_error(entry["effective_width"], entry.get("effective_width_stderr")),
            ratio(entry["depth"], entry["effective_width"]),
            number(entry.get("parameters")),
        )
        for entry in depths
        if entry.get("effective_width") is not None
    )
    columns = ("depth", "paths per unit", "effective width", "depth / width", "parameters")
    return (Table("Effective width", columns, rows, text_columns=0, optional=("parameters",)),) if rows else ()


def _layer_widths(layers: Sequence[Json]) -> tuple[Table, ...]:
    """Names and effective widths of the deepest network's layers, where they were measured."""
    named = [layer for layer in layers if layer.get("name") is not None]
    rows = tuple(
        (
            name,
            number(layer["layer"]),
            number(layer.get("path_width")),
            with_error(layer.get("effective_width"), layer.get("effective_width_stderr")),
        )
        for name, layer in zip(shortened([str(layer["name"]) for layer in named]), named, strict=True)
    )
    columns = ("name", "layer", "paths per unit", "effective width")
    return (Table("Layers of the deepest network", columns, rows),) if rows else ()


def _rates(rates: Mapping[str, Json], depths: Sequence[Json]) -> Dots | None:
    found = [(name, key, rate) for quantity, (key, name) in QUANTITIES.items() if (rate := rates.get(quantity))]
    found = [entry for entry in found if entry[2].get("per_layer") is not None]
    if not found:
        return None
    first, last = _ends(depths, rates)
    rows = tuple(
        (
            name,
            *(number(_median(entry.get(key))) for entry in (first, last)),
            _factor(rate),
            _limit(rate["theory_per_layer"]),
            with_error(rate["per_layer"], rate["per_layer_stderr"]),
        )
        for name, key, rate in found
    )
    measured = tuple(rate["per_layer"] for _, _, rate in found)
    theory = tuple(rate["theory_per_layer"] for _, _, rate in found)
    known = any(rate is not None for rate in theory)
    beside = " Theory is the large-depth limit; at finite depth a small difference is expected." if known else ""
    spread = [2 * (rate["per_layer_stderr"] or 0.0) for _, _, rate in found]
    layers = last["depth"] - first["depth"]
    columns = (
        "norm",
        f"depth {number(first['depth'])}",
        f"depth {number(last['depth'])}",
        "per layer",
        "in theory",
        "log per layer",
    )
    return Dots(
        title="Rates per layer",
        caption=(
            "By how much the logarithm of the median norm changes with each further layer (natural "
            f"logarithm), with two standard errors; 0 neither vanishes nor explodes.{beside}"
        ),
        alt=f"Measured rates per layer of {counted(len(found), 'norm')}{' beside theory' if known else ''}.",
        table=Table(
            f"Medians at both depths and their change per layer: the {number(layers)}-th root of second over first"
            if layers > 1
            else "Medians at both depths and their change per layer",
            columns,
            rows,
            optional=("log per layer", "in theory"),
        ),
        text="table",
        labels=tuple(name for name, _, _ in found),
        series=(
            Series(
                "measured",
                measured,
                tuple(m - s for m, s in zip(measured, spread, strict=True)),
                tuple(m + s for m, s in zip(measured, spread, strict=True)),
            ),
            *([Series("theory, large depth", theory, role="theory", group=1)] if known else []),
        ),
        axis="change of log median norm per layer",
        log=False,
    )


def _layers(layers: Sequence[Json]) -> Lines | None:
    if not layers:
        return None
    names = (("gradient_norm", "gradient"), ("hessian_block_norm", "Hessian block"))
    banded = any(drawable(_stat(layers, key, "q05")[0], log=True) for key, _ in names)
    stats = tuple(STATS) if banded else ("median",)
    rows = tuple(
        (
            number(layer["layer"]),
            *(number((layer.get(key) or {}).get(stat)) for key, _ in names for stat in stats),
        )
        for layer in layers
    )
    columns = ("layer", *(f"{name} {STATS[stat]}" for _, name in names for stat in stats))
    return Lines(
        title="Layer by layer in the deepest network",
        caption=(
            "Norm of each layer's gradient and of its diagonal Hessian block: median over networks. A level line "
            "means that every layer gets the same signal, so that vanishing is a matter of the whole depth "
            "and not of the distance from the loss." + BANDS * banded
        ),
        alt=f"Median gradient and Hessian block norms of {counted(len(layers), 'layer')}, logarithmic.",
        table=Table("Norms per layer", columns, rows, text_columns=0),
        text="spark",
        x=tuple(float(layer["layer"]) for layer in layers),
        series=tuple(
            Series(
                name,
                _stat(layers, key, "median"),
                _stat(layers, key, "q05"),
                _stat(layers, key, "q95"),
                group=group,
            )
            for group, (key, name) in enumerate(names)
        ),
        x_axis="layer, from the input",
        y_axis="Frobenius norm",
    )


def _agreement(rows: Sequence[Json] | None) -> tuple[Table, ...]:
    if not rows:
        return ()
    cells = tuple(
        (
            str(row["quantity"]),
            number(row["depth"]),
            with_error(row["measured_log_median"], row["stderr"]),
            number(row["theory_log_median"], 4),
            deviation(row["z"]),
        )
        for row in rows
    )
    columns = ("quantity", "depth", "measured log median", "theory", "z")
    return (Table("Agreement with theory where it is exact", columns, cells),)
