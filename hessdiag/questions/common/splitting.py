"""H = G + R: the Hessian with its Gauss-Newton part, where there is one, and the residual that it leaves."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.runs.outlay import Outlay


@dataclass(frozen=True)
class Splitting:
    """The matrices that the same vectors measure.

    Attributes:
        hessian: H.
        gauss_newton: G; `None` for H alone.
    """

    hessian: HessianOperator
    gauss_newton: GaussNewtonOperator | None = None

    @property
    def problem(self) -> Problem:
        """What is differentiated."""
        return self.hessian.problem

    @property
    def kinds(self) -> int:
        """How many matrices are measured: H, G and H - G, or H alone."""
        return 1 if self.gauss_newton is None else 3

    @property
    def products(self) -> int:
        """How many products a vector takes: H - G needs none of its own."""
        return 1 if self.gauss_newton is None else 2

    @property
    def said(self) -> str:
        """What products are taken of, for the sentence about the cost."""
        return "Hessian" if self.gauss_newton is None else "Hessian and Gauss-Newton matrix"

    @property
    def engine(self) -> str:
        """How products are computed, for the report."""
        own = self.hessian.engine
        return own if self.gauss_newton is None else f"{own}; Gauss-Newton: {self.gauss_newton.engine}"

    def parts(self, product: Tensor, vectors: Callable[[], Tensor]) -> list[Tensor]:
        """Products with all kinds, (N, k) each.

        Args:
            product: With H, in float64.
            vectors: Gives the vectors; called only where there is a G.
        """
        if self.gauss_newton is None:
            return [product]
        part = (self.gauss_newton @ vectors()).double()
        return [product, part, product - part]

    def graph(self, spent: Outlay) -> dict[str, float]:
        """What G holds beside H, in vectors, for the ledger."""
        return {} if self.gauss_newton is None else {"graph of the Gauss-Newton matrix": spent.graph / spent.vector}
