"""What `diag-share` finds: how diagonal a Hessian is, as a whole and per layer, and how that changes along training."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from hessdiag.fields import Count, Interval, Matrix, NonEmpty, Number, Real, square
from hessdiag.questions.common.certificate import Certificate
from hessdiag.questions.common.metric import Metric
from hessdiag.questions.common.result import Measured

UNKNOWN = Certificate(certain=False, why="it was not looked for")


@dataclass(frozen=True, kw_only=True)
class LayerShare:
    """Diagonal share of one layer's own block, beside the baselines of a matrix of its size.

    What was not measured is `None`: of a layer of which no row was drawn, or of which an interrupt left rows out that
    nothing stands for. A block that vanishes has the share NaN.
    """

    name: str
    kind: str
    parameters: Count
    rows: Count
    diag_share: Number
    diag_share_stderr: Number
    diag_share_interval: Interval | None = None
    wigner: Real
    ols_gaussian: Real
    abs_sum: Number


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Diagonal shares that random matrices have; `None` where one does not apply.

    Attributes:
        wigner: Independent entries of one variance: 1 / d.
        wigner_mean: Mean of the share itself over Gaussian matrices of that kind; `None` in older documents.
        wigner_stdev: Its standard deviation from matrix to matrix; likewise.
        ols_gaussian: Least squares on n Gaussian samples of d features: exact.
        ols_clt: The same by the central limit theorem.
        n: Targets: samples, but of cross-entropy each token, node or pixel that has a target.
        d: Parameters.
        ols_gaussian_outputs: As `ols_gaussian` with n = targets x outputs, the largest rank of a Gauss-Newton matrix.
        ols_clt_outputs: As `ols_clt`, likewise.
        n_outputs: That n.
        ols_data: Share of X^T X of the actual inputs.
        ols_data_d: Features of those inputs.
        ols_data_gaussian: `ols_gaussian` at that d: what centred inputs of equal variance would give.
        ols_columns: Independent Gaussian columns with the means and variances of the actual ones.
    """

    wigner: Real
    wigner_mean: Number = None
    wigner_stdev: Number = None
    ols_gaussian: Real
    ols_clt: Real
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
class CheckpointLayer:
    """A layer's share at one checkpoint."""

    name: str
    diag_share: Number


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a trajectory shows of one checkpoint; as in its own result, but for its label."""

    label: str
    diag_share: Number
    diag_share_stderr: Number
    diag_share_interval: Interval | None
    layer_block_share: Number
    wigner: Real
    ols_gaussian: Real
    layers: tuple[CheckpointLayer, ...]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A change of the share between two checkpoints.

    Attributes:
        start: Label of the first.
        end: Label of the second.
        difference: The second share less the first.
        stderr: Its standard error; 0 where every row of both was computed.
        p: Two-sided p-value; of steps, after Holm's correction for all.
        significant: Whether it is below 0.05.
    """

    start: str
    end: str
    difference: Real
    stderr: Real
    p: Real
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Trend:
    """The slope of the log share, per step where the labels name steps, else per checkpoint."""

    along: str
    slope: Real
    stderr: Real
    p: Real
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Change:
    """What changes along a trajectory.

    Attributes:
        before: The first share.
        after: The last.
        whole: The change from the first to the last.
        steps: Those from each checkpoint to the next.
        trend: That of all; `None` of fewer than three.
    """

    before: Real
    after: Real
    whole: Difference
    steps: tuple[Difference, ...]
    trend: Trend | None


@dataclass(frozen=True, kw_only=True)
class ShareTheory:
    """What closed forms predict, whatever the network.

    Attributes:
        psd_floor: Share below which H must be indefinite, whatever its diagonal.
        psd_floor_diagonal: The same for the diagonal that H has; `None` unless all of it is known and none is negative.
    """

    psd_floor: Number = None
    psd_floor_diagonal: Number = None


@dataclass(frozen=True, kw_only=True)
class DiagShare(Measured):
    """How diagonal a Hessian is. What an interrupt left unmeasured is `None`.

    Attributes:
        diag_share: sum_i |H_ii| / sum_ij |H_ij|, in [0, 1]; NaN where H vanishes.
        diag_share_stderr: Its standard error; `None` when every row was computed, or where it is not known.
        diag_share_interval: 95 % interval, all of [0, 1] where the error is not known; `None` when every row was
            computed.
        method: "exact" or "rows" (a sample of rows, each exact).
        rows: Rows computed.
        parameters: N.
        abs_diag_sum: sum_i |H_ii|, estimated if sampled.
        abs_sum: sum_ij |H_ij|, likewise.
        trace: sum_i H_ii; `None` if sampled.
        negative_diagonal_fraction: Fraction of negative entries on the diagonal, those of rounding included.
        negative_entry: The most negative H_ii over its row's absolute sum, computed anew in float64 (or the widest
            dtype that the model takes); `None` where no entry is negative.
        negative_certificate: Whether negative curvature is proven: by that entry, or by a share below 1/N of all rows.
        untouched: Parameters that the batches do not touch, whose rows are zero and were left out; 0 unless they are a
            tenth of more than 10,000.
        merged_strata: Names of parameter tensors whose rows the sample took together, for it was too small for each.
        zero_rows: Fraction of rows that vanish entirely: dead units, constant inputs, parameters out of reach.
        layer_block_share: Share of the absolute mass inside the layer-diagonal blocks.
        layer_block_share_stderr: Its standard error; `None` when exact.
        layer_block_share_interval: 95 % interval; `None` likewise.
        layer_block_matrix: Share of each pair of layers, (L, L); sums to 1.
        layers: One entry per layer, in the order in which they are executed.
        baselines: What random matrices have.
        hvps: Hessian-vector products spent, self-checks not counted.
        engine: How the products were computed.
        metric: The metric P that all numbers are in, those of P^(-1/2) H P^(-1/2), along a trajectory that of the last
            checkpoint; `None` for H itself. Baselines but Wigner's are of no metric.
        trajectory: The shares along several checkpoints, of which all else here is the last; `None` of one.
        change: What changes along them; `None` also where the first or the last share is not to be trusted.
    """

    command: ClassVar[str] = "diag-share"

    theory: ShareTheory | None = None
    diag_share: Number
    diag_share_stderr: Number
    diag_share_interval: Interval | None
    method: Literal["exact", "rows"]
    rows: Count
    parameters: Count
    abs_diag_sum: Number
    abs_sum: Number
    trace: Number
    negative_diagonal_fraction: Number
    negative_entry: Number = None
    negative_certificate: Certificate = UNKNOWN
    untouched: Count = 0
    merged_strata: tuple[tuple[str, ...], ...] = ()
    zero_rows: Number
    layer_block_share: Number
    layer_block_share_stderr: Number
    layer_block_share_interval: Interval | None = None
    layer_block_matrix: Matrix | None
    layers: NonEmpty[LayerShare]
    baselines: Baselines
    hvps: Count = 0
    engine: str = ""
    metric: Metric | None = None
    trajectory: tuple[Checkpoint, ...] | None
    change: Change | None = None

    def __post_init__(self) -> None:
        """The block matrix has a row for each layer."""
        square(len(self.layers), layer_block_matrix=self.layer_block_matrix or None)
