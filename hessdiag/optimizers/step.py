"""What one step of an optimizer of this package did and cost."""

from dataclasses import dataclass
from typing import Literal

Exit = Literal["interior", "boundary", "negative curvature", "limit", "none"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        loss: Of its batch, before it.
        accepted: Whether the parameters moved.
        gradients: How many were computed: calls of autograd for a gradient.
        products: With the Hessian or the Gauss-Newton matrix, of single vectors.
        evaluations: How often the closure was called.
        length: Euclidean norm of the step that was tried.
        rho: Actual over predicted decrease; `None` where nothing was predicted.
        radius: Of the trust region, after it was adapted; `None` where there is none.
        damping: After it was adapted; `None` where there is none.
        exit: How the subproblem's solver ended: inside the region, on its boundary, along negative curvature, at its
            limit of products; "none" where there was no subproblem.
    """

    loss: float
    accepted: bool
    gradients: int
    products: int
    evaluations: int
    length: float
    rho: float | None = None
    radius: float | None = None
    damping: float | None = None
    exit: Exit = "none"

    @property
    def backpropagations(self) -> int:
        """Gradients and products, each counted as one."""
        return self.gradients + self.products
