"""The document of `diag-share`."""

from dataclasses import dataclass
from typing import Literal

from hessdiag.report.schema import parts
from hessdiag.report.schema.parts import Certificate, Count, Interval, Matrix, NonEmpty, Number, square


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer's own block."""

    name: str
    kind: str
    parameters: Count
    rows: Count
    diag_share: Number
    wigner: Number
    ols_gaussian: Number
    diag_share_stderr: Number
    diag_share_interval: Interval | None = None
    abs_sum: Number


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Shares of random matrices."""

    wigner: Number
    ols_gaussian: Number
    ols_clt: Number
    n: Count
    d: Count
    ols_gaussian_outputs: Number
    ols_clt_outputs: Number
    n_outputs: Count | None
    ols_data: Number
    ols_data_d: Count | None
    ols_data_gaussian: Number
    ols_columns: Number


@dataclass(frozen=True, kw_only=True)
class LayerShare:
    """A layer at one checkpoint."""

    name: str
    diag_share: Number


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One point of a trajectory."""

    label: str
    diag_share: Number
    wigner: Number
    ols_gaussian: Number
    layer_block_share: Number
    diag_share_stderr: Number
    diag_share_interval: Interval | None
    layers: list[LayerShare] | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A change between two checkpoints."""

    start: str
    end: str
    difference: Number
    stderr: Number
    p: Number
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Trend:
    """The slope of the log share along the checkpoints."""

    along: str
    slope: Number
    stderr: Number
    p: Number
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Change:
    """What changes along a trajectory."""

    before: Number
    after: Number
    whole: Difference
    steps: list[Difference]
    trend: Trend | None


@dataclass(frozen=True, kw_only=True)
class Result(parts.Measured):
    """The numbers of `diag-share`."""

    diag_share: Number
    method: Literal["exact", "rows"]
    rows: Count
    parameters: Count
    baselines: Baselines
    layers: NonEmpty[Layer]
    layer_block_share: Number
    diag_share_stderr: Number
    diag_share_interval: Interval | None
    layer_block_share_stderr: Number
    layer_block_share_interval: Interval | None = None
    layer_block_matrix: Matrix | None
    abs_diag_sum: Number
    abs_sum: Number
    trace: Number
    negative_diagonal_fraction: Number
    negative_entry: Number = None
    negative_certificate: Certificate | None = None
    hvps: Count | None = None
    untouched: Count | None = None
    zero_rows: Number
    merged_strata: list[list[str]] | None = None
    trajectory: list[Checkpoint] | None
    change: Change | None = None

    def __post_init__(self) -> None:
        """The block matrix has a row for each layer."""
        square(len(self.layers), layer_block_matrix=self.layer_block_matrix or None)


@dataclass(frozen=True, kw_only=True)
class Document(parts.Document):
    """The whole document."""

    result: Result
