"""Which learning rates, and which initial size of the output, would make a network learn alike at any width."""

from collections.abc import Sequence
from dataclasses import replace

from hessdiag.nets.mup import POWERS, Family, Role
from hessdiag.questions.transfer.result import LayerPowers

OUTPUT_POWER = -1.0  # of the output's initial entries, with muP; those of other layers go with 1/sqrt(inputs)
NEAR = 0.6  # powers at small widths are off by as much


def mended(lines: Sequence[LayerPowers], family: Family | None, tolerance: float) -> tuple[LayerPowers, ...]:
    """The same lines with the powers of the width that learning rates and initial entries would need.

    A first step changes weights by its learning rate: one that grows as width^u wants a rate of width^-u besides. An
    output layer whose initial entries shrink more slowly than 1/width makes hidden layers learn together faster than
    one by one; where it starts smaller, so do all gradients behind it, which gradient descent feels and optimizers that
    divide by the gradient's size do not.

    Args:
        lines: Of networks of several widths.
        family: Whether the optimizer divides gradients by their size.
        tolerance: Powers up to this are as they should be.

    >>> from hessdiag.questions.transfer.result import Slope
    >>> head = LayerPowers(name="head", role="output", rate=0.0, initial_weight=-0.5, first_update=Slope(slope=1.0))
    >>> inner = LayerPowers(name="up", role="hidden", rate=0.0, initial_weight=-0.5, first_update=Slope(slope=0.5))
    >>> [(line.mended_rate, line.mended_weight) for line in mended([inner, head], "sgd", 0.1)]
    [(0.0, None), (-1.0, -1.0)]
    """
    outputs = [line.initial_weight for line in lines if line.role == "output" and line.initial_weight is not None]
    excess = max((power - OUTPUT_POWER for power in outputs), default=0.0)
    excess = excess if excess > tolerance else 0.0
    return tuple(_line(line, excess, family) for line in lines)


def _line(line: LayerPowers, excess: float, family: Family | None) -> LayerPowers:
    found = line.first_update
    behind = excess if family == "sgd" and line.role != "output" else 0.0
    rate = line.rate
    if found.slope is None or rate is None:
        rate = None
    elif found.low is None or found.high is None or not found.low <= behind <= found.high:
        rate = _near(rate - (found.slope - behind), family, line.role)
    weight = OUTPUT_POWER if excess and line.role == "output" and line.initial_weight is not None else None
    return replace(line, mended_rate=rate, mended_weight=weight)


def _near(power: float, family: Family | None, role: Role) -> float:
    """The power of muP's table, if what was measured is near it at these widths; else the nearest half."""
    law = None if family is None else float(POWERS[family][role])
    return law if law is not None and abs(power - law) <= NEAR else round(2 * power) / 2 + 0.0
