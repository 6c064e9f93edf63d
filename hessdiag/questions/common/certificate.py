"""When negative curvature is proven: the smallest eigenvalue is at most v'Hv / v'v, whatever v is."""

from collections.abc import Iterable
from dataclasses import dataclass

from hessdiag.fields import Number
from hessdiag.numbers import number

SLACK = 1e-5  # relative: what rounding in float32 may do to a bound or a share
# What an eigensolver's lowest value is, and what is said where it is not below zero.
OF_RITZ_VECTORS = "v'Hv < 0 for the lowest Ritz vector v"
OF_ALL = "all eigenvalues are known"
NONE_FOUND = "no v'Hv < 0 beyond rounding was found, which does not prove that there is none"
NONE_OF_ALL = f"{OF_ALL}, and none is negative beyond rounding"
UNTRUSTED = "a self-check of the products failed: nothing is proven"


@dataclass(frozen=True)
class Witness:
    """A reason for a negative eigenvalue.

    Attributes:
        value: A number that the smallest eigenvalue does not exceed: a Rayleigh quotient, or the mean of some.
        says: Where it comes from, as a clause.
        margin: What rounding of products can make of a zero.
    """

    value: float
    says: str
    margin: float


@dataclass(frozen=True)
class Certificate:
    """Whether a negative eigenvalue is proven.

    Attributes:
        certain: Whether it is.
        bound: The smallest eigenvalue is at or below it; `None` where nothing was measured or is to be trusted.
        why: The proof, or what is missing.
    """

    certain: bool
    bound: Number = None
    why: str = ""


UNKNOWN = Certificate(certain=False)  # in documents from before there was one
NOTHING_MEASURED = Certificate(certain=False, why="nothing was measured before the interrupt")


def certificate(witnesses: Iterable[Witness], *, trusted: bool, otherwise: str) -> Certificate:
    """The first witness that proves a negative eigenvalue, with the best bound that all of them give.

    Args:
        witnesses: Reasons, the simplest first.
        trusted: Whether the self-checks of the products passed. Where they did not, nothing is proven.
        otherwise: What to say where no witness proves anything.

    >>> along = Witness(-0.5, "g'Hg < 0 along the gradient", 1e-12)
    >>> certificate([along], trusted=True, otherwise="no v'Hv < 0 was found")
    Certificate(certain=True, bound=-0.5, why="g'Hg < 0 along the gradient")
    >>> certificate([along], trusted=False, otherwise="").certain
    False
    """
    if not trusted:
        return Certificate(False, None, UNTRUSTED)
    known = list(witnesses)
    bound = min((witness.value for witness in known), default=None)
    for witness in known:
        if witness.value < -witness.margin:
            return Certificate(True, bound, witness.says)
    return Certificate(False, bound, otherwise)


def share_witness(n: int, trace: float, mass: float) -> Witness:
    """What the diagonal's share of the absolute mass says of an (n, n) matrix.

    With M = H - lambda_min positive semidefinite, |H_ij| = |M_ij| <= (M_ii + M_jj) / 2 off the diagonal. Summed over
    all pairs, the mass off the diagonal is at most (n - 1) (trace - n lambda_min).

    Args:
        n: At least 2.
        trace: Sum of H_ii.
        mass: Sum of |H_ij|, with the diagonal's, which is at least |trace|.

    >>> share_witness(2, 0.2, 2.2).value  # [[0.1, 1], [1, 0.1]], whose lowest eigenvalue is -0.9
    -0.9
    """
    share = number(trace / mass if mass else 1.0)
    return Witness(
        (trace - (mass - trace) / (n - 1)) / n,
        f"the diagonal share {share} is below 1/N, as no positive semidefinite matrix's is",
        SLACK * mass / (n * (n - 1)),
    )
