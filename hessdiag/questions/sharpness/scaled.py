"""A Hessian between two diagonal matrices: in the metric of an optimizer, or in that of the weights' own sizes."""

from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator


class Scaled:
    """D (A + C) D with D and C diagonal; entries of D may be zero.

    Args:
        operator: A, symmetric, (n, n).
        scale: D's diagonal, (n,).
        shift: C's diagonal, (n,), or a multiple of the identity.
    """

    def __init__(self, operator: SymmetricOperator, scale: Tensor | None, shift: Tensor | float = 0.0) -> None:
        self.operator = operator
        self.shape, self.dtype, self.device = tuple(operator.shape), operator.dtype, operator.device
        self._scale = None if scale is None else scale.to(operator.device, operator.dtype)
        self._shift = shift.to(operator.device, operator.dtype) if isinstance(shift, Tensor) else shift

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with v of shape (n,), or V of shape (n, k)."""
        inside = self._times(self._scale, vectors)
        image = self.operator @ inside
        if isinstance(self._shift, Tensor) or self._shift:
            image = image + self._times(self._shift, inside)
        return self._times(self._scale, image)

    def _times(self, diagonal: Tensor | float | None, vectors: Tensor) -> Tensor:
        if diagonal is None:
            return vectors
        if isinstance(diagonal, Tensor) and vectors.ndim > 1:
            return diagonal[:, None] * vectors
        return diagonal * vectors


def metric_scale(metric: Tensor) -> Tensor:
    """P^(-1/2), zero where P is infinite, as where an optimizer does not move an entry.

    >>> metric_scale(torch.tensor([4.0, torch.inf]))
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    return metric.double().rsqrt()
