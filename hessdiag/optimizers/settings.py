"""Refuses settings of optimizers that are out of range, each with one that would do."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from hessdiag.errors import SpecError
from hessdiag.suggest import meant

# Whether a value is fine, what it has to be, and one that is.
Range: TypeAlias = tuple[Callable[[Any], bool], str, Any]


def positive(example: float) -> Range:
    """Above 0, and finite."""
    return lambda value: 0 < value < math.inf, "a positive number", example


def not_negative(example: float) -> Range:
    """0 or above, and finite."""
    return lambda value: 0 <= value < math.inf, "0 or a positive number", example


def at_least_one(example: float) -> Range:
    """1 or above."""
    return lambda value: value >= 1, "at least 1", example


def share(example: float) -> Range:
    """From 0 on and below 1."""
    return lambda value: 0 <= value < 1, "at least 0 and below 1", example


def check_ranges(settings: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Refuse what is out of range; what is `None` or not there is fine.

    Raises:
        SpecError: with a value that would do.

    >>> check_ranges({"beta": 1.0}, {"beta": share(0.8)})
    Traceback (most recent call last):
    ...
    hessdiag.errors.SpecError: beta has to be at least 0 and below 1, not 1.0.
      try: beta=0.8
    """
    for name, (fine, says, example) in ranges.items():
        value = settings.get(name)
        if value is not None and not fine(value):
            raise SpecError(f"{name} has to be {says}, not {value}.", f"{name}={example!r}")


def check_name(what: str, given: str, possible: Iterable[str]) -> None:
    """Refuse a name that is none of these.

    Raises:
        SpecError: with what may have been meant.
    """
    names = list(possible)
    if given not in names:
        near = meant(str(given), names) or names[0]
        raise SpecError(f"{what} is one of {', '.join(names)}, not {given!r}.", f"{what}={near!r}")
