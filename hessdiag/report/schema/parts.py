"""What the documents of several commands have in common.

Each command's description is a set of dataclasses, read with msgspec. A key without a default has been in every
version; one that came later has the default that stands for its absence. Keys that are not described are let pass:
newer versions may have them.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal, TypedDict, TypeVar

from msgspec import Meta

T = TypeVar("T")


class NonFinite(enum.Enum):
    """The words that stand for numbers which JSON has no form for."""

    NAN = "NaN"
    INFINITY = "Infinity"
    MINUS_INFINITY = "-Infinity"


Number = float | NonFinite | None  # null: not measured, or it does not apply
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
NonEmpty = Annotated[list[T], Meta(min_length=1)]
Numbers = list[Number]
Matrix = list[Numbers]
Interval = tuple[Number, Number]
Shape = list[int | list[int]] | dict[str, list[int]]  # of one sample; of several inputs, one each
Finding = TypedDict(
    "Finding",
    {
        "level": Literal["ok", "note", "warn", "bad"],
        "says": str,
        "because": str | None,
        "try": str | None,  # a word of Python, which no attribute can be called
    },
)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that was read."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AveragedOver:
    """What the loss is a mean of."""

    what: str
    count: Annotated[float, Meta(ge=0, le=2**63)]


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """What was measured, as far as every report says it."""

    model: str = ""
    spec: str | None = None
    weights: str | None = None
    data: str | None = None
    parameters: Count | None = None
    samples: Count | None = None
    batches: Count = 1
    batch_weights: NonEmpty[Annotated[float, Meta(ge=0, le=1)]] | None = None
    averaged_over: AveragedOver | None = None
    input_shape: Shape | None = None
    synthetic: bool = False
    loss: str | None = None
    reduction: str | None = None
    train_mode: bool = False
    weights_sha256: str | None = None
    data_sha256: str | None = None
    files: list[File] | None = None
    trusted_code: bool = False
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Weights of batches are shown where there are several."""
        if self.averaged_over is not None and self.batches != 1 and self.batch_weights is None:
            raise ValueError("`batch_weights` is missing, and there are several batches")


@dataclass(frozen=True, kw_only=True)
class Problem(_Problem):
    """What was measured, of one model."""

    device: str = ""
    dtype: str = ""
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class OwnProblem(_Problem):
    """What was measured, where the networks may be the command's own."""

    device: str
    dtype: str
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """In which arithmetic was measured."""

    float32: str
    set_aside: list[str] = field(default_factory=list)
    repeatable: bool = True


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How the numbers came to be."""

    argv: list[str] = field(default_factory=list)
    started: str = ""
    wall_seconds: float | None = None
    peak_memory_bytes: Count | None = None
    versions: dict[str, str] = field(default_factory=dict)
    platform: str = "?"
    device: str = "?"
    threads: Count | None = None
    kernels_forced: list[str] | None = None
    arithmetic: Arithmetic | None = None
    gpu: dict[str, Any] | None = None
    resumed_pieces: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document; commands say what their result is."""

    schema: str
    command: str
    status: Literal["ok", "inexact", "interrupted"]
    problem: Problem
    theory: dict[str, Any] | None
    checks: dict[str, Any]
    thresholds: dict[str, Number] = field(default_factory=dict)
    verdict: list[Finding]
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Whether negative curvature is proven, and how."""

    certain: bool
    why: str
    bound: Number = None


@dataclass(frozen=True, kw_only=True)
class Inertia:
    """How many eigenvalues have each sign."""

    positive: Count
    negative: Count
    zero: Count
    tolerance: Number


@dataclass(frozen=True, kw_only=True)
class Point:
    """What kind of point the parameters are at, as far as it is a number."""

    error: Number = None
    step: Number = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the results of all measurements of one problem hold."""

    check_tolerance: Number = None
    point: Point | None = None


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
