"""Symmetric matrices that LODO learns: how each is made of its numbers, and the slope of a bilinear form in them.

All are S(phi) (n, n) with S = I where they start, and products cost far less than n^2. Only `Mixing` is positive
semidefinite whatever its numbers are, as P'P.
"""

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import embedding

from hessdiag.linalg.algebra import Operator

Variant = Literal["lodo", "diagonal", "global", "residual"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
RESIDUAL_DEPTH = 64  # permutations of the residual variant: as many numbers as 16 layers of blocks of 4


class Shape(ABC):
    """How a symmetric matrix S (n, n) is made of numbers phi."""

    @abstractmethod
    def initial(self, generator: torch.Generator, like: Tensor) -> Tensor:
        """Numbers with which S is the identity, of the dtype and on the device of another tensor."""

    @abstractmethod
    def product(self, phi: Tensor, vectors: Tensor) -> Tensor:
        """S V, for V (n, k)."""

    @abstractmethod
    def slope(self, phi: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """The gradient of `left' S right` in phi, of phi's shape; both vectors are (n,)."""


class Diagonal(Shape):
    """S = diag(phi): a step size for each parameter (Amid et al. 2022)."""

    def __init__(self, n: int) -> None:
        self.n = n

    def initial(self, generator: torch.Generator, like: Tensor) -> Tensor:
        """Ones."""
        return torch.ones(self.n, dtype=like.dtype, device=like.device)

    def product(self, phi: Tensor, vectors: Tensor) -> Tensor:
        """Each row times its number."""
        return phi[:, None] * vectors

    def slope(self, phi: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Products of entries."""
        return left * right


class Global(Shape):
    """S = phi I: one step size (Baydin et al. 2017)."""

    def initial(self, generator: torch.Generator, like: Tensor) -> Tensor:
        """One."""
        return torch.ones((), dtype=like.dtype, device=like.device)

    def product(self, phi: Tensor, vectors: Tensor) -> Tensor:
        """All times the number."""
        return phi * vectors

    def slope(self, phi: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """The inner product."""
        return left @ right


class _Permuted(Shape):
    """A shape on a wider space: vectors are padded with zeros, and permuted before every layer."""

    def __init__(self, n: int, wide: int, depth: int, generator: torch.Generator, device: torch.device) -> None:
        self.n, self.wide, self.depth = n, wide, depth
        orders = torch.stack([torch.randperm(wide, generator=generator) for _ in range(depth)])
        self._there, self._back = (list(each.to(device)) for each in (orders, orders.argsort(1)))

    def _padded(self, vectors: Tensor) -> Tensor:
        found = vectors.new_zeros(self.wide, vectors.shape[1])
        found[: self.n] = vectors
        return found


class Mixing(_Permuted):
    """S = E'P'PE with P = B_L Pi_L ... B_1 Pi_1: layers of small blocks between fixed random permutations.

    E pads with zeros to `wide` entries, which is 2n and what is missing to the next multiple of the block: never
    nothing. phi is (depth, wide / block, block, block), and starts with random orthogonal blocks.

    >>> shape = Mixing(3, 2, 4, torch.Generator().manual_seed(0), torch.device("cpu"))
    >>> phi = shape.initial(torch.Generator().manual_seed(1), torch.zeros(0).double())
    >>> shape.wide, phi.shape, torch.allclose(shape.product(phi, torch.eye(3).double()), torch.eye(3).double())
    (8, torch.Size([2, 2, 4, 4]), True)
    """

    def __init__(self, n: int, depth: int, block: int, generator: torch.Generator, device: torch.device) -> None:
        super().__init__(n, wide(n, block), depth, generator, device)
        self.block = block
        # As blocks take them: a look-up gives rows in that form, in one call where indexing takes two.
        self._there = [order.view(-1, block) for order in self._there]
        self._back = [order.view(-1, block) for order in self._back]

    def initial(self, generator: torch.Generator, like: Tensor) -> Tensor:
        """Random orthogonal blocks."""
        size = (self.depth, self.wide // self.block, self.block, self.block)
        Q, R = torch.linalg.qr(torch.randn(size, generator=generator, dtype=torch.float64))
        signs = R.diagonal(dim1=-2, dim2=-1).sign()  # with which the law of Q is uniform
        blocks: Tensor = Q * signs.unsqueeze(-2)
        return blocks.to(like.device, like.dtype)

    def _forward(self, phi: Tensor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """P E x, and what went into each layer, (wide / block, block, k)."""
        x, inputs, size = self._padded(x), [], (self.wide, x.shape[1])
        for blocks, order in zip(phi.unbind(), self._there, strict=True):
            inputs.append(embedding(order, x))
            x = torch.bmm(blocks, inputs[-1]).view(size)
        return x, inputs

    def product(self, phi: Tensor, vectors: Tensor) -> Tensor:
        """E'P'PE V."""
        y, _ = self._forward(phi, vectors)
        size, layers = y.shape, zip(phi.mT.unbind(), self._back, strict=True)
        y = y.view(-1, self.block, size[1])
        for blocks, order in reversed(list(layers)):
            y = embedding(order, torch.bmm(blocks, y).view(size))
        return y.view(size)[: self.n]

    def slope(self, phi: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Of <P E left, P E right>: P goes over both vectors at once, and back; the transposed half is never run."""
        y, inputs = self._forward(phi, torch.stack((left, right), 1))
        size, found = y.shape, torch.empty_like(phi)
        layers = zip(found.unbind(), inputs, phi.mT.unbind(), self._back, strict=True)
        y = y.flip(1).view(-1, self.block, 2)
        for part, x, blocks, order in reversed(list(layers)):
            torch.bmm(y, x.mT, out=part)
            y = embedding(order, torch.bmm(blocks, y).view(size))
        return found


class Residual(_Permuted):
    """S = E'P'DPE with P = (I + W_K Pi_K) ... (I + W_1 Pi_1), W and D diagonal: residual connections.

    phi is (depth + 1, wide): the diagonals W, which start at zero, and last D, which starts at one. S is indefinite
    where an entry of D becomes negative.
    """

    def __init__(self, n: int, block: int, generator: torch.Generator, device: torch.device) -> None:
        super().__init__(n, wide(n, block), RESIDUAL_DEPTH, generator, device)

    def initial(self, generator: torch.Generator, like: Tensor) -> Tensor:
        """Weights 0, and the diagonal 1."""
        found = torch.zeros(self.depth + 1, self.wide, dtype=like.dtype, device=like.device)
        found[-1] = 1.0
        return found

    def _forward(self, phi: Tensor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """P E x, and each layer's input as it is permuted."""
        x, permuted = self._padded(x), []
        for weights, order in zip(phi[:-1], self._there, strict=True):
            permuted.append(x.index_select(0, order))
            x = torch.addcmul(x, weights[:, None], permuted[-1])
        return x, permuted

    def product(self, phi: Tensor, vectors: Tensor) -> Tensor:
        """E'P'DPE V."""
        y, _ = self._forward(phi, vectors)
        y = phi[-1][:, None] * y
        for weights, order in zip(reversed(phi[:-1]), reversed(self._back), strict=True):
            y = y + (weights[:, None] * y).index_select(0, order)
        return y[: self.n]

    def slope(self, phi: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Of <P E left, D P E right>."""
        y, permuted = self._forward(phi, torch.stack((left, right), 1))
        found = torch.empty_like(phi)
        found[-1] = y[:, 0] * y[:, 1]
        y = phi[-1][:, None] * y.flip(1)
        for layer in reversed(range(self.depth)):
            found[layer] = (y * permuted[layer]).sum(1)
            y = y + (phi[layer][:, None] * y).index_select(0, self._back[layer])
        return found


class LearnedMatrix(Operator):
    """G = alpha S(phi), (n, n): symmetric, as it was when it was asked for.

    Attributes:
        alpha: The learning rate with which it started.
        phi: Its numbers.
    """

    def __init__(self, shape: Shape, phi: Tensor, alpha: float, n: int) -> None:
        self._layout, self.phi, self.alpha, self._n = shape, phi, alpha, n

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (self._n, self._n)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of its numbers, and of vectors."""
        return self.phi.dtype

    @property
    def device(self) -> torch.device:
        """Device of its numbers, and of vectors."""
        return self.phi.device

    def __matmul__(self, vectors: Tensor, /) -> Tensor:
        """G times v of shape (n,), or V of shape (n, k)."""
        columns = (vectors if vectors.ndim > 1 else vectors[:, None]).to(self.device, self.dtype)
        found = self.alpha * self._layout.product(self.phi, columns)
        return found if vectors.ndim > 1 else found[:, 0]


def wide(n: int, block: int) -> int:
    """Entries between the layers: 2n, and 1 to `block` more.

    >>> wide(100, 4), wide(2, 4)
    (204, 8)
    """
    return 2 * n + block - 2 * n % block


def shape_of(variant: Variant, n: int, depth: int, block: int, seed: int, device: torch.device) -> Shape:
    """The shape of a variant; random permutations from a seed, on every machine the same."""
    generator = torch.Generator().manual_seed(seed)
    if variant == "lodo":
        return Mixing(n, depth, block, generator, device)
    if variant == "residual":
        return Residual(n, block, generator, device)
    return Diagonal(n) if variant == "diagonal" else Global()


def numbers(variant: Variant, n: int, depth: int, block: int) -> int:
    """How many numbers phi a variant has for n parameters.

    >>> numbers("lodo", 100, 16, 4), numbers("diagonal", 100, 16, 4)
    (13056, 100)
    """
    if variant == "lodo":
        return depth * block * wide(n, block)
    if variant == "residual":
        return (RESIDUAL_DEPTH + 1) * wide(n, block)
    return n if variant == "diagonal" else 1
