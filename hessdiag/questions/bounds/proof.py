"""What entries, rows, blocks and intervals prove of the signs of eigenvalues, and whether two of them disagree."""

import numpy as np
from numpy.typing import NDArray

from hessdiag.numbers import number
from hessdiag.questions.bounds.result import NAMES, Bounds
from hessdiag.questions.common.certificate import SLACK, Witness, share_witness

Floats = NDArray[np.float64]


def witnesses(
    diagonal: Floats, radii: Floats | None, inner: tuple[float, float] | None, rounding: float, metric: str = ""
) -> list[Witness]:
    """What entries, rows and blocks say of the smallest eigenvalue, the cheapest reason first.

    Args:
        diagonal: The exact entries of the diagonal.
        radii: Off-diagonal absolute row sums, where all are exact.
        inner: As in `Bounds`.
        rounding: Magnitude below which a number cannot be told from zero.
        metric: In which metric that is, as the end of a sentence; empty for the Hessian itself.
    """
    lowest = float(diagonal.min())
    says = f"the diagonal has the entry {number(lowest, 4)}, the curvature along one parameter{metric}"
    found = [Witness(lowest, says, rounding)]
    if radii is not None and len(diagonal) > 1:
        found.append(share_witness(len(diagonal), float(diagonal.sum()), float(np.abs(diagonal).sum() + radii.sum())))
    if inner is not None:
        found.append(
            Witness(inner[0], f"the layers' blocks prove an eigenvalue at or below {number(inner[0], 4)}", rounding)
        )
    return found


def excluded(bounds: Bounds) -> str:
    """Whether a bound excludes a negative eigenvalue, in words."""
    for name, (low, _) in bounds.intervals().items():
        if bounds.method == "exact" and low >= 0:
            return f"{NAMES[name]} exclude it: no eigenvalue is below {number(low, 4)}, but for rounding"
    ritz = " nor the lowest Ritz value" if bounds.measured is not None else ""
    return f"{'neither ' if ritz else ''}the entries{ritz} prove {'a' if ritz else 'no'} negative eigenvalue"


def contradicted(bounds: Bounds) -> list[str]:
    """The bounds that a measured eigenvalue violates: one of the two is wrong."""
    if bounds.measured is None or bounds.method != "exact" or bounds.gershgorin is None:
        return []
    slack = SLACK * max(map(abs, bounds.gershgorin))
    low, high = bounds.measured
    return [name for name, ends in bounds.intervals().items() if low < ends[0] - slack or high > ends[1] + slack]
