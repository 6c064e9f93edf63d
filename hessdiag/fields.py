"""What numbers in results are made of: the types of their fields, which both mypy and the reader of documents see."""

import enum
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from msgspec import Meta

T = TypeVar("T")


class NonFinite(enum.Enum):
    """The words that stand in a document for numbers which JSON has no form for."""

    NAN = "NaN"
    INFINITY = "Infinity"
    MINUS_INFINITY = "-Infinity"


if TYPE_CHECKING:
    Real: TypeAlias = float
else:
    Real = float | NonFinite | None  # words become numbers where they are read; null is of documents cut by hand

Number: TypeAlias = Real | None  # null: not measured, or it does not apply

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
NonEmpty = Annotated[tuple[T, ...], Meta(min_length=1)]
Numbers: TypeAlias = tuple[Number, ...]
Matrix: TypeAlias = tuple[Numbers, ...]
Interval: TypeAlias = tuple[Real, Real]


def same_length(**columns: Sequence[Any] | None) -> None:
    """Require that lists which belong together are equally long; null is no list.

    Raises:
        ValueError: naming two that differ.
    """
    given = [(name, len(column)) for name, column in columns.items() if column is not None]
    for name, length in given[1:]:
        if length != given[0][1]:
            raise ValueError(f"`{name}` has {length} entries where `{given[0][0]}` has {given[0][1]}")


def ascending(**columns: Sequence[Any]) -> None:
    """Require that positions along an axis ascend, as far as they are numbers.

    Raises:
        ValueError: naming those that do not.
    """
    for name, column in columns.items():
        known = [value for value in column if isinstance(value, (int, float))]
        if any(not before < after for before, after in pairwise(known)):
            raise ValueError(f"`{name}` does not ascend")


def square(size: int, **matrices: Sequence[Sequence[Any]] | None) -> None:
    """Require that matrices have as many rows and columns as there are layers; null is no matrix.

    Raises:
        ValueError: naming one that has not.
    """
    for name, matrix in matrices.items():
        if matrix is not None and (len(matrix) != size or any(len(row) != size for row in matrix)):
            raise ValueError(f"`{name}` is not a matrix of {size} x {size}")
