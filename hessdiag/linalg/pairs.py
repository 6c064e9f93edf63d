"""How much quadratic forms in random signs vary, from pairs of products that were computed anyway.

For random signs v and a symmetric matrix M, v'Mv has the variance 2 (|M|_F^2 - sum M_ii^2). Products with different v
are independent, so that pairs of them estimate both terms without bias. A sample variance of few numbers is rougher,
and too small where they are skewed. Long products are folded (a count sketch), which keeps inner products on average.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.linalg.spread import Spread, is_alone, places_of

Floats = NDArray[np.float64]

LENGTH = 512  # of a folded vector


@dataclass(frozen=True)
class Fold:
    """A random map of vectors onto short ones: entries get random signs and are added up in groups of equal size.

    Attributes:
        size: Of the vectors.
        order: Of the entries and of the zeros that fill the last group; `None` where nothing need be folded.
        signs: One for each of them.
        collisions: Probability of two entries to share a group.
    """

    size: int
    order: Tensor | None
    signs: Tensor | None
    collisions: float

    @classmethod
    def of(cls, size: int, device: torch.device) -> "Fold":
        """The fold for vectors of that size, always the same."""
        rows = -(-size // LENGTH)
        if rows == 1:
            return cls(size, None, None, 0.0)
        generator = torch.Generator().manual_seed(size)
        order = torch.randperm(rows * LENGTH, generator=generator)
        signs = torch.randint(0, 2, order.shape, generator=generator, dtype=torch.int8) * 2 - 1
        return cls(size, order.to(device), signs.to(device), (rows - 1) / (len(order) - 1))

    def here(self, vectors: Tensor) -> Tensor:
        """Fold vectors (k, size), in float64."""
        if self.order is not None and self.signs is not None:
            filled = torch.nn.functional.pad(vectors, (0, len(self.order) - self.size))
            vectors = (filled[:, self.order] * self.signs).reshape(len(vectors), -1, LENGTH).sum(1)
        return vectors.double()

    def __call__(self, vectors: Tensor) -> Floats:
        """The same, as numbers."""
        found: Floats = self.here(vectors).cpu().numpy()
        return found


@dataclass(frozen=True)
class SpreadFold:
    """The same for vectors that are spread over processes, of which none knows the order of all entries.

    Each entry is drawn a group and a sign, in the order of the vector: groups are of nearly equal size, however many
    processes there are. Short vectors are put together instead.

    Attributes:
        spread: Of the vectors.
        groups: Of this process's entries, (own,).
        signs: One for each of them.
        collisions: As in `Fold`.
    """

    spread: Spread
    groups: Tensor
    signs: Tensor
    collisions: float

    @classmethod
    def of(cls, spread: Spread, device: torch.device) -> "SpreadFold":
        """The fold for vectors that are spread so, always the same."""
        if spread.n <= LENGTH:
            groups = (places_of(spread) - 1).clamp(min=0).to(device)  # what fills up is zero, wherever it is added
            return cls(spread, groups, torch.ones_like(groups, dtype=torch.int8), 0.0)
        generator = torch.Generator().manual_seed(spread.n)
        drawn = spread.kept(lambda count: torch.randint(0, 2 * LENGTH, (count,), generator=generator))
        return cls(spread, (drawn // 2).to(device), (drawn % 2 * 2 - 1).to(device, torch.int8), 1 / LENGTH)

    def here(self, vectors: Tensor) -> Tensor:
        """What this process's pieces (k, own) add to the folded vectors, in float64."""
        short = vectors.new_zeros(len(vectors), min(self.spread.n, LENGTH), dtype=torch.float64)
        return short.index_add_(1, self.groups, (vectors * self.signs).double())

    def __call__(self, vectors: Tensor) -> Floats:
        """Fold vectors (k, own)."""
        found: Floats = self.spread.summed(self.here(vectors)).cpu().numpy()
        return found


Folding = Fold | SpreadFold


def fold_of(spread: Spread, device: torch.device) -> Folding:
    """The fold for vectors that are spread so, or not at all."""
    return Fold.of(spread.n, device) if is_alone(spread) else SpreadFold.of(spread, device)


def folded(fold: Folding, signs: Tensor, products: Tensor) -> Floats:
    """What the variances below need of products y (k, n) with one vector of signs: y, y^2 and signs y, (3, k, .)."""
    return fold(_kinds(signs, products)).reshape(3, len(products), -1)


def folded_here(fold: Folding, signs: Tensor, products: Tensor) -> Tensor:
    """`folded` where it is still to be summed over processes, each of which has its pieces of vectors: (3, k, .)."""
    return fold.here(_kinds(signs, products)).reshape(3, len(products), -1)


def _kinds(signs: Tensor, products: Tensor) -> Tensor:
    return torch.cat([products, products.square(), signs * products])


def variances(fold: Folding, samples: Floats) -> tuple[Floats, Floats]:
    """Variances of |A v|^2 and of v'Av for one vector of random signs v and symmetric matrices A.

    Args:
        fold: Of the vectors.
        samples: `folded` of the products with several vectors, (vectors, 3, k, .), of k matrices.

    Returns:
        Of each matrix, (k,) and (k,).
    """
    scale = np.sqrt(np.abs(samples[:, 1]).max((0, 2), initial=0.0))
    unit = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)[:, None]  # fourth powers would leave float64
    y, squares, signed = (
        (samples[:, index] / unit / (unit if index == 1 else 1.0)).swapaxes(0, 1) for index in range(3)
    )
    unit = unit[:, 0]
    products, fourth = _gram(y), _off(_gram(squares))
    norms = products.diagonal(axis1=1, axis2=2)  # of y, if folded then nearly
    square = norms.mean(1)
    independent = _off(norms[:, :, None] * norms[:, None, :])
    # Folding adds to the square of an inner product what falls into the same group.
    second = (_off(products**2) - fold.collisions * (independent - 2 * fourth)) / (1 + fold.collisions)
    of_squares = 2 * np.maximum(second - fourth, 0.0) * unit**4
    return of_squares, 2 * np.maximum(square - _off(_gram(signed)), 0.0) * unit**2


def _gram(vectors: Floats) -> Floats:
    found: Floats = vectors @ vectors.swapaxes(1, 2)
    return found


def _off(matrices: Floats) -> Floats:
    """Mean over the entries that are not on the diagonal, (k, s, s) to (k,)."""
    count = matrices.shape[1]
    found: Floats = (matrices.sum((1, 2)) - matrices.diagonal(axis1=1, axis2=2).sum(1)) / (count * (count - 1))
    return found
