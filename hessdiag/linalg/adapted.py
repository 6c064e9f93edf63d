"""What users hand over, as the numerics take it: any symmetric operator, of this library or of another."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hessdiag.linalg.diagonals import at_hand
from hessdiag.linalg.estimators import magnitude
from hessdiag.linalg.operator import InTerms, SymmetricOperator
from hessdiag.linalg.spread import Spread, is_alone, spread_of
from hessdiag.linalg.tridiagonal import norms_of
from hessdiag.machine.arithmetic import ieee

_NEEDED = ("shape", "dtype", "device", "__matmul__")


class Adapted:
    """An operator whose products are plain numbers of at least single precision, without a graph.

    Attributes:
        operator: What was handed over.
        precision: Relative error of its products.
        spread: How its vectors are spread over processes.
    """

    def __init__(self, operator: SymmetricOperator) -> None:
        self.operator = operator
        self.shape: Sequence[int] = tuple(operator.shape)
        self.dtype = torch.promote_types(operator.dtype, torch.float32)
        self.device = torch.device(operator.device)
        self.precision = precision_of(operator)
        self.spread = spread_of(operator)

    def __matmul__(self, vectors: Tensor, /) -> Tensor:
        """A @ v with v of shape (n,), or A @ V with V of shape (n, k)."""
        found = self.operator @ vectors.to(self.operator.dtype)
        if not isinstance(found, Tensor) or found.shape != vectors.shape:
            form = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the operator makes {form} of vectors of shape {tuple(vectors.shape)}")
        return found.detach().to(self.dtype)

    def diagonal_at_hand(self) -> Tensor | None:
        """The diagonal, if it takes no product."""
        return at_hand(self.operator)


def precision_of(operator: SymmetricOperator) -> float:
    """Relative error of its products: its own word, or the rounding of its dtype."""
    return float(getattr(operator, "precision", torch.finfo(operator.dtype).eps))


def refuse_unreal(operator: Any) -> None:
    """Refuse what is no operator, or none on real vectors.

    Raises:
        TypeError: if something is missing, or its dtype is none of real numbers.
    """
    missing = [name for name in _NEEDED if not hasattr(operator, name)]
    if missing or not isinstance(operator.dtype, torch.dtype):
        lacks = (
            f"it has no {' and no '.join(missing)}" if missing else f"its dtype is {operator.dtype}, none of torch's"
        )
        raise TypeError(f"{type(operator).__name__} is no operator: {lacks}.\n  try: torch.as_tensor(...)")
    if not operator.dtype.is_floating_point:
        raise TypeError(f"an operator of {operator.dtype} has no real eigenvalues.\n  try: .double()")


def adapted(operator: Any, *, check: bool = True) -> Adapted:
    """Take anything with `shape`, `dtype`, `device` and `@` for a symmetric operator.

    Args:
        operator: A tensor, or an operator of this library or of another.
        check: Whether to look at its symmetry and precision, by two products.

    Raises:
        TypeError: if something is missing, or its dtype is none of real numbers.
        ValueError: if it is not square and symmetric, or its products are not finite.
    """
    refuse_unreal(operator)
    shape = tuple(operator.shape)
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise ValueError(f"a symmetric operator is square, not of shape {shape}")
    found = Adapted(operator)
    if check:
        _look(found)
    return found


@ieee()
def _look(operator: Adapted) -> None:
    """Compare u'Av with v'Au of random vectors. Where terms of a sum cancel, its products are so much less precise.

    Raises:
        ValueError: if the operator is not symmetric, or its products are not finite.
    """
    generator = torch.Generator().manual_seed(0)
    spread = operator.spread
    pair = spread.kept(lambda count: torch.randn(count, 2, generator=generator, dtype=torch.float64))
    pair = (pair / _sizes(pair, spread)).to(operator.device, operator.dtype)
    given = operator.operator
    terms = given.terms if isinstance(given, InTerms) else ((1.0, given),)
    images = [weight * (Adapted(part) @ pair).to(operator.dtype) for weight, part in terms]
    operator.precision = precision_of(given)  # which the first product may have changed
    largest = [magnitude(image, spread) for image in images]
    if not all(map(math.isfinite, largest)):
        raise ValueError("products with the operator are NaN or infinite")
    scale = max(largest)  # squares may vanish or overflow
    if not scale:
        return
    parts = [image.double() / scale for image in images]
    whole = sum(parts, torch.zeros_like(parts[0]))
    u, v = pair.double().T
    apart = abs(float(spread.summed(u @ whole[:, 1] - v @ whole[:, 0])))
    size = sum(float(_sizes(part, spread).max()) for part in parts)
    if apart > operator.precision**0.5 * size:
        raise ValueError(
            f"the operator is not symmetric: u'Av and v'Au of random unit vectors differ by {apart / size:.1e} |Av|.\n"
            "  try: (A + A.T) / 2, if that is what is meant"
        )
    left = float(_sizes(whole, spread).max())
    operator.precision = min(operator.precision * size / left, 1.0) if left else operator.precision


def _sizes(columns: Tensor, spread: Spread) -> Tensor:
    """Norms of float64 columns."""
    return columns.norm(dim=0) if is_alone(spread) else norms_of(columns.T, spread)
