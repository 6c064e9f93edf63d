"""The view of a `spectrum` document: how are the eigenvalues distributed?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hessdiag.curvature.registry import WORDS
from hessdiag.report.numbers import (
    MISSING,
    bounded,
    counted,
    drawable,
    interval,
    number,
    percent,
    signs,
    span,
    with_interval,
)
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

WIDE = 0.1  # share of eigenvalues: a wider bracket is shown as such

Json = Mapping[str, Any]
Column = Sequence[float | None]


def view(doc: Json) -> View:
    """Lay out a `spectrum` document."""
    result = doc["result"]
    known = result["density"] is not None
    charts = (_density(result, doc["theory"] or {}), _log_density(result)) if known else ()
    return View(
        question=f"How are the {WORDS[result['operator']]}'s eigenvalues distributed?",
        subject=subject(doc["problem"]),
        warnings=warnings(doc),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(
            *(chart for chart in charts if chart is not None),
            *([_outliers(result)] if result["outliers"] else []),
        ),
        verdict=findings(doc),
        notes=tuple(doc["problem"].get("notes", ())),
        extra=(_moments(result["moments"]), *side_tables(doc)),
    )


def _headline(result: Json) -> tuple[str, str]:
    if result["lowest"] is None:
        return MISSING, "interrupted before anything was measured"
    low, high = bool(result.get("lowest_is_bound")), bool(result.get("highest_is_bound"))
    ends = span((result["lowest"], result["highest"]), low, high)
    count, negative = counted(result["parameters"], "eigenvalue"), _negative(result)
    if result["density"] is None:
        return ends, f"is the least that the {count} span; interrupted before their density was measured"
    if low or high:
        where = f"is the least that the {count} span: an end marked ≤ or ≥ may be further out"
        return ends, f"{where}; {negative} of them are negative"
    return ends, f"holds all eigenvalues, of which {negative} are negative"


def _negative(result: Json) -> str:
    """The share of negative eigenvalues, as the interval it lies in where a single number would mislead."""
    bounds = _bounds(result, "negative_fraction")
    wide = bounds is not None and bounds[1] - bounds[0] > WIDE
    return f"between {_range(bounds, 'and')}" if wide else _share(result, "negative_fraction")


def _bounds(result: Json, name: str) -> Sequence[float] | None:
    """The 95 % interval of a share, where there is one to show; older documents have it of one share only."""
    bounds = result.get(f"{name}_interval") or result.get(f"{name}_bounds")
    return bounds if bounds is not None and all(drawable(end, log=False) for end in bounds) else None


def _share(result: Json, name: str) -> str:
    bounds = _bounds(result, name)
    if result[name] is None:
        return MISSING
    share = percent(result[name])
    if bounds is None or bounds[0] == bounds[1]:
        return share
    return f"{share} (95 %: {_range(bounds, 'to')})"


def _range(bounds: Sequence[float] | None, word: str) -> str:
    return MISSING if bounds is None else f"{percent(bounds[0])} {word} {percent(bounds[1])}"


def _facts(result: Json) -> tuple[Fact, ...]:
    exact = result["method"] == "exact"
    inertia = result["inertia"]
    facts = [
        Fact(
            "method",
            "exact" if exact else f"{result['probes']} × {result['steps']}" if result["probes"] else MISSING,
            "all eigenvalues were computed"
            if exact
            else "random vectors × Lanczos steps; the extreme eigenvalues by themselves",
        ),
        Fact("trace", with_interval(result["trace"], result.get("trace_interval")), "sum of the eigenvalues"),
        Fact(
            "Frobenius norm",
            with_interval(result["frobenius"], result.get("frobenius_interval")),
            "root of the sum of their squares",
        ),
        Fact("signs", signs(inertia), "of all eigenvalues; zero is to rounding"),
        Fact(
            "condition",
            number(result.get("condition"), 4),
            "largest |λ| over the smallest that is not zero to rounding",
        ),
        Fact(
            "negative, between",
            _range(_bounds(result, "negative_fraction"), "and"),
            "the share of negative eigenvalues, as far as it can be resolved",
        ),
        Fact("negative mass", _share(result, "negative_mass"), "of the sum of |λ| belongs to negative eigenvalues"),
        Fact("near zero", _near_zero(result), "of the eigenvalues are below 1 % of the largest in magnitude"),
        Fact("unresolved", *_unresolved(result["log_density"] or {})),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _near_zero(result: Json) -> str:
    bounds = _bounds(result, "near_zero_fraction")
    wide = bounds is not None and bounds[1] - bounds[0] > WIDE
    return _range(bounds, "to") if wide else _share(result, "near_zero_fraction")


def _unresolved(curve: Json) -> tuple[str, str]:
    """What is known of the eigenvalues that are too small for so many steps: how many they are."""
    share, below = curve.get("unresolved_share"), curve.get("unresolved_below")
    if share is None or below is None or not all(drawable(end, log=False) for end in (*share, below)) or not share[1]:
        return MISSING, ""
    return _range(share, "to"), f"of the eigenvalues have |λ| < {number(below, 2)}: sign and shape are not told"


def _drawn(curve: Json, *names: str) -> tuple[list[float], list[list[float | None]]]:
    """The grid of a curve, and the named columns there; nothing where it does not spread."""
    grid = curve["grid"]
    keep = [index for index, x in enumerate(grid) if drawable(x, log=False)]
    xs = [grid[index] for index in keep]
    if not xs or not min(xs) < max(xs):
        return [], []
    return xs, [[curve[name][index] for index in keep] for name in names]


def _ends(curve: Json, name: str) -> list[list[float | None]] | None:
    """Lower and upper ends of a curve's intervals, where `_drawn` has its points."""
    ends = curve.get(name)
    if ends is None or any(column is None for column in ends):
        return None
    keep = [index for index, x in enumerate(curve["grid"]) if drawable(x, log=False)]
    return [[column[index] for index in keep] for column in ends]


def _band(name: str, values: Column, ends: Sequence[Column] | None, floor: float, group: int) -> Series:
    """A curve wherever it is known and more than the tail of its smoothing, within its 95 % intervals."""
    shown = tuple(value if value is not None and value >= floor and math.isfinite(value) else None for value in values)
    if ends is None:
        return Series(name, shown, group=group)
    low, high = (
        tuple(None if v is None or e is None else e for v, e in zip(shown, column, strict=True)) for column in ends
    )
    return Series(name, shown, tuple(None if e is None else max(e, floor) for e in low), high, group=group)


def _floor(curve: Json) -> float:
    bump = curve["one_eigenvalue"]
    return FAINT * bump if drawable(bump, log=True) else 0.0


def _thinned(count: int) -> list[int]:
    step = max(1, -(-count // TABLE_ROWS))
    return list(range(0, count, step))


def _density(result: Json, theory: Json) -> Lines | None:
    curve = result["density"]
    grid, columns = _drawn(curve, "values")
    if not grid:
        return None
    (values,), ends = columns, _ends(curve, "interval")
    series = [_band("density", values, ends, _floor(curve), 0)]
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
    rows = tuple(
        (
            number(grid[index], 4),
            number(values[index]),
            *((interval([end[index] or 0.0 for end in ends], 3),) if ends else ()),
        )
        for index in _thinned(len(grid))
    )
    return Lines(
        title="Spectral density",
        caption=(
            f"Share of eigenvalues per unit, on a logarithmic axis, smoothed with a Gaussian of width "
            f"{number(curve['width'])}{', within its 95 % intervals' if ends else ''}. Triangles are "
            "extreme eigenvalues, each drawn where it was computed and never left to chance. The dash-dotted "
            "semicircle is what a random symmetric matrix of the same trace and norm would have: a peak above it near "
            "zero is flatness, tails beyond it are directions that stand out."
        ),
        alt=f"Density of eigenvalues between {number(result['lowest'])} and {number(result['highest'])}.",
        table=Table(
            "Spectral density",
            ("eigenvalue", "density", *(("95 % interval",) if ends else ())),
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
    inside = [1 - away * away for x in grid for away in ((x - middle) / radius,)]
    return tuple(2 / (math.pi * radius) * math.sqrt(share) if share > 0 else None for share in inside)


def _log_density(result: Json) -> Lines | None:
    curve = result["log_density"]
    grid, columns = _drawn(curve, "positive", "negative")
    if not grid:
        return None
    positive, negative = columns
    named = (
        ("positive", positive, _ends(curve, "positive_interval")),
        ("negative", negative, _ends(curve, "negative_interval")),
    )
    series = [
        found
        for group, (name, values, ends) in enumerate(named)
        if any((found := _band(f"{name} eigenvalues", values, ends, _floor(curve), group)).values)
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
            + (" Gaps are beyond what so many steps resolve." if any(v is None for v in positive + negative) else "")
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
            bounded(outlier["eigenvalue"], outlier.get("bound")),
            number(outlier["residual"], 2) if outlier["residual"] is not None else "exact",
            "yes" if outlier["converged"] else "no",
        )
        for outlier in result["outliers"]
    )
    return Table("Extreme eigenvalues", ("eigenvalue", "true residual", "converged"), rows, text_columns=0)


def _moments(moments: Sequence[Json]) -> Table:
    rows = tuple(
        (str(moment["order"]), with_interval(moment["value"], moment.get("interval"), 5)) for moment in moments
    )
    return Table("Moments: averages of powers of the eigenvalues", ("power", "average"), rows)
