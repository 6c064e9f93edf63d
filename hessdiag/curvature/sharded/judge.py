"""Whether something is what differences of several steps say: it agrees, it is off for certain, or they do not tell."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

CERTAIN = 10.0  # times what two steps leave open: what is farther off is wrong


@dataclass(frozen=True)
class Step(Generic[T]):
    """One difference.

    Attributes:
        relative: How long the step was, over |theta| / |v|.
        value: The difference.
        noise: What rounding may do to it.
    """

    relative: float
    value: T
    noise: float


@dataclass(frozen=True)
class Told:
    """What differences say.

    Attributes:
        error: Relative distance from the nearest.
        relative: How long its step was.
        agrees: Whether that is allowed.
        off: Whether it is something else for certain: two steps agree on another value.
    """

    error: float
    relative: float
    agrees: bool
    off: bool


def judged(
    steps: Iterable[Step[T]],
    claimed: T,
    tolerance: float,
    *,
    size: Callable[[T], float],
    distance: Callable[[T, T], float],
) -> Told:
    """Compare with as many steps as it takes, but at least two.

    Args:
        steps: Differences, likely ones first; two are held at a time.
        claimed: What they should be.
        tolerance: Relative distance that is put up with.
        size: Of a value.
        distance: Of two values.

    >>> steps = [Step(1e-2, 2.02, 0.0), Step(1e-3, 2.0002, 0.0)]
    >>> judged(steps, 2.0, 1e-3, size=abs, distance=lambda a, b: abs(a - b)).agrees
    True
    >>> judged(steps, 4.0, 1e-3, size=abs, distance=lambda a, b: abs(a - b)).off
    True
    """
    of_claimed, best, before = size(claimed), None, None
    for step in steps:
        apart = distance(claimed, step.value)
        scale = max(of_claimed, size(step.value))
        error = apart / scale if scale else 0.0
        if max(apart, of_claimed) <= step.noise:  # there is nothing but rounding
            error = 0.0
        off = False
        if before is not None and error > tolerance:
            off = apart > CERTAIN * distance(step.value, before.value) + step.noise
        now = Told(error, step.relative, error <= tolerance, off)
        best = now if best is None or now.error < best.error else best
        if before is not None and (best.agrees or now.off):
            return best if best.agrees else now
        before = step
    assert best is not None
    return best
