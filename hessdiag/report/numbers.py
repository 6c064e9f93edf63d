"""Numbers as people read them: few digits, never cut off, and a word where there is no number."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "–"
_PLAIN = (1e-3, 1e6)  # written without an exponent


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits; whole numbers in full.

    >>> number(0.012345), number(3.2e-41), number(62006), number(None), number(float("nan"))
    ('0.0123', '3.20e-41', '62,006', '–', 'NaN')
    """
    if value is None:
        return MISSING
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if _PLAIN[0] <= abs(value) < _PLAIN[1]:
        return f"{value:,.{max(digits - 1 - int(exponent), 0)}f}"
    return f"{mantissa}e{int(exponent)}"


def with_error(value: float | None, stderr: float | None, digits: int = 4) -> str:
    """A number and its standard error, with two digits of the error.

    >>> with_error(0.012345, 0.0004), with_error(0.012345, None)
    ('0.01235 ± 0.00040', '0.01235')
    """
    if value is None or stderr is None:
        return number(value, digits)
    if stderr > 0 and drawable(stderr, log=True) and _PLAIN[0] <= abs(value) < _PLAIN[1]:
        decimals = 1 - math.floor(math.log10(stderr))
        if 0 <= decimals <= 7:
            return f"{value:,.{decimals}f} ± {stderr:.{decimals}f}"
    return f"{number(value, digits)} ± {number(stderr, 2)}"


def with_interval(value: float | None, bounds: Sequence[float] | None, digits: int = 4) -> str:
    """A number and its 95 % interval, with digits that fit its width.

    >>> with_interval(0.012345, (0.0115, 0.0133)), with_interval(0.012345, None)
    ('0.01235 (95 %: 0.01150 to 0.01330)', '0.01235')
    """
    if value is None or bounds is None or None in bounds:
        return number(value, digits)
    ends = (value, *bounds)
    half = (bounds[1] - bounds[0]) / 2
    if drawable(half, log=True) and _PLAIN[0] <= max(map(abs, ends)) < _PLAIN[1]:
        decimals = 1 - math.floor(math.log10(half))
        if 0 <= decimals <= 7:
            middle, low, high = (f"{end:,.{decimals}f}" for end in ends)
            return f"{middle} (95 %: {low} to {high})"
    return f"{number(value, digits)} (95 %: {number(bounds[0], digits)} to {number(bounds[1], digits)})"


def interval(bounds: Sequence[float] | None, digits: int = 4) -> str:
    """An interval in brackets. The comma parts the two ends and nothing else.

    >>> interval([0.01, 0.02]), interval([-464463.2, 95539.1])
    ('[0.01000, 0.02000]', '[-464463, 95539]')
    """
    if bounds is None:
        return MISSING
    low, high = (number(end, digits).replace(",", "") for end in bounds)
    return f"[{low}, {high}]"


def bounded(value: float | None, bound: str | None, digits: int = 4) -> str:
    """A number, or what it bounds from below ("lower") or from above ("upper").

    >>> bounded(3.2, "lower"), bounded(3.2, "upper"), bounded(3.2, None)
    ('≥ 3.200', '≤ 3.200', '3.200')
    """
    sign = {"lower": "≥ ", "upper": "≤ "}.get(bound or "", "") if value is not None else ""
    return sign + number(value, digits)


def span(bounds: Sequence[float], low_bound: bool, high_bound: bool, digits: int = 4) -> str:
    """An interval whose ends may lie further out.

    >>> span([-1.0, 2.0], False, True), span([-1.0, 2.0], False, False)
    ('[-1.000, ≥ 2.000]', '[-1.000, 2.000]')
    """
    low, high = interval(bounds, digits)[1:-1].split(", ")
    return f"[{'≤ ' * low_bound}{low}, {'≥ ' * high_bound}{high}]"


def signs(inertia: Mapping[str, Any] | None) -> str:
    """How many eigenvalues have each sign.

    >>> signs({"positive": 1200, "negative": 3, "zero": 0})
    '1,200 +, 3 −, 0 zero'
    """
    if inertia is None:
        return MISSING
    return f"{number(inertia['positive'])} +, {number(inertia['negative'])} −, {number(inertia['zero'])} zero"


def percent(value: float | None) -> str:
    """A fraction as a percentage.

    >>> percent(0.1234), percent(0.0)
    ('12.3 %', '0 %')
    """
    return MISSING if value is None else f"{number(100 * value)} %"


def ratio(numerator: float | None, denominator: float | None) -> str:
    """How many times one number is the other.

    >>> ratio(3.0, 2.0), ratio(1.0, 0.0)
    ('×1.50', '–')
    """
    if numerator is None or not denominator:
        return MISSING
    quotient = numerator / denominator
    return number(quotient) if math.isnan(quotient) else f"×{number(quotient)}"


def drawable(value: float | None, *, log: bool) -> bool:
    """Whether a value has a place on a (logarithmic) axis."""
    return value is not None and math.isfinite(value) and (value > 0 or not log)
