"""What a preconditioner is: eigenvalues in bases that are cheap to apply, part by part of the parameters."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
SMALL = 64 * 64  # parameters of a matrix: the product of a larger one takes longer than its call


@dataclass(frozen=True)
class Part:
    """A positive semidefinite matrix on some of the parameters, by its eigenvalues.

    Attributes:
        places: Of its parameters in the parameter vector: (n,), or (b, a) where they are a matrix.
        values: Eigenvalues: (n,) of a diagonal, (k,) in a basis, (b, a) in a product of two.
        left: `None` for a diagonal; else orthonormal columns, (n, k) or (b, b). What k < n columns leave out is zero.
        right: Of the columns of a matrix of parameters, (a, a): the eigenvectors are all products of left and right.

    Of several matrices of parameters that are alike in shape all four may have one more dimension, the first.
    """

    places: Tensor
    values: Tensor
    left: Tensor | None = None
    right: Tensor | None = None

    def of(self, function: Function) -> Function:
        """f(P) for a function of eigenvalues, as what multiplies V of shape (n, k), or (b, a, k)."""
        scales, left, right = function(self.values), self.left, self.right
        if left is None:
            return lambda vectors: scales[..., None] * vectors
        if right is None:
            rest = function(self.values.new_zeros(1))
            return lambda vectors: rest * vectors + left @ ((scales - rest)[:, None] * (left.T @ vectors))

        def product(vectors: Tensor) -> Tensor:
            turned = scales * (left.mT @ vectors.movedim(-1, 0) @ right)
            return (left @ turned @ right.mT).movedim(0, -1)

        return product

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

    @cached_property
    def together(self) -> tuple[Part, ...]:
        """Its parts, small ones of one shape in one: of a deep network they take as long to call as to multiply."""
        alike: dict[tuple[int, ...], list[Part]] = {}
        for index, part in enumerate(self.parts):
            small = part.left is not None and part.right is not None and part.values.numel() <= SMALL
            alike.setdefault(tuple(part.values.shape) if small else (-1, index), []).append(part)
        return tuple(one[0] if len(one) == 1 else _stacked(one) for one in alike.values())

    def of(self, function: Function) -> Function:
        """f(P) for a function of the eigenvalues, as what multiplies V of shape (N,) or (N, k).

        >>> P = Preconditioner("diagonal", (Part(torch.tensor([0, 2]), torch.tensor([3.0, 8.0])),), 2)
        >>> P.of(lambda values: (values + 1) ** -0.5)(torch.ones(3))
        tensor([0.5000, 1.0000, 0.3333])
        """
        parts = [(part.places, part.of(function)) for part in self.together]

        def product(vectors: Tensor) -> Tensor:
            columns = vectors if vectors.ndim > 1 else vectors[:, None]
            found = function(columns.new_zeros(1)) * columns
            for places, own in parts:
                found[places] = own(columns[places])
            return found if vectors.ndim > 1 else found[:, 0]

        return product


def _stacked(parts: list[Part]) -> Part:
    """Products of two bases that are alike in shape, as one."""
    held = [[getattr(part, name) for part in parts] for name in ("places", "values", "left", "right")]
    return Part(*(torch.stack(tensors) for tensors in held))


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
