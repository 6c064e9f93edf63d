"""Where the parameters are and the optimizer that stands there: which curvature it sees, and how much it can take."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import Spread, spread_of, summed
from hessdiag.optimizers.preconditioning import Preconditioning
from hessdiag.problem.problem import Problem
from hessdiag.questions.sharpness.along import weights


@dataclass
class Standing:
    """An optimizer where the parameters are.

    Attributes:
        problem: What is trained.
        operator: Its Hessian.
        made: The optimizer.
    """

    problem: Problem
    operator: SymmetricOperator
    made: Preconditioning

    @property
    def spread(self) -> Spread:
        """Of all vectors over processes."""
        return spread_of(self.operator)

    @cached_property
    def theta(self) -> Tensor:
        """The parameters, (N,)."""
        return weights(self.problem)

    @cached_property
    def metric(self) -> Tensor | None:
        """M, (N,), by which the optimizer divides; `None` where there is none."""
        return self.made.metric(self.problem)

    @cached_property
    def plain(self) -> bool:
        """Whether the metric is the identity: what it sees is the Hessian's own largest eigenvalue, and any decay."""
        if isinstance(self.decay, Tensor) or self.metric is None:
            return False
        return not bool(summed((self.metric != 1).sum(), self.spread))

    @property
    def zeros(self) -> int:
        """Weights that are exactly zero; what fills pieces up is none."""
        return self.spread.n - int(summed((self.theta != 0).sum(), self.spread))

    @property
    def decay(self) -> Tensor | float:
        """What weight decay adds to the Hessian."""
        return self.made.weight_decay if self.made.coupled else 0.0

    @property
    def decays(self) -> bool:
        """Whether it adds anything."""
        return isinstance(self.decay, Tensor) or self.decay != 0

    @property
    def edge(self) -> float | None:
        """The curvature in its metric at which the optimizer is at the edge of stability."""
        constant = self.made.threshold
        return None if constant is None or not self.made.lr else constant / self.made.lr
