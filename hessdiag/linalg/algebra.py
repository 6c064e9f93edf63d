"""What symmetric operators can do beside products: sums, multiples, diagonal, trace, and a way to SciPy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property, reduce
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from hessdiag.linalg import diagonals, estimators
from hessdiag.linalg.adapted import adapted, precision_of, refuse_unreal
from hessdiag.linalg.diagonals import DiagonalEstimate
from hessdiag.linalg.estimators import Estimate
from hessdiag.linalg.operator import InTerms, SymmetricOperator
from hessdiag.linalg.spread import is_alone, spread_of

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

Self = TypeVar("Self", bound="Operator")

EXACT_UP_TO = 10_000  # rows: beyond, a diagonal that takes a product for each of them has to be asked for


class Operator(ABC):
    """A symmetric operator. A subclass gives `shape`, `dtype`, `device` and `@`, and has the rest.

    Sums take anything that the solvers take: plain tensors, and operators of other libraries.

    >>> class Identity(Operator):
    ...     shape, dtype, device = (3, 3), torch.float64, torch.device("cpu")
    ...
    ...     def __matmul__(self, vectors):
    ...         return vectors
    >>> A = 2 * Identity() + torch.diag(torch.tensor([0.0, 1.0, 2.0]).double())
    >>> A.diagonal(), A.trace()
    (tensor([2., 3., 4.], dtype=torch.float64), 9.0)
    """

    __array_ufunc__ = None  # so that NumPy leaves `number * operator` to the operator

    @property
    @abstractmethod
    def shape(self) -> Sequence[int]:
        """(n, n)."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Dtype of vectors."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of vectors."""

    @abstractmethod
    def __matmul__(self, vectors: Tensor, /) -> Tensor:
        """The operator times v of shape (n,), or V of shape (n, k)."""

    def __rmatmul__(self, vectors: Tensor, /) -> Tensor:
        """V of shape (n,) or (k, n) times the operator."""
        return (self @ vectors.T).T if vectors.ndim > 1 else self @ vectors

    @property
    def T(self: Self) -> Self:  # noqa: N802
        """The transpose: the operator itself, for it is symmetric."""
        return self

    def __add__(self, other: SymmetricOperator) -> "LinearCombination":
        """The sum with another symmetric operator or a square tensor of the same shape."""
        return _combined((1.0, self), (1.0, other))

    def __radd__(self, other: SymmetricOperator) -> "LinearCombination":
        """As `+`; zero, from which `sum` starts, adds nothing."""
        return _combined((1.0, self)) if isinstance(other, int) and other == 0 else _combined((1.0, other), (1.0, self))

    def __sub__(self, other: SymmetricOperator) -> "LinearCombination":
        """The difference from another."""
        return _combined((1.0, self), (-1.0, other))

    def __rsub__(self, other: SymmetricOperator) -> "LinearCombination":
        """The difference of another from this one."""
        return _combined((1.0, other), (-1.0, self))

    def __neg__(self) -> "LinearCombination":
        """The operator times -1."""
        return _combined((-1.0, self))

    def __mul__(self, number: float) -> "LinearCombination":
        """The operator times a real number."""
        factor = _number(number)
        return NotImplemented if factor is None else _combined((factor, self))

    __rmul__ = __mul__

    def __truediv__(self, number: float) -> "LinearCombination":
        """The operator divided by a real number."""
        divisor = _number(number)
        return NotImplemented if divisor is None else _combined((1 / divisor, self))

    @overload
    def diagonal(self) -> Tensor: ...
    @overload
    def diagonal(self, products: int, seed: int | None = None, *, sketch: int = 0) -> DiagonalEstimate: ...
    def diagonal(
        self, products: int | None = None, seed: int | None = None, *, sketch: int = 0
    ) -> Tensor | DiagonalEstimate:
        """The diagonal: exact, or an estimate where products are counted.

        Args:
            products: How many products an estimate may spend. Default: no estimate. Tensors know their diagonal; every
                row of another operator takes one product.
            seed: Of the estimate; `None` for fresh randomness.
            sketch: Of the estimate, see `hessdiag.linalg.diagonal`.

        Returns:
            A tensor (n,), or with `products` a `DiagonalEstimate`.

        Raises:
            ValueError: if an exact diagonal takes more than 10,000 products, or the sketch leaves fewer than two.
        """
        if products is not None:
            return diagonals.diagonal(self, products, seed, sketch=sketch)
        self._refuse_many("diagonal")
        return diagonals.exact(self)

    @overload
    def trace(self) -> float: ...
    @overload
    def trace(self, products: int, seed: int | None = None, *, sketch: int = 0) -> Estimate: ...
    def trace(self, products: int | None = None, seed: int | None = None, *, sketch: int = 0) -> float | Estimate:
        """The trace: exact, or an estimate where products are counted.

        Args:
            products: As in `diagonal`.
            seed: As in `diagonal`.
            sketch: As in `diagonal`.

        Returns:
            A number, or with `products` an `Estimate`.

        Raises:
            ValueError: if an exact trace takes more than 10,000 products, or the sketch leaves fewer than two.
        """
        if products is not None:
            return estimators.trace(self, products, seed, sketch=sketch)
        self._refuse_many("trace")
        return float(spread_of(self).summed(diagonals.exact(self).double().sum()))

    def _refuse_many(self, what: str) -> None:
        n = self.shape[0]
        if n > EXACT_UP_TO and diagonals.at_hand(self) is None:
            raise ValueError(
                f"the exact {what} of {n:,} rows takes as many products.\n  try: .{what}(products=100), an estimate "
                "with its standard error"
            )

    def to_scipy(self) -> "LinearOperator":
        """The operator for SciPy's solvers: its products, on NumPy arrays.

        Returns:
            A `scipy.sparse.linalg.LinearOperator` of the same shape and dtype.

        Raises:
            ValueError: if its vectors are spread over processes, of which SciPy knows nothing.

        >>> from scipy.sparse.linalg import eigsh
        >>> A = LinearCombination(((2.0, torch.diag(torch.arange(1.0, 31.0).double())),))
        >>> eigsh(A.to_scipy(), k=1, return_eigenvectors=False).round(6)
        array([60.])
        """
        if not is_alone(spread_of(self)):
            raise ValueError(
                "SciPy's solvers take whole vectors, and they are spread.\n  try: hessdiag.linalg.eigsh(A)"
            )
        from scipy.sparse.linalg import LinearOperator  # 0.2 s, which products alone need not pay

        def product(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            vectors = torch.tensor(np.ascontiguousarray(array), dtype=self.dtype, device=self.device)
            found: np.ndarray[Any, Any] = (self @ vectors).detach().cpu().numpy()
            return found

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(
            tuple(self.shape), matvec=product, rmatvec=product, matmat=product, rmatmat=product, dtype=dtype
        )


class LinearCombination(Operator, InTerms):
    """w_1 A_1 + ... + w_k A_k of symmetric operators on one space, known through their products.

    Args:
        terms: Pairs of weight and operator; sums among them are taken apart.

    Attributes:
        terms: The pairs.

    Raises:
        ValueError: if there is none, or their shapes or devices differ, or how their vectors are spread over processes.
        TypeError: if one is no operator, or not of real numbers.

    >>> A = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> LinearCombination(((1.0, A), (-0.5, A))) @ torch.tensor([1.0, 0.0])
    tensor([1.0000, 0.5000])
    """

    def __init__(self, terms: Sequence[tuple[float, SymmetricOperator]]) -> None:
        flat: list[tuple[float, SymmetricOperator]] = []
        for weight, operator in terms:
            inner = operator.terms if isinstance(operator, LinearCombination) else ((1.0, operator),)
            flat += [(weight * own, _term(part)) for own, part in inner]
        if not flat:
            raise ValueError("a sum of no operators has no shape")
        self.terms = tuple(flat)
        shapes = {tuple(operator.shape) for _, operator in flat}
        devices = {str(torch.empty(0, device=operator.device).device) for _, operator in flat}  # cuda is cuda:0
        if len(shapes | {shape[::-1] for shape in shapes}) > 1:
            raise ValueError(f"operators of shapes {', '.join(map(str, sorted(shapes)))} have no sum")
        if len(devices) > 1:
            raise ValueError(f"operators on {' and '.join(sorted(devices))} have no sum: move one with .to(device)")
        self.spread = spread_of(flat[0][1])
        if any(spread_of(operator) != self.spread for _, operator in flat):
            raise ValueError("operators whose vectors are spread over processes in different ways have no sum")

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        n, _ = self.terms[0][1].shape
        return (n, n)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The widest dtype among the terms."""
        return reduce(torch.promote_types, (operator.dtype for _, operator in self.terms))

    @property
    def device(self) -> torch.device:
        """Where all of them are."""
        return self.terms[0][1].device

    @property
    def precision(self) -> float:
        """Relative error of the coarsest term's products; where terms cancel, that of the sum is larger."""
        return max(precision_of(operator) for _, operator in self.terms)

    def __matmul__(self, vectors: Tensor, /) -> Tensor:
        """The combination times v of shape (n,), or V of shape (n, k)."""
        total: Tensor | None = None
        for weight, operator in self.terms:
            part = weight * (operator @ vectors.to(operator.device, operator.dtype)).to(self.dtype)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def diagonal_at_hand(self) -> Tensor | None:
        """The diagonal, if it takes no product."""
        parts = [diagonals.at_hand(operator) for _, operator in self.terms]
        if any(part is None for part in parts):
            return None
        weighted = (weight * part for (weight, _), part in zip(self.terms, parts, strict=True) if part is not None)
        return sum(weighted, torch.zeros(self.spread.own, dtype=self.dtype, device=self.device))


def _term(operator: SymmetricOperator) -> SymmetricOperator:
    """The operator as it is, or as the numerics take it where it is of another library."""
    refuse_unreal(operator)
    return operator if isinstance(operator, Operator | Tensor) else adapted(operator, check=False)


def _combined(*terms: tuple[float, Any]) -> LinearCombination:
    """The sum, or what tells Python to ask the other operand where one is no operator."""
    if all(hasattr(operator, "shape") for _, operator in terms):
        return LinearCombination(terms)
    unknown: LinearCombination = NotImplemented
    return unknown


def _number(number: Any) -> float | None:
    """A real number, or the one that a tensor holds; `None` for what is neither."""
    if isinstance(number, Real) or (isinstance(number, Tensor | np.ndarray) and number.ndim == 0):
        return float(number)
    return None
