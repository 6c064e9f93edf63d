"""A matrix of second derivatives in the metric of an optimizer: P^(-1/2) A P^(-1/2), with P diagonal and positive."""

from typing import Protocol, TypeVar

import torch
from torch import Tensor

from hessdiag.curvature.differences import Raw
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import spread_of
from hessdiag.linalg.tridiagonal import safe_norm


class Scalable(Protocol):
    """What can be taken into a metric."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of vectors."""

    @property
    def device(self) -> torch.device:
        """Device of vectors."""

    def scaled(self: "S", scale: Tensor | None) -> "S":
        """The same matrix between two diagonal ones."""


S = TypeVar("S", bound=Scalable)


def in_metric(operator: S, metric: Tensor | None) -> S:
    """The Hessian, Gauss-Newton or Fisher matrix A of an operator in a metric: P^(-1/2) A P^(-1/2).

    It is A in the coordinates P^(1/2) theta, in which the steps theta - lr P^(-1) g of an optimizer that divides by P,
    as Adam does by sqrt(v) + eps, are plain gradient descent. So where that is stable while lr lambda_max(H) < 2, lr
    and lambda_max of this matrix decide for the optimizer, with a constant of its own (Cohen et al. 2022, Adaptive
    gradient methods at the edge of stability, arXiv 2207.14484, eq. 3). All that leaves the operator is in these
    coordinates: products, rows, and the gradient P^(-1/2) g. Signs of eigenvalues do not change (Sylvester's law).

    Args:
        operator: Of a problem with N parameters.
        metric: The diagonal of P, (N,), positive, in the order of `problem.parameters`; infinite where an entry is held
            fixed, whose row is zero then. `None` for A itself.

    Raises:
        ValueError: if it is no such vector.

    >>> from hessdiag import HessianOperator, Problem
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> H = HessianOperator(Problem(model, data=data, loss="mse"))  # [[2, 4], [4, 8]]
    >>> in_metric(H, torch.tensor([1.0, 4.0])) @ torch.eye(2).double()
    tensor([[2., 2.],
            [2., 2.]], dtype=torch.float64)
    """
    if metric is None:
        return operator.scaled(None)
    n = operator.shape[0]
    if metric.shape != (n,):
        raise ValueError(f"a metric is a vector of {n:,} numbers, one for each parameter, not {tuple(metric.shape)}")
    wide = metric.detach().double()
    bad = int((~(wide > 0)).sum())
    if bad:
        raise ValueError(f"a metric is positive, and {bad:,} of its {n:,} entries are not")
    scale = wide.rsqrt().to(operator.device, operator.dtype)
    if not bool(scale.isfinite().all()):
        raise ValueError(
            f"1 / sqrt of the metric's smallest entry, {float(wide.min()):.1e}, is beyond {operator.dtype}"
        )
    return operator.scaled(scale)


class Scaled:
    """D (A + C) D with D and C diagonal, of any symmetric A that is known by its products alone.

    Unlike a metric's, entries of D may be zero, and C is there for weight decay that is part of the gradient.

    Args:
        operator: A, (n, n).
        scale: D's diagonal, (n,); `None` for the identity.
        shift: C's diagonal, (n,), or a multiple of the identity.

    >>> Scaled(torch.eye(2), torch.tensor([1.0, 3.0]), 1.0) @ torch.ones(2)
    tensor([ 2., 18.])
    """

    def __init__(self, operator: SymmetricOperator, scale: Tensor | None, shift: Tensor | float = 0.0) -> None:
        self.operator = operator
        self.shape, self.dtype, self.device = tuple(operator.shape), operator.dtype, operator.device
        self.spread = spread_of(operator)
        self._scale = None if scale is None else scale.to(operator.device, operator.dtype)
        self._shift = shift.to(operator.device, operator.dtype) if isinstance(shift, Tensor) else shift

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with v of shape (n,), or V of shape (n, k)."""
        inside = _rows(self._scale, vectors)
        image = self.operator @ inside
        if isinstance(self._shift, Tensor) or self._shift:
            image = image + _rows(self._shift, inside)
        return _rows(self._scale, image)


def _rows(diagonal: Tensor | float | None, vectors: Tensor) -> Tensor:
    if diagonal is None:
        return vectors
    if isinstance(diagonal, Tensor) and vectors.ndim > 1:
        return diagonal[:, None] * vectors
    return diagonal * vectors


def uneven(matrix: Raw) -> float:
    """Relative rounding of products in a metric: how far that of a vector is from the sum of those of its two parts.

    Where P is tiny, as it is where gradients vanish but for rounding, the metric magnifies what rounding leaves in the
    products there, beyond the relative error that they have as a whole.
    """
    generator = torch.Generator().manual_seed(0)
    n = matrix.shape[0]
    v = torch.randn(n, generator=generator, dtype=torch.float64)
    part = v * (torch.rand(n, generator=generator) < 0.5)
    images = matrix.raw(torch.stack([v, part, v - part], dim=1)).double()
    size = safe_norm(images[:, 0])
    apart = safe_norm(images[:, 0] - images[:, 1] - images[:, 2])
    return apart / size if size > 0 and apart == apart else 0.0
