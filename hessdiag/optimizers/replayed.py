"""Products that were made once, for solvers that ask for them again."""

import torch
from torch import Tensor

from hessdiag.curvature.local import LocalHessian


class EndedError(Exception):
    """A product was asked for beyond those that were made."""


class Replayed:
    """A Hessian (n, n) that answers from memory when a solver comes again with another radius.

    Conjugate gradients and Lanczos multiply the same vectors in the same order whatever the radius, which only says
    where they stop: the k-th product of a second run is the k-th of the first. Memory is that of all products.

    Attributes:
        gradient: (n,).

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> H = Replayed(LocalHessian(w.pow(3).sum(), [w]))
    >>> H @ torch.ones(2)
    tensor([ 6., 12.])
    >>> H.close()
    >>> H.rewind() @ torch.ones(2)
    tensor([ 6., 12.])
    """

    def __init__(self, hessian: LocalHessian) -> None:
        self.gradient = hessian.gradient
        self._hessian: LocalHessian | None = hessian
        self._images: list[Tensor] = []
        self._next = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (len(self.gradient), len(self.gradient))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of vectors."""
        return self.gradient.dtype

    @property
    def device(self) -> torch.device:
        """Device of vectors."""
        return self.gradient.device

    def close(self) -> None:
        """Let go of the graph: from here on there are the products that were made."""
        self._hessian = None

    def rewind(self) -> "Replayed":
        """Itself, from the first product on."""
        self._next = 0
        return self

    def __matmul__(self, vectors: Tensor, /) -> Tensor:
        """The next product, with a vector (n,).

        Raises:
            EndedError: if it was not made, and cannot be any more.
        """
        if self._next == len(self._images):
            if self._hessian is None:
                raise EndedError
            self._images.append(self._hessian @ vectors)
        self._next += 1
        return self._images[self._next - 1]
