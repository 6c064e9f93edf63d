"""What a preconditioner is: eigenvalues in bases that are cheap to apply, part by part of the parameters."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """A positive semidefinite matrix on some of the parameters, by its eigenvalues.

    Attributes:
        places: Of its parameters in the parameter vector: (n,), or (b, a) where they are a matrix.
        values: Eigenvalues: (n,) of a diagonal, (k,) in a basis, (b, a) in a product of two.
        left: `None` for a diagonal; else orthonormal columns, (n, k) or (b, b). What k < n columns leave out is zero.
        right: Of the columns of a matrix of parameters, (a, a): the eigenvectors are all products of left and right.
    """

    places: Tensor
    values: Tensor
    left: Tensor | None = None
    right: Tensor | None = None

    def apply(self, function: Function, vectors: Tensor) -> Tensor:
        """f(P) V for a function of eigenvalues and V of shape (n, k), or (b, a, k)."""
        scales, basis = function(self.values), self.left
        if basis is None:
            return scales[..., None] * vectors
        if self.right is not None:
            turned = torch.einsum("bi,bak,aj->ijk", basis, vectors, self.right)
            return torch.einsum("bi,ijk,aj->bak", basis, scales[..., None] * turned, self.right)
        rest = function(self.values.new_zeros(1))
        return rest * vectors + basis @ ((scales - rest)[:, None] * (basis.T @ vectors))

    @property
    def frobenius(self) -> float:
        """Its norm."""
        return float(self.values.norm())


@dataclass(frozen=True)
class Preconditioner:
    """P, (N, N), positive semidefinite: zero on parameters that no part has.

    Attributes:
        name: Of its kind.
        parts: On disjoint sets of parameters.
        held: Numbers that whoever applies it holds.
        root: Whether it is made of square roots of gradients' second moments: then its scale is up to a learning rate.
        notes: What is to be said of how it was made.
    """

    name: str
    parts: tuple[Part, ...]
    held: int
    root: bool = False
    notes: tuple[str, ...] = ()

    @property
    def frobenius(self) -> float:
        """Its norm."""
        return math.hypot(*(part.frobenius for part in self.parts))

    def apply(self, function: Function, vectors: Tensor) -> Tensor:
        """f(P) V for a function of the eigenvalues, and V of shape (N,) or (N, k).

        >>> P = Preconditioner("diagonal", (Part(torch.tensor([0, 2]), torch.tensor([3.0, 8.0])),), 2)
        >>> P.apply(lambda values: (values + 1) ** -0.5, torch.ones(3))
        tensor([0.5000, 1.0000, 0.3333])
        """
        columns = vectors if vectors.ndim > 1 else vectors[:, None]
        found = function(columns.new_zeros(1)) * columns
        for part in self.parts:
            found[part.places] = part.apply(function, columns[part.places])
        return found if vectors.ndim > 1 else found[:, 0]


def power(exponent: float, shift: float, scale: float = 1.0) -> Function:
    """The function of eigenvalues that makes (scale P + shift I)^exponent of a preconditioner."""
    return lambda values: (scale * values + shift) ** exponent


def diagonal(name: str, values: Tensor, *, root: bool = False, notes: tuple[str, ...] = ()) -> Preconditioner:
    """A diagonal preconditioner: one number for each parameter, (N,), none negative."""
    part = Part(torch.arange(len(values), device=values.device), values)
    return Preconditioner(name, (part,), len(values), root, notes)


def none() -> Preconditioner:
    """No preconditioner: zero, so that what is added to each for damping is all there is."""
    return Preconditioner("none", (), 0)
