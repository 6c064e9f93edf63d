"""What a rule proposes, before it is ranked."""

from dataclasses import dataclass

from hessdiag.fields import Number


@dataclass(frozen=True, kw_only=True)
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
