"""What a rule proposes, before it is ranked."""

import math
from dataclasses import dataclass

from hessdiag.fields import Number

DOUBT, SURE = 0.4, 0.9  # confidence where a threshold is met, and far beyond it


@dataclass(frozen=True)
class Candidate:
    """A cause that a rule proposes.

    Attributes:
        id: Identifier.
        layer: Where; `None` for no single layer.
        value: The number that shows it.
        threshold: From where on it counts.
        quantity: What the number is, in words.
        confidence: 0 to 1, by this rule alone.
        says: One sentence, with the number.
        remedy: What to do, in one sentence.
    """

    id: str
    layer: str | None
    value: Number
    threshold: Number
    quantity: str
    confidence: float
    says: str
    remedy: str


def grade(value: Number, weak: float, sure: float) -> float:
    """Confidence in a number: `DOUBT` at one bound, `SURE` at the other and beyond, by its logarithm between.

    Before the first bound it is 0; so is that of a number which is not known. The bounds may stand either way around.

    >>> grade(3.0, 10.0, 1000.0), grade(100.0, 10.0, 1000.0), grade(1e6, 10.0, 1000.0), grade(0.0, 0.03, 0.003)
    (0.0, 0.65, 0.9, 0.9)
    """
    if value is None or math.isnan(value):
        return 0.0
    if value <= 0:
        return SURE if sure < weak else 0.0
    if math.isinf(value):
        return SURE if sure > weak else 0.0
    way = math.log(value / weak) / math.log(sure / weak)
    return 0.0 if way < 0 else DOUBT + (SURE - DOUBT) * min(way, 1.0)
