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


def fell(losses: Numbers, chance: Number) -> bool:
    """Whether the last losses are clearly below both chance and the first one, and not by luck after leaps up.

    >>> fell((2.4, 2.3, 1.0, 0.9, 0.9, 0.9), 2.3), fell((2.4, 2.3, 2.3, 2.3, 2.3, 2.3), 2.3), fell((2.4, None), 2.3)
    (True, False, False)
    """
    values = [float(loss) for loss in losses if loss is not None]
    if len(values) < max(len(losses), 2):
        return False
    known = _known(chance)
    enough = OF_FIRST * abs(values[0]) if known is None else OF_CHANCE * known
    start, end = _start(values, known), late(values)
    leapt = max(values) > LEAPS * abs(values[0])
    return end < start - enough and (not leapt or end < TAMED * start)


def gain(losses: Numbers, chance: Number) -> float:
    """By what part of chance, or of the first loss if that is lower, the last losses are below it.

    >>> round(gain((2.4, 1.15), 2.3), 3), gain((2.4, None), 2.3)
    (0.228, -inf)
    """
    values = [float(loss) for loss in losses if loss is not None]
    if len(values) < max(len(losses), 2):
        return -math.inf
    start = _start(values, _known(chance))
    return (start - late(values)) / abs(start) if start else 0.0


def trains(step: StepReading, chance: Number) -> bool | None:
    """Whether the losses of a few steps fall clearly; `None` where they do not tell.

    They do not fall if they end at chance or above, and no longer fall there, although the steps were large enough to
    move the weights or the loss.
    """
    if len(step.losses) < 2:
        return None
    if any(loss is None for loss in step.losses):
        return False
    if fell(step.losses, chance):
        return True
    values = [float(loss) for loss in step.losses if loss is not None]
    known, steps = _known(chance), len(values) - 1
    start = _start(values, known)
    fall, move = (step.predicted or 0.0) * steps, (step.update_ratio or 0.0) * steps
    telling = steps >= TELLING_STEPS and (fall > TELLING_FALL * abs(start) or move > TELLING_MOVE)
    middle = values[steps // 2 - LATE // 2 : steps // 2 + LATE // 2 + 1]
    stands = late(values) > FALLING * sum(middle) / len(middle)
    return False if telling and stands and known is not None and late(values) > STOOD * known else None


def late(values: list[float]) -> float:
    """The mean of the last losses."""
    return sum(values[-LATE:]) / len(values[-LATE:])


def _known(chance: Number) -> float | None:
    return float(chance) if chance is not None and 0 < chance < float("inf") else None


def _start(values: list[float], chance: float | None) -> float:
    return values[0] if chance is None else min(values[0], chance)
