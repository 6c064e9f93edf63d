"""Whether a short run trains."""

import math

from hessdiag.fields import Number, Numbers
from hessdiag.questions.check.readings import StepReading

LATE = 5  # losses at the end that are averaged: batches differ, and dropout draws
OF_CHANCE, OF_FIRST = 0.1, 0.3  # what a loss must fall by: of chance, or where that is not known, of itself
STOOD = 0.98  # of chance, above which a loss has not moved
FALLING = 0.995  # of the loss in the middle, below which it is still falling at the end
TELLING_STEPS, TELLING_FALL, TELLING_MOVE = 20, 0.05, 0.03  # steps; of the start predicted; of the weights moved
LEAPS, TAMED = 2.0, 0.5  # over the first loss, from which a fall counts only if it ends below this part of the start


def fell(losses: Numbers, chance: Number, batches: int = 1) -> bool:
    """Whether the last losses are clearly below both chance and the first one, and not by luck after leaps up.

    >>> fell((2.4, 2.3, 1.0, 0.9, 0.9, 0.9), 2.3), fell((2.4, 2.3, 2.3, 2.3, 2.3, 2.3), 2.3), fell((2.4, None), 2.3)
    (True, False, False)
    """
    values = [float(loss) for loss in losses if loss is not None]
    if len(values) < max(len(losses), 2):
        return False
    known = _known(chance)
    enough = OF_FIRST * abs(values[0]) if known is None else OF_CHANCE * known
    start, end = _start(values, known, batches), late(values, batches)
    leapt = max(values) > LEAPS * abs(values[0])
    return end < start - enough and (not leapt or end < TAMED * start)


def gain(losses: Numbers, chance: Number, batches: int = 1) -> float:
    """By what part of chance, or of the first loss if that is lower, the last losses are below it.

    >>> round(gain((2.4, 1.15), 2.3), 3), gain((2.4, None), 2.3)
    (0.228, -inf)
    """
    values = [float(loss) for loss in losses if loss is not None]
    if len(values) < max(len(losses), 2):
        return -math.inf
    start = _start(values, _known(chance), batches)
    return (start - late(values, batches)) / abs(start) if start else 0.0


def trains(step: StepReading, chance: Number, batches: int = 1) -> bool | None:
    """Whether the losses of a few steps fall clearly; `None` where they do not tell.

    They do not fall if they end at chance or above, and no longer fall there, although the steps were large enough to
    move the weights or the loss.
    """
    if len(step.losses) < 2:
        return None
    if any(loss is None for loss in step.losses):
        return False
    if fell(step.losses, chance, batches):
        return True
    values = [float(loss) for loss in step.losses if loss is not None]
    known, steps = _known(chance), len(values) - 1
    start, end = _start(values, known, batches), late(values, batches)
    fall, move = (step.predicted or 0.0) * steps, (step.update_ratio or 0.0) * steps
    telling = steps >= TELLING_STEPS and (fall > TELLING_FALL * abs(start) or move > TELLING_MOVE)
    around, half = steps // 2, _period(values, batches) // 2
    middle = values[around - half : around + half + 1]
    stands = end > FALLING * sum(middle) / len(middle)
    return False if telling and stands and known is not None and end > STOOD * known else None


def late(values: list[float], batches: int = 1) -> float:
    """The mean of the last losses: of so many that each batch is among them as often as the others.

    >>> late([3.0, 1.0] * 4, 2), late([9.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 3.0)
    """
    last = values[-_period(values, batches) :]
    return sum(last) / len(last)


def _period(values: list[float], batches: int) -> int:
    """Losses that an average is of: `LATE`, or as many more as make whole turns of the batches, as far as there are."""
    whole = batches * math.ceil(LATE / batches)
    return min(whole, max(len(values) // 2, 1)) if batches > 1 else min(LATE, len(values))


def _known(chance: Number) -> float | None:
    return float(chance) if chance is not None and 0 < chance < float("inf") else None


def _start(values: list[float], chance: float | None, batches: int) -> float:
    """Chance, or the first loss where that is lower; of several batches, the mean of their first ones."""
    early = values[: _period(values, batches)] if batches > 1 else values[:1]
    first = sum(early) / len(early)
    return first if chance is None else min(first, chance)
