"""Newton's method and Gauss-Newton for large problems: damped systems, solved by conjugate gradients."""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from hessdiag.curvature.local import LocalGaussNewton
from hessdiag.errors import SpecError
from hessdiag.linalg.quadratic.cg import conjugate_gradients
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.optimizers.damped import DampedNewton, Direction, Matrix


class NewtonCG(DampedNewton):
    """Newton's method with damping and line search; systems are solved by truncated conjugate gradients.

    Each step solves (H + damping) d = -g until the residual is `tolerance` |g|, or H + damping shows negative
    curvature: then it goes the way that it has found so far, which is one of descent (Dembo and Steihaug 1983). It
    halves the step until the loss decreases by `decrease` of what the gradient promises, and adapts the damping by
    rho, actual over predicted decrease: below 0.25 it is multiplied by `boost`, from 0.75 on by `drop`. Where the line
    search leaves a quarter of the step or less, damping rises at once towards what would have given that step. The
    constants are those of simpleNN (Wang, Tan and Lin 2020), but for the first damping, which is relative to the
    curvature here, as plateaus need it: 1e-2 |Hg| / |g|.

    Args:
        params: One group of parameters.
        damping: Of the first step, absolute. Default: from the first product; 0: never any.
        tolerance: Of the residual of a system, relative to the gradient.
        products: The most that a step takes.
        decrease: The share of the linear decrease that a step has to reach (Armijo 1966).
        halvings: The most of a line search; beyond, the step is not taken.
        drop: Factor of the damping after steps that went as predicted.
        boost: The same after those that did not.

    Attributes:
        last: What the last step did, with products, rho and the damping of the next; `None` before the first.

    Raises:
        SpecError: if a setting is out of its range, or there are several groups.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> optimizer = NewtonCG([w], damping=0.0, tolerance=1e-3)
    >>> optimizer.step(lambda: 50 * w[0] ** 2 + w[1] ** 2 / 2)
    50.5
    >>> w.abs().max() < 1e-5, optimizer.last.products, optimizer.last.exit
    (tensor(True), 2, 'interior')
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        damping: float | None = None,
        tolerance: float = 0.1,
        products: int = 250,
        decrease: float = 1e-4,
        halvings: int = 60,
        drop: float = 2 / 3,
        boost: float = 3 / 2,
    ) -> None:
        super().__init__(
            params,
            damping=damping,
            tolerance=tolerance,
            products=products,
            decrease=decrease,
            halvings=halvings,
            drop=drop,
            boost=boost,
        )

    def direction(self, operator: Matrix, slope: Tensor) -> Direction | None:
        """Solve the damped system; the product with the gradient says what damping is large, and is not repeated."""
        group, image = self.param_groups[0], operator @ (slope / safe_norm(slope))
        scale = safe_norm(image)
        if not math.isfinite(scale):
            return None
        damping, least, most = self.damping_at(scale)
        found = conjugate_gradients(
            operator, slope, damping=damping, tolerance=group["tolerance"], limit=group["products"] - 1, image=image
        )
        if found.exit == "none":
            return None
        return Direction(found.step, found.slope, found.curvature, found.exit, damping, least, most)


class GaussNewtonCG(NewtonCG):
    """As `NewtonCG`, with the Gauss-Newton matrix: positive semidefinite where the loss is convex in the output.

    The closure returns the loss and the model's output, the tensor that the loss function was given.

    Args:
        params: One group of parameters.
        damping: Of the first step, absolute. Default: from the first product; 0: never any.
        tolerance: Of the residual of a system, relative to the gradient.
        products: The most that a step takes.
        decrease: The share of the linear decrease that a step has to reach (Armijo 1966).
        halvings: The most of a line search; beyond, the step is not taken.
        drop: Factor of the damping after steps that went as predicted.
        boost: The same after those that did not.

    Attributes:
        last: What the last step did, with products, rho and the damping of the next; `None` before the first.

    Raises:
        SpecError: if a setting is out of its range, or there are several groups.

    >>> import torch
    >>> x, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> optimizer = GaussNewtonCG(model.parameters(), damping=0.0)
    >>> def closure():
    ...     output = model(x)
    ...     return (output - y).square().mean(), output
    >>> _ = optimizer.step(closure)
    >>> round(model.weight.item(), 4), optimizer.last.products
    (2.0, 1)
    """

    def _matrix(self, value: Tensor, output: Any) -> Matrix:
        if not isinstance(output, Tensor):
            found = "the loss alone" if output is None else f"an output of type {type(output).__name__}, not one tensor"
            raise SpecError(
                f"the closure of GaussNewtonCG returned {found}.",
                "return loss, output (several outputs as one tensor, from which the loss takes its parts), or NewtonCG",
            )
        return LocalGaussNewton(value, output, self.parameters)
