"""Saddle-free Newton on a Krylov space: the Hessian with the absolute values of its eigenvalues."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hessdiag.linalg.tridiagonal import safe_norm, tridiagonalize
from hessdiag.optimizers.damped import DampedNewton, Direction, Matrix
from hessdiag.optimizers.step import Exit


class SaddleFreeNewton(DampedNewton):
    """Saddle-free Newton (Dauphin et al. 2014) on the Krylov space of the gradient, with damping and line search.

    Lanczos steps from g give an orthonormal basis Q and T = Q'HQ = U diag(e) U'; the direction is
    -|g| Q U (|e| + damping)^-1 U' e1, which descends along negative curvature too. Damping is absolute, starts at
    1e-2 max |e|, and follows rho of the plain quadratic model as in `NewtonCG`.

    Near a saddle the distance from it along negative curvature doubles with each step, however small the curvature is:
    from 1e-12 that takes some 40 steps. Where the gradient has no part along negative curvature the direction has none
    either: a saddle attracts what is on its stable manifold, as with gradient descent.

    Args:
        params: One group of parameters.
        products: Lanczos steps, each of which is a product; they hold as many vectors.
        damping: Of the first step, absolute. Default: from the first Ritz values; 0: never any.
        decrease: The share of the linear decrease that a step has to reach (Armijo 1966).
        halvings: The most of a line search; beyond, the step is not taken.
        drop: Factor of the damping after steps that went as predicted.
        boost: The same after those that did not.

    Attributes:
        last: What the last step did; `None` before the first. Its exit is "interior" where the Krylov space was
            exhausted, so that the direction is that of the whole matrix, and else "limit".

    Raises:
        SpecError: if a setting is out of its range, or there are several groups.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.01], dtype=torch.float64))
    >>> optimizer = SaddleFreeNewton([w], damping=0.0)
    >>> _ = optimizer.step(lambda: w[0] ** 2 - w[1] ** 2)
    >>> w.detach().norm(), optimizer.last.products
    (tensor(0.0200, dtype=torch.float64), 2)
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        products: int = 5,
        damping: float | None = None,
        decrease: float = 1e-4,
        halvings: int = 60,
        drop: float = 2 / 3,
        boost: float = 3 / 2,
    ) -> None:
        super().__init__(
            params, products=products, damping=damping, decrease=decrease, halvings=halvings, drop=drop, boost=boost
        )

    def direction(self, operator: Matrix, slope: Tensor) -> Direction | None:
        """Invert the absolute value of the matrix on the Krylov space of the gradient."""
        size = safe_norm(slope)
        space = tridiagonalize(operator, slope / size, self.param_groups[0]["products"], keep_basis=True)
        T = space.matrix()
        if space.basis is None or not bool(T.isfinite().all()):
            return None
        values, vectors = torch.linalg.eigh(T)
        largest = float(values.abs().max())
        damping, least, most = self.damping_at(largest)
        rounding = torch.finfo(slope.dtype).eps * largest
        stiffness = (values.abs() + damping).clamp(min=rounding or damping or 1.0)
        coefficients = -size * (vectors @ (vectors[0] / stiffness))
        step = space.basis[0, :, : len(T)] @ coefficients.to(space.basis)
        ended: Exit = "interior" if bool(space.terminated[0]) else "limit"
        bend = float(coefficients @ T @ coefficients)
        return Direction(step, size * float(coefficients[0]), bend, ended, damping, least, most)
