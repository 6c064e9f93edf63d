"""Numbers beside their errors, intervals and bounds, as tables and facts show them."""

import math
from collections.abc import Sequence
from typing import TypeGuard

from hessdiag.numbers import (
    MISSING,
    counted,
    deviation,
    factor,
    factor_of_log,
    number,
    p_value,
    percent,
    ratio,
    with_error,
    with_interval,
)

__all__ = [
    "MISSING", "bounded", "counted", "deviation", "drawable", "factor", "factor_of_log", "interval", "number",
    "p_value", "percent", "ratio", "span", "with_error", "with_interval",
]  # fmt: skip


def interval(bounds: Sequence[float] | None, digits: int = 4) -> str:
    """The two ends of an interval.

    >>> interval([0.01, 0.02]), interval([-464463.2, 95539.1]), interval(None)
    ('0.01000 to 0.02000', '-464,463 to 95,539', '–')
    """
    if bounds is None:
        return MISSING
    low, high = (number(end, digits) for end in bounds)
    return f"{low} to {high}"


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
    ('-1.000 to ≥ 2.000', '-1.000 to 2.000')
    """
    low, high = (number(end, digits) for end in bounds)
    return f"{'≤ ' * low_bound}{low} to {'≥ ' * high_bound}{high}"


def drawable(value: float | None, *, log: bool) -> TypeGuard[float]:
    """Whether a value has a place on a (logarithmic) axis."""
    return value is not None and math.isfinite(value) and (value > 0 or not log)
