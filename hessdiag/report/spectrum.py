"""The view of a `spectrum` document: how are the eigenvalues distributed?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hessdiag.report.numbers import MISSING, bounded, drawable, number, percent, signs, span, with_error
from hessdiag.report.subject import subject
from hessdiag.report.view import (
    Fact,
    Lines,
    Series,
    Table,
    Values,
    View,
    findings,
    side_tables,
    warnings,
)

FAINT = 0.02  # of a single eigenvalue's bump: below, a curve shows the tail of its smoothing and nothing else
TABLE_ROWS = 50

WORDS = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "Fisher matrix"}

WIDE = 0.1  # share of eigenvalues: a wider bracket is shown as such

Json = Mapping[str, Any]
Column = Sequence[float | None]


def view(doc: Json) -> View:
    """Lay out a `spectrum` document."""
    result = doc["result"]
    charts = (_density(result, doc["theory"] or {}), _log_density(result))
    return View(
        question=f"How are the {WORDS[result['operator']]}'s eigenvalues distributed?",
        subject=subject(doc["problem"]),
        warnings=warnings(doc),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(*(chart for chart in charts if chart is not None), _outliers(result)),
        verdict=findings(doc),
        notes=tuple(doc["problem"].get("notes", ())),
        extra=(_moments(result["moments"]), *side_tables(doc)),
    )


def _headline(result: Json) -> tuple[str, str]:
    low, high = bool(result.get("lowest_is_bound")), bool(result.get("highest_is_bound"))
    ends = span((result["lowest"], result["highest"]), low, high)
    count, negative = number(result["parameters"]), _negative(result)
    if low or high:
        where = f"is the least that the {count} eigenvalues span: an end marked ≤ or ≥ may be further out"
        return ends, f"{where}; {negative} of them are negative"
    return ends, f"holds all {count} eigenvalues; {negative} of them are negative"


def _negative(result: Json) -> str:
    """The share of negative eigenvalues, as the interval it lies in where a single number would mislead."""
    bounds = result["negative_fraction_bounds"]
    wide = bounds is not None and all(drawable(end, log=False) for end in bounds) and bounds[1] - bounds[0] > WIDE
    return f"between {_bracket(result)}" if wide else _share(result, "negative")


def _share(result: Json, which: str) -> str:
    share, error = result[f"{which}_fraction"], result[f"{which}_fraction_stderr"]
    return percent(share) if not error else f"{percent(share)} (± {percent(error)})"


def _facts(result: Json) -> tuple[Fact, ...]:
    exact = result["method"] == "exact"
    inertia = result["inertia"]
    facts = [
        Fact(
            "method",
            "exact" if exact else f"{result['probes']} × {result['steps']}",
            "all eigenvalues were computed"
            if exact
            else "random vectors × Lanczos steps; the extreme eigenvalues by themselves",
        ),
        Fact("trace", with_error(result["trace"], result["trace_stderr"]), "sum of the eigenvalues"),
        Fact(
            "Frobenius norm",
            with_error(result["frobenius"], result["frobenius_stderr"]),
            "root of the sum of their squares",
        ),
        Fact("signs", signs(inertia), "of all eigenvalues; zero is to rounding"),
        Fact(
            "condition",
            number(result.get("condition"), 4),
            "largest |λ| over the smallest that is not zero to rounding",
        ),
        Fact("negative, between", _bracket(result), "the share of negative eigenvalues, as far as it can be resolved"),
        Fact("negative mass", percent(result["negative_mass"]), "of the sum of |λ| belongs to negative eigenvalues"),
        Fact("near zero", _share(result, "near_zero"), "of the eigenvalues are below 1 % of the largest in magnitude"),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _bracket(result: Json) -> str:
    bounds = result["negative_fraction_bounds"]
    return MISSING if bounds is None else f"{percent(bounds[0])} and {percent(bounds[1])}"


def _drawn(curve: Json, *names: str, start: float = -math.inf) -> tuple[list[float], list[list[float | None]]]:
    """The grid of a curve from `start` on, and the named columns there; nothing where it does not spread."""
    grid = curve["grid"]
    keep = [index for index, x in enumerate(grid) if drawable(x, log=False) and x >= start]
    xs = [grid[index] for index in keep]
    if not xs or not min(xs) < max(xs):
        return [], []
    return xs, [[curve[name][index] if curve[name] else None for index in keep] for name in names]


def _band(name: str, values: Column, errors: Column, floor: float, group: int) -> Series:
    """A curve wherever it is more than the tail of its smoothing, with two standard errors around it."""
    shown = tuple(value if value is not None and value >= floor and math.isfinite(value) else None for value in values)
    if all(error is None for error in errors):
        return Series(name, shown, group=group)
    pairs = [(value, error if value is not None else None) for value, error in zip(shown, errors, strict=True)]
    low = tuple(None if v is None or e is None else max(v - 2 * e, floor) for v, e in pairs)
    high = tuple(None if v is None or e is None else v + 2 * e for v, e in pairs)
    return Series(name, shown, low, high, group=group)


def _floor(curve: Json) -> float:
    bump = curve["one_eigenvalue"]
    return FAINT * bump if drawable(bump, log=True) else 0.0


def _thinned(count: int) -> list[int]:
    step = max(1, -(-count // TABLE_ROWS))
    return list(range(0, count, step))


def _density(result: Json, theory: Json) -> Lines | None:
    curve = result["density"]
    grid, columns = _drawn(curve, "values", "stderr")
    if not grid:
        return None
    values, errors = columns
    series = [_band("density", values, errors, _floor(curve), 0)]
    outliers = [outlier["eigenvalue"] for outlier in result["outliers"] if outlier["converged"]]
    marked = {
        min(range(len(grid)), key=lambda index: abs(grid[index] - value))
        for value in outliers
        if drawable(value, log=False)
    }
    if marked:
        marks = tuple(_floor(curve) / FAINT / 2 if index in marked else None for index in range(len(grid)))
        series.append(Series("extreme eigenvalues", marks, role="points", group=1))
    semicircle = _semicircle(grid, theory)
    if semicircle:
        series.append(Series("semicircle of the same trace and norm", semicircle, role="theory", group=2))
    sampled = curve["stderr"] is not None
    rows = tuple(
        (number(grid[index], 4), number(values[index]), *((number(errors[index], 2),) if sampled else ()))
        for index in _thinned(len(grid))
    )
    return Lines(
        title="Spectral density",
        caption=(
            f"Share of eigenvalues per unit, on a logarithmic axis, smoothed with a Gaussian of width "
            f"{number(curve['width'])}{', with a band of two standard errors' if sampled else ''}. Triangles are "
            "extreme eigenvalues, each drawn where it was computed and never left to chance. The dash-dotted "
            "semicircle is what a random symmetric matrix of the same trace and norm would have: a peak above it near "
            "zero is flatness, tails beyond it are directions that stand out."
        ),
        alt=f"Density of eigenvalues between {number(result['lowest'])} and {number(result['highest'])}.",
        table=Table(
            "Spectral density",
            ("eigenvalue", "density", *(("±",) if sampled else ())),
            rows,
            text_columns=0,
        ),
        text="chart",
        x=tuple(grid),
        series=tuple(series),
        x_axis="eigenvalue",
        y_axis="density of eigenvalues",
    )


def _semicircle(grid: Sequence[float], theory: Json) -> Values:
    low, high = theory.get("semicircle_low"), theory.get("semicircle_high")
    if low is None or high is None or not low < high or not math.isfinite(high - low):
        return ()
    middle, radius = (low + high) / 2, (high - low) / 2
    inside = [1 - ((x - middle) / radius) ** 2 for x in grid]
    return tuple(2 / (math.pi * radius) * math.sqrt(share) if share > 0 else None for share in inside)


def _log_density(result: Json) -> Lines | None:
    curve = result["log_density"]
    exact, width = result["method"] == "exact", result["density"]["width"]
    resolved = -math.inf if exact or not drawable(width, log=True) else math.log10(width)
    grid, columns = _drawn(curve, "positive", "positive_stderr", "negative", "negative_stderr", start=resolved)
    if not grid:
        return None
    positive, above, negative, below = columns
    series = [
        found
        for group, (name, values, errors) in enumerate((("positive", positive, above), ("negative", negative, below)))
        if any((found := _band(f"{name} eigenvalues", values, errors, _floor(curve), group)).values)
    ]
    if not series:
        return None
    rows = tuple(
        (f"{grid[index]:.2f}", number(positive[index]), number(negative[index])) for index in _thinned(len(grid))
    )
    return Lines(
        title="Over decades",
        caption=(
            "The same eigenvalues by the logarithm of their size, positive and negative ones apart: share per decade. "
            "Where both curves lie on each other, curvature up and down are alike."
            + ("" if exact else f" Sizes below {number(width)} are beyond what so many steps resolve, and not drawn.")
        ),
        alt="Density of positive and of negative eigenvalues over the logarithm of their magnitude.",
        table=Table("Density per decade", ("log10 |λ|", "positive", "negative"), rows, text_columns=0),
        text="none",
        x=tuple(grid),
        series=tuple(series),
        x_axis="log10 of |eigenvalue|",
        y_axis="density per decade",
    )


def _outliers(result: Json) -> Table:
    rows = tuple(
        (
            bounded(outlier["eigenvalue"], outlier.get("bound"), 6),
            number(outlier["residual"], 2) if outlier["residual"] is not None else "exact",
            "yes" if outlier["converged"] else "no",
        )
        for outlier in result["outliers"]
    )
    return Table("Extreme eigenvalues", ("eigenvalue", "true residual", "converged"), rows, text_columns=0)


def _moments(moments: Sequence[Json]) -> Table:
    rows = tuple((str(moment["order"]), with_error(moment["value"], moment["stderr"], 5)) for moment in moments)
    return Table("Moments: averages of powers of the eigenvalues", ("power", "average"), rows)
