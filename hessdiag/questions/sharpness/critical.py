"""Critical sharpness, by losses alone: how far along a step the loss is back at its value."""

import math
from collections.abc import Callable
from dataclasses import dataclass

PASSES = 10  # at most, the loss at the start among them
TOLERANCE = 0.02  # width of the bracket, over the step, that is narrow enough
FARTHEST = 64.0  # factor between a step and the next one that is tried, while there is no bracket
BEYOND = 1.5  # how far beyond an estimate is tried, over what it has moved: so that the other end comes near, too
HALVED = 1 + 1e-9  # times half of a bracket's width: a middle halves it, whatever rounding says
RISES = 8.0  # such a factor where the loss does not bend upwards, so that nothing says how far to go


@dataclass(frozen=True)
class CriticalStep:
    """Where the loss along a direction is back at its value.

    Attributes:
        step: Multiple of the direction; `None` where it was not found.
        low: The largest one that was tried at which the loss was below its value; 0 for none.
        high: The smallest one at which it was above; infinite for none.
        passes: Evaluations of the loss.
        blur: What rounding of the loss can move `step`, relative to it.
    """

    step: float | None
    low: float
    high: float
    passes: int
    blur: float = 0.0

    @property
    def sharpness(self) -> float | None:
        """2 / step."""
        return None if self.step is None else 2 / self.step

    @property
    def error(self) -> float | None:
        """How far `sharpness` can be off: the farther end of the bracket, and rounding."""
        found = self.sharpness
        if found is None or not self.low:
            return None
        ends = (2 / self.low - found, found - 2 / self.high)
        return max(ends) + self.blur * found


def critical_step(
    loss: Callable[[float], float],
    slope: float,
    lr: float,
    *,
    rounding: float = 0.0,
    most: int = PASSES,
    tolerance: float = TOLERANCE,
) -> CriticalStep:
    """The smallest step along a direction from which on the loss is above its value (Kalra et al., arXiv 2601.16979).

    A bracket from the optimizer's own step on, outwards or inwards, and then interpolation or bisection on a
    logarithmic axis. Both use that (loss(s) - loss(0)) / s starts at minus the slope and is a straight line in s where
    the loss is quadratic: there five evaluations do.

    Args:
        loss: At a multiple of the direction; infinite or NaN counts as above.
        slope: By which the loss falls at first, g'd.
        lr: The multiple that is tried first.
        rounding: What rounding can do to a loss, relative to it.
        most: Evaluations.
        tolerance: Of the bracket's width over the step.

    Returns:
        The step; `None` where the loss does not fall at first, or no bracket was found.

    Example: (1 - 2 s)^2 is back at 1 for s = 1, and its sharpness is 2.

    >>> found = critical_step(lambda s: (1 - 2 * s) ** 2, 4.0, 0.1)
    >>> abs(found.sharpness - 2) < 1e-9, found.error < 0.03, found.passes
    (True, True, 5)
    """
    if not slope > 0:
        return CriticalStep(None, 0.0, math.inf, 0)
    here = loss(0.0)
    search = _Search(here, slope, tolerance)
    passes, step = 1, lr
    while passes < most and 0 < step < math.inf:
        search.enter(step, loss(step))
        passes += 1
        if search.narrow:
            break
        step = search.next()
    found = search.root() if search.bracketed else None
    # At the root the loss rises as steeply as it fell, if it is quadratic.
    blur = rounding * abs(here) / (slope * found) if found is not None else 0.0
    return CriticalStep(found, search.low, search.high, passes, blur)


class _Search:
    """The bracket, and where to look next.

    Attributes:
        low: The largest step below.
        high: The smallest step above.
    """

    def __init__(self, here: float, slope: float, tolerance: float) -> None:
        self.here, self.slope, self.tolerance = here, slope, tolerance
        self.low, self.high = 0.0, math.inf
        self._below, self._above = -slope, math.inf  # (loss(s) - loss(0)) / s at both
        self._root = 0.0  # as it was estimated last
        self._width = math.inf

    def enter(self, step: float, value: float) -> None:
        """Take what the loss is at a step."""
        rise = (value - self.here) / step if math.isfinite(value) else math.inf
        if rise > 0:
            self.high, self._above = step, rise
        else:
            self.low, self._below = step, rise

    @property
    def bracketed(self) -> bool:
        """Whether both ends were seen."""
        return self.low > 0 and self.high < math.inf

    @property
    def narrow(self) -> bool:
        """Whether the bracket is."""
        return self.bracketed and self.high / self.low <= 1 + self.tolerance

    def root(self) -> float:
        """By the straight line between the ends; the geometric mean where one is infinite."""
        if math.isinf(self._above):
            return math.sqrt(self.low * self.high)
        share = -self._below / (self._above - self._below)
        return self.low + share * (self.high - self.low)

    def next(self) -> float:
        """A step a little beyond where the loss should be back, on the side of the farther end, so that the ends meet.

        The middle where that leads out of the bracket, or the last one has not halved it.
        """
        if self.high == math.inf:
            return self._outwards()
        root = self.root() if math.isfinite(self._above) else self.high / RISES
        if not self.low:
            return max(root * (1 - self.tolerance / 2), self.high / FARTHEST)
        moved, self._root = abs(math.log(root / self._root)) if self._root else math.inf, root
        middle = math.sqrt(self.low * self.high)
        width = math.log(self.high / self.low)
        slow, self._width = 2 * width > self._width * HALVED, width
        if math.isinf(self._above) or slow:
            return middle
        margin = 1 + max(self.tolerance / 3, BEYOND * min(moved, 1.0))
        aside = root * margin if root / self.low < self.high / root else root / margin
        return aside if self.low < aside < self.high else middle

    def _outwards(self) -> float:
        """By the parabola with the slope at 0 and this value; some times as far where it does not bend upwards."""
        bend = (self._below + self.slope) / self.low
        ahead = self.slope / bend if bend > 0 else RISES * self.low
        found: float = min(max(ahead * (1 + self.tolerance / 3), RISES ** (1 / 3) * self.low), FARTHEST * self.low)
        return found
