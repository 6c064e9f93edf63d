"""How many eigenvalues have which sign."""

from dataclasses import dataclass

from hessdiag.fields import Count, Number


@dataclass(frozen=True)
class Inertia:
    """How many eigenvalues are positive, negative, and zero: of magnitude at most `tolerance`."""

    positive: Count
    negative: Count
    zero: Count
    tolerance: Number
