"""How many eigenvalues have which sign."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Inertia:
    """How many eigenvalues are positive, negative, and zero: of magnitude at most `tolerance`."""

    positive: int
    negative: int
    zero: int
    tolerance: float
