"""The view of a `chain` document: typical sizes beside averages, the signs of curvature, the plateau."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from hessdiag.report.numbers import MISSING, counted, deviation, number, percent, ratio, with_error
from hessdiag.report.view import Dots, Fact, Lines, Series, Table, View, agreement_fact, findings, side_tables, warnings

Json = Mapping[str, Any]

SIZES = {"gradient": "gradient entry", "hessian_diagonal": "Hessian, diagonal", "hessian_offdiagonal": "off-diagonal"}
KINDS = {
    "definite": "positive definite",
    "one_negative": "one negative eigenvalue",
    "one_positive": "one positive, others negative",
}
SCALES = {
    "rms": "the second moment of v",
    "mean_abs": "the mean of |v|",
    "median_at_length": "the median of |v|, this length",
    "median": "the median of |v|, long chains",
}


def view(doc: Json) -> View:
    """Lay out a `chain` document."""
    result = doc["result"]
    plateau = _plateau(result["plateau"])
    return View(
        question="Which average does the initialization keep, and what does a typical network show?",
        subject=_subject(doc["problem"], result),
        warnings=warnings(doc),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(
            _output(result["lengths"]),
            _sizes(result),
            _derivatives(result["lengths"]),
            _scales(result),
            _inertia(result["inertia"]),
            *((plateau,) if plateau else ()),
        ),
        verdict=findings(doc),
        notes=tuple(doc["problem"].get("notes", ())),
        extra=(_averages(result), *_agreement(result["agreement"]), *side_tables(doc)),
    )


def _subject(problem: Json, result: Json) -> tuple[tuple[str, str], ...]:
    weights = "U[-{0}, {0}]" if result["distribution"] == "uniform" else "N(0, {0}²)"
    return (
        ("network", f"chain of length {number(result['length'])}: v = product of its weights, loss (v - 1)²/2"),
        ("weights", weights.format(number(result["scale"], 6))),
        ("averaged over", f"{number(result['seeds'])} random chains"),
        ("computed", f"{problem['dtype']} on {problem['device']}, seed {problem['seed']}"),
    )


def _headline(result: Json) -> tuple[str, str]:
    return (
        number(result["theory_median_abs"]),
        f"is the exact median of |v|, while its mean is {number(result['theory_mean_abs'])} and its root mean square "
        f"{number(result['theory_rms'])}",
    )


def _facts(result: Json) -> tuple[Fact, ...]:
    critical, definite = result["critical_scale"], result["inertia"]["definite"]
    facts = [
        Fact(
            "measured median",
            with_error(result["median_abs"], result["median_abs_stderr"]),
            "of |v|; the error is from order statistics",
        ),
        Fact(
            "chains above the mean",
            percent(result["theory_probability_above_mean"]),
            f"exact; measured {percent(result['probability_above_mean'])}; far below 50 %, the mean is not typical",
        ),
        Fact(
            "median-keeping scale",
            number(critical["median_at_length"], 5),
            f"at this length; {number(critical['rms'], 5)} keeps the second moment",
        ),
        Fact("positive definite", percent(definite["theory"]), "of the Hessians, exact; the others have both signs"),
    ]
    return (*facts, *agreement_fact(result["agreement"], "with exact values"))


def _values(entries: Sequence[Json], quantity: str, name: str) -> tuple[float | None, ...]:
    return tuple((entry[quantity] or {}).get(name) for entry in entries)


def _output(lengths: Sequence[Json]) -> Lines:
    low, high = (_values(lengths, "product", key) for key in ("q05", "q95"))
    series = []
    for group, (name, key) in enumerate((("median", "median_abs"), ("mean", "mean_abs"), ("root mean square", "rms"))):
        band = (low, high) if key == "median_abs" else ((), ())
        series.append(Series(name, _values(lengths, "product", key), *band, group=group))
        exact = _values(lengths, "product", f"theory_{key}")
        series.append(Series(f"{name}, exact", exact, role="theory", group=group))
    return _lines(
        lengths,
        title="The output against the length",
        caption=(
            "Measured sizes of |v| in the first weights of the same chains, and the band that holds 90 % of them; "
            "dashed lines are exact. Where median and mean part, the mean is of ever rarer chains: in long chains even "
            "its measured value falls short, because no chain that makes it was drawn."
        ),
        alt=f"Median, mean and root mean square of |v| at {counted(len(lengths), 'length')}, measured and exact.",
        series=series,
        text="chart",
    )


def _derivatives(lengths: Sequence[Json]) -> Lines:
    series = []
    for group, (key, name) in enumerate(SIZES.items()):
        median, low, high = (_values(lengths, key, stat) for stat in ("median_abs", "q05", "q95"))
        series.append(Series(f"{name}: median", median, low, high, group=group))
    return _lines(
        lengths,
        title="Gradient and Hessian entries against the length",
        caption=(
            "Measured medians with a 90 % band. While outputs vanish, diagonal entries of the Hessian do so at twice "
            "the rate of the others, which leaves it hollow: eigenvalues of both signs, and no diagonal to scale by."
        ),
        alt=f"Median sizes of gradient and Hessian entries at {counted(len(lengths), 'length')}.",
        series=series,
        text="none",
    )


def _lines(
    lengths: Sequence[Json],
    *,
    title: str,
    caption: str,
    alt: str,
    series: Sequence[Series],
    text: Literal["chart", "none"],
) -> Lines:
    rows = tuple(
        (number(entry["length"]), *(number(one.values[index], 4) for one in series))
        for index, entry in enumerate(lengths)
    )
    return Lines(
        title=title,
        caption=caption,
        alt=alt,
        table=Table(title, ("length", *(one.name for one in series)), rows, text_columns=0),
        text=text,
        x=tuple(float(entry["length"]) for entry in lengths),
        series=tuple(series),
        x_axis="length (weights)",
        y_axis="absolute value",
    )


def _magnitudes(result: Json) -> list[tuple[str, Json]]:
    return [("output v", result), *((name, result[key]) for key, name in SIZES.items() if result[key])]


def _sizes(result: Json) -> Table:
    rows = tuple(
        (
            name,
            with_error(size["median_abs"], size["median_abs_stderr"]),
            number(size["theory_median_abs"], 4),
            number(size["theory_mean_abs"], 3),
            number(size["theory_rms"], 3),
            percent(size["theory_probability_above_mean"]),
        )
        for name, size in _magnitudes(result)
    )
    columns = ("absolute value of", "median", "exact", "mean", "rms", "reach mean")
    return Table(
        f"Sizes at length {number(result['length'])}; what follows the median is exact",
        columns,
        rows,
        optional=("rms", "reach mean"),
    )


def _averages(result: Json) -> Table:
    rows = tuple(
        (
            name,
            with_error(size["mean_abs"], size["mean_abs_stderr"]),
            number(size["theory_mean_abs"], 4),
            with_error(size["rms"], size["rms_stderr"]),
            number(size["theory_rms"], 4),
            percent(size["probability_above_mean"]),
            percent(size["theory_probability_above_mean"]),
        )
        for name, size in _magnitudes(result)
    )
    columns = ("absolute value of", "mean", "exact", "rms", "exact", "reach mean", "exact")
    return Table("Averages, whose measured errors are too small in long chains", columns, rows)


def _scales(result: Json) -> Table:
    rows = tuple(
        (name, number(result["critical_scale"][key], 6), ratio(result["scale"], result["critical_scale"][key]))
        for key, name in SCALES.items()
    )
    return Table("Scales that keep one size or another", ("keeps", "scale", "per weight, at this scale"), rows)


def _inertia(inertia: Mapping[str, Json]) -> Dots:
    shares = [inertia[key] for key in KINDS]
    spread = [2 * (share["stderr"] or 0.0) for share in shares]
    measured = tuple(share["measured"] for share in shares)
    rows = tuple(
        (name, with_error(share["measured"], share["stderr"]), number(share["theory"], 4))
        for name, share in zip(KINDS.values(), shares, strict=True)
    )
    return Dots(
        title="Signs of the Hessian's eigenvalues",
        caption=(
            "Share of the chains whose Hessian is positive definite, has exactly one negative eigenvalue, or exactly "
            "one positive and at least two negative ones; there are no others. Intervals are two standard errors."
        ),
        alt="Measured and exact shares of the three kinds of Hessians.",
        table=Table("Signs of the Hessian's eigenvalues", ("Hessian", "share", "exact"), rows),
        text="table",
        labels=tuple(KINDS.values()),
        series=(
            Series(
                "measured",
                measured,
                tuple(None if m is None else m - s for m, s in zip(measured, spread, strict=True)),
                tuple(None if m is None else m + s for m, s in zip(measured, spread, strict=True)),
            ),
            Series("exact", tuple(share["theory"] for share in shares), role="theory", group=1),
        ),
        axis="share of the chains",
        log=False,
    )


def _plateau(plateau: Json | None) -> Table | None:
    if plateau is None:
        return None
    rows = (
        ("gradient flow, time", number(plateau["flow_time"], 4), number(plateau["theory_time"], 4)),
        ("  its lower bound", MISSING, number(plateau["theory_time_bound"], 4)),
        ("  blow-up of that bound", MISSING, number(plateau["theory_blow_up_time"], 4)),
        ("gradient descent, steps", MISSING, _count(plateau["gradient_descent_steps"])),
        ("RMSprop, steps", number(plateau["rmsprop_steps"]), f"≤ {number(plateau['theory_rmsprop_steps'])}"),
        ("RMSprop, epsilon 1e-8", number(plateau["rmsprop_default_steps"]), MISSING),
    )
    start, end, rate = (number(plateau[key]) for key in ("start", "output", "learning_rate"))
    title = f"From equal weights {start} to v = {end}, the steepest point (learning rate {rate})"
    return Table(title, ("optimizer", "simulated", "theory"), rows)


def _count(value: float | None) -> str:
    """A number of steps that was computed: whole while it is small."""
    return number(round(value)) if value is not None and abs(value) < 1e6 else number(value)


def _agreement(rows: Sequence[Json]) -> tuple[Table, ...]:
    if not rows:
        return ()
    cells = tuple(
        (
            row["quantity"].replace("_", " "),
            row["statistic"],
            with_error(row["measured"], row["stderr"]),
            number(row["theory"], 4),
            deviation(row["z"]),
        )
        for row in rows
    )
    columns = ("quantity", "statistic", "measured", "exact", "z")
    return (Table("Agreement with theory", columns, cells, text_columns=2),)
