"""How many eigenvalues have which sign."""

from collections.abc import Sequence
from dataclasses import dataclass

from hessdiag.fields import Count, Number


@dataclass(frozen=True)
class Inertia:
    """How many eigenvalues are positive, negative, and zero: of magnitude at most `tolerance`."""

    positive: Count
    negative: Count
    zero: Count
    tolerance: Number


def inertia(eigenvalues: Sequence[float], tolerance: float, zeros: int = 0) -> Inertia:
    """Signs of all eigenvalues.

    Args:
        eigenvalues: All but those of rows that are exactly zero.
        tolerance: Magnitude up to which one counts as zero.
        zeros: How many rows are exactly zero.

    >>> inertia([-1.0, 1e-12, 2.0, 3.0], 1e-9, zeros=5)
    Inertia(positive=2, negative=1, zero=6, tolerance=1e-09)
    """
    positive = sum(value > tolerance for value in eigenvalues)
    negative = sum(value < -tolerance for value in eigenvalues)
    return Inertia(positive, negative, len(eigenvalues) - positive - negative + zeros, tolerance)
