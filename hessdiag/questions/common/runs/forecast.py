"""How far long measurements are, and how long the rest takes: work that is counted, entered in the ledger."""

from dataclasses import dataclass
from typing import ClassVar

from hessdiag.linalg import estimators, tridiagonal
from hessdiag.linalg.outlook import Outlook
from hessdiag.machine import cost
from hessdiag.machine.work import Work

NOTHING = Work()


def foreseen(outlook: Outlook, after: Work = NOTHING, *, limited: bool = False) -> None:
    """Enter in the ledger how far a search for extreme eigenpairs is.

    Args:
        outlook: What its residuals say.
        after: What comes after it.
        limited: Whether the products at which it gives up say when it ends, where residuals do not.
    """
    low, high = outlook.ahead or (outlook.least, outlook.limit if limited else None)
    cost.reach(outlook.passed, low + after, None if high is None else high + after)


@dataclass
class Quadratures:
    """Stochastic Lanczos quadrature after the extreme eigenpairs, and the trace: what it takes, and how far it is.

    Attributes:
        probes: Random vectors.
        steps: Lanczos steps from each.
        taken: Eigenpairs that are taken out, at most.
        passed: Vectors that arithmetic has read or written.
        done: Of the probes.
    """

    SKETCH: ClassVar[float] = 0.25  # of the products for the trace: vectors of its sketch, about

    probes: int
    steps: int
    taken: int
    passed: float = 0.0
    done: Work = NOTHING

    @property
    def signs(self) -> int:
        """Products for the trace."""
        return 4 * self.probes

    @property
    def trace(self) -> Work:
        """What the trace takes."""
        beside = estimators.deflated_traffic(self.taken + round(self.SKETCH * self.signs))
        return self.signs * Work(1, beside + estimators.SIGNED)

    @property
    def whole(self) -> Work:
        """What all of it takes."""
        return self.probes * self._lanczos(1, self.steps) + self.trace

    def foresee(self, outlook: Outlook) -> None:
        """Before: how far the extreme eigenpairs are."""
        self.passed = outlook.passed
        foreseen(outlook, self.whole, limited=True)

    def stepped(self, vectors: int, step: int) -> int:
        """So many probes have taken a step; how many products are done."""
        work = vectors * self._lanczos(step, step)
        self.done += work
        self.passed += work.vectors
        return self._told()

    def finished(self, probes: int) -> int:
        """So many probes are done, some of which may have been there; how many products are done."""
        self.done = probes * self._lanczos(1, self.steps)
        return self._told()

    def traced(self, products: int) -> None:
        """So many products for the trace are done."""
        part = products / self.signs
        left = (1 - part) * self.trace
        cost.reach(self.passed + part * self.trace.vectors, left, left)

    def _told(self) -> int:
        left = self.whole + -1 * self.done
        cost.reach(self.passed, left, left)
        return round(self.done.products)

    def _lanczos(self, first: int, last: int) -> Work:
        """These steps of one probe."""
        beside = sum(tridiagonal.traffic(step) for step in range(first, last + 1))
        count = last - first + 1
        return Work(count, beside + count * estimators.deflated_traffic(self.taken))
