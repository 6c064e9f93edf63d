"""Measured numbers beside exact ones: the rows of every table of agreement with theory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from hessdiag.fields import Real

FEWEST_TO_COMPARE = 20  # networks; with fewer, the estimated error of a median is too rough to judge theory by


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A measured number against an exact one; each question says of what, and how the two are called.

    Attributes:
        stderr: Standard error of the measured number.
        z: Standard errors between the two.
    """

    stderr: Real
    z: Real

    @property
    def values(self) -> tuple[float, float]:
        """What was measured, and the exact value."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LogMedianAgreement(Agreement):
    """The log of a median norm, measured and exact."""

    measured_log_median: Real
    theory_log_median: Real

    @property
    def values(self) -> tuple[float, float]:
        """What was measured, and the exact value."""
        return self.measured_log_median, self.theory_log_median


A = TypeVar("A", bound=Agreement)


def farthest(rows: Sequence[A]) -> A | None:
    """The row with the largest deviation; `None` of none.

    >>> farthest([Agreement(stderr=1.0, z=1.0), Agreement(stderr=0.5, z=-2.0)])
    Agreement(stderr=0.5, z=-2.0)
    """
    return max(rows, key=lambda row: abs(row.z), default=None)
