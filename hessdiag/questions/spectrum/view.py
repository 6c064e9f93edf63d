"""The view of `spectrum`: how are the eigenvalues distributed?"""

import math
from collections.abc import Sequence

from hessdiag.curvature.registry import WORDS
from hessdiag.fields import Interval, Number, Numbers
from hessdiag.questions.common.metric import here, noun
from hessdiag.questions.common.view import metric_facts, signs, subject
from hessdiag.questions.spectrum.result import Curve, Ends, LogCurve, Moment, Outlier, Semicircle, Spectrum
from hessdiag.report.numbers import (
    MISSING,
    bounded,
    counted,
    drawable,
    interval,
    number,
    percent,
    span,
    with_interval,
)
from hessdiag.report.view import Fact, Lines, Series, Table, Values, View

FAINT = 0.02  # of a single eigenvalue's bump: below, a curve shows the tail of its smoothing and nothing else
TABLE_ROWS = 50

WIDE = 0.1  # share of eigenvalues: a wider bracket is shown as such


def view(result: Spectrum) -> View:
    """Lay out a result of `spectrum`."""
    return View(
        question=f"How are the {noun(WORDS[result.operator], result.metric)}'s eigenvalues distributed?",
        subject=subject(result.problem),
        headline=_headline(result),
        facts=_facts(result),
        blocks=_blocks(result),
        extra=(_moments(result.moments),),
    )


def _blocks(result: Spectrum) -> tuple[Lines | Table, ...]:
    """The charts that there is something to draw in, and the extreme eigenvalues."""
    charts = (
        None if result.density is None else _density(result, result.density),
        None if result.log_density is None else _log_density(result.log_density),
        _outliers(result.outliers) if result.outliers else None,
    )
    return tuple(chart for chart in charts if chart is not None)


def _headline(result: Spectrum) -> tuple[str, str]:
    if result.lowest is None or result.highest is None:
        return MISSING, "interrupted before anything was measured"
    low, high = result.lowest_is_bound, result.highest_is_bound
    ends = span((result.lowest, result.highest), low, high)
    count, negative, metric = counted(result.parameters, "eigenvalue"), _negative(result), here(result.metric)
    if result.density is None:
        return ends, f"is the least that the {count} span{metric}; interrupted before their density was measured"
    if low or high:
        where = f"is the least that the {count} span{metric}: an end marked ≤ or ≥ may be further out"
        return ends, f"{where}; {negative} of them are negative"
    return ends, f"holds all eigenvalues{metric}, of which {negative} are negative"


def _negative(result: Spectrum) -> str:
    """The share of negative eigenvalues, as the interval it lies in where a single number would mislead."""
    bounds = _negative_bounds(result)
    wide = bounds is not None and bounds[1] - bounds[0] > WIDE
    return f"between {_range(bounds, 'and')}" if wide else _share(result.negative_fraction, bounds)


def _negative_bounds(result: Spectrum) -> Interval | None:
    """Older documents call the interval bounds."""
    return _drawn_bounds(result.negative_fraction_interval or result.negative_fraction_bounds)


def _drawn_bounds(bounds: Interval | None) -> Interval | None:
    """The 95 % interval of a share, where there is one to show."""
    return bounds if bounds is not None and all(drawable(end, log=False) for end in bounds) else None


def _share(share: Number, bounds: Interval | None) -> str:
    if bounds is None or bounds[0] == bounds[1]:
        return percent(share)
    return MISSING if share is None else f"{percent(share)} (95 %: {_range(bounds, 'to')})"


def _range(bounds: Interval | None, word: str) -> str:
    return MISSING if bounds is None else f"{percent(bounds[0])} {word} {percent(bounds[1])}"


def _facts(result: Spectrum) -> tuple[Fact, ...]:
    exact = result.method == "exact"
    facts = [
        *metric_facts(result.metric),
        Fact(
            "method",
            "exact" if exact else f"{result.probes} × {result.steps}" if result.probes else MISSING,
            "all eigenvalues were computed"
            if exact
            else "random vectors × Lanczos steps; the extreme eigenvalues by themselves",
        ),
        Fact("trace", with_interval(result.trace, result.trace_interval), "sum of the eigenvalues"),
        Fact(
            "Frobenius norm",
            with_interval(result.frobenius, result.frobenius_interval),
            "root of the sum of their squares",
        ),
        Fact("signs", signs(result.inertia), "of all eigenvalues; zero is to rounding"),
        Fact(
            "condition",
            number(result.condition, 4),
            "largest |λ| over the smallest that is not zero to rounding",
        ),
        Fact(
            "negative, between",
            _range(_negative_bounds(result), "and"),
            "the share of negative eigenvalues, as far as it can be resolved",
        ),
        Fact(
            "negative mass",
            _share(result.negative_mass, _drawn_bounds(result.negative_mass_interval)),
            "of the sum of |λ| belongs to negative eigenvalues",
        ),
        Fact("near zero", _near_zero(result), "of the eigenvalues are below 1 % of the largest in magnitude"),
        Fact("unresolved", *_unresolved(result.log_density)),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _near_zero(result: Spectrum) -> str:
    bounds = _drawn_bounds(result.near_zero_fraction_interval)
    wide = bounds is not None and bounds[1] - bounds[0] > WIDE
    return _range(bounds, "to") if wide else _share(result.near_zero_fraction, bounds)


def _unresolved(curve: LogCurve | None) -> tuple[str, str]:
    """What is known of the eigenvalues that are too small for so many steps: how many they are."""
    share = None if curve is None else _drawn_bounds(curve.unresolved_share)
    if curve is None or share is None or not drawable(curve.unresolved_below, log=False) or not share[1]:
        return MISSING, ""
    below = number(curve.unresolved_below, 2)
    return _range(share, "to"), f"of the eigenvalues have |λ| < {below}: sign and shape are not told"


class _Drawn:
    """The points of a curve's grid that have a place on an axis; none where they do not spread."""

    def __init__(self, grid: Numbers) -> None:
        known = [(index, x) for index, x in enumerate(grid) if drawable(x, log=False)]
        self.grid = [x for _, x in known]
        if not self.grid or not min(self.grid) < max(self.grid):
            known, self.grid = [], []
        self._places = [index for index, _ in known]

    def column(self, values: Numbers) -> Numbers:
        """A column there."""
        return tuple(values[index] for index in self._places)

    def ends(self, ends: Ends | None) -> Ends | None:
        """Lower and upper ends of a curve's intervals there."""
        return None if ends is None else (self.column(ends[0]), self.column(ends[1]))


def _band(name: str, values: Numbers, ends: Ends | None, floor: float, group: int) -> Series:
    """A curve wherever it is known and more than the tail of its smoothing, within its 95 % intervals."""
    shown = tuple(value if value is not None and value >= floor and math.isfinite(value) else None for value in values)
    if ends is None:
        return Series(name, shown, group=group)
    low, high = (
        tuple(None if v is None or e is None else e for v, e in zip(shown, column, strict=True)) for column in ends
    )
    return Series(name, shown, tuple(None if e is None else max(e, floor) for e in low), high, group=group)


def _floor(curve: Curve | LogCurve) -> float:
    bump = curve.one_eigenvalue
    return FAINT * bump if drawable(bump, log=True) else 0.0


def _thinned(count: int) -> list[int]:
    step = max(1, -(-count // TABLE_ROWS))
    return list(range(0, count, step))


def _density(result: Spectrum, curve: Curve) -> Lines | None:
    drawn = _Drawn(curve.grid)
    grid, values, ends = drawn.grid, drawn.column(curve.values), drawn.ends(curve.interval)
    if not grid:
        return None
    series = [_band("density", values, ends, _floor(curve), 0)]
    marked = {
        min(range(len(grid)), key=lambda index: abs(grid[index] - value))
        for value in (outlier.eigenvalue for outlier in result.outliers if outlier.converged)
        if drawable(value, log=False)
    }
    if marked:
        marks = tuple(_floor(curve) / FAINT / 2 if index in marked else None for index in range(len(grid)))
        series.append(Series("extreme eigenvalues", marks, role="points", group=1))
    semicircle = _semicircle(grid, result.theory)
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
            f"{number(curve.width)}{', within its 95 % intervals' if ends else ''}. Triangles are "
            "extreme eigenvalues, each drawn where it was computed and never left to chance. The dash-dotted "
            "semicircle is what a random symmetric matrix of the same trace and norm would have: a peak above it near "
            "zero is flatness, tails beyond it are directions that stand out."
        ),
        alt=f"Density of eigenvalues between {number(result.lowest)} and {number(result.highest)}.",
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


def _semicircle(grid: Sequence[float], theory: Semicircle | None) -> Values:
    low, high = (None, None) if theory is None else (theory.semicircle_low, theory.semicircle_high)
    if low is None or high is None or not low < high or not math.isfinite(high - low):
        return ()
    middle, radius = (low + high) / 2, (high - low) / 2
    inside = [1 - away * away for x in grid for away in ((x - middle) / radius,)]
    return tuple(2 / (math.pi * radius) * math.sqrt(share) if share > 0 else None for share in inside)


def _log_density(curve: LogCurve) -> Lines | None:
    drawn = _Drawn(curve.grid)
    grid, positive, negative = drawn.grid, drawn.column(curve.positive), drawn.column(curve.negative)
    if not grid:
        return None
    named = (
        ("positive", positive, drawn.ends(curve.positive_interval)),
        ("negative", negative, drawn.ends(curve.negative_interval)),
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


def _outliers(outliers: Sequence[Outlier]) -> Table:
    rows = tuple(
        (
            bounded(outlier.eigenvalue, outlier.bound),
            number(outlier.residual, 2) if outlier.residual is not None else "exact",
            "yes" if outlier.converged else "no",
        )
        for outlier in outliers
    )
    return Table("Extreme eigenvalues", ("eigenvalue", "true residual", "converged"), rows, text_columns=0)


def _moments(moments: Sequence[Moment]) -> Table:
    rows = tuple((str(moment.order), with_interval(moment.value, moment.interval, 5)) for moment in moments)
    return Table("Moments: averages of powers of the eigenvalues", ("power", "average"), rows)
