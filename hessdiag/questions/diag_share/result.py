"""What `diag-share` finds: how diagonal a Hessian is, as a whole and per layer, and how that changes along training."""

from dataclasses import dataclass
from typing import Any, Literal

from hessdiag.questions.common.certificate import Certificate
from hessdiag.questions.common.measured import Measured

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LayerShare:
    """Diagonal share of one layer's own block, beside the baselines of a matrix of its size.

    What was not measured is `None`: of a layer of which no row was drawn, or of which an interrupt left rows out that
    nothing stands for. A block that vanishes has the share NaN.
    """

    name: str
    kind: str
    parameters: int
    rows: int
    diag_share: float | None
    diag_share_stderr: float | None
    diag_share_interval: Interval | None
    wigner: float
    ols_gaussian: float
    abs_sum: float | None


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Diagonal shares that random matrices have; `None` where one does not apply.

    Attributes:
        wigner: Independent entries of one variance: 1 / d.
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

    wigner: float
    ols_gaussian: float
    ols_clt: float
    n: int
    d: int
    ols_gaussian_outputs: float | None
    ols_clt_outputs: float | None
    n_outputs: int | None
    ols_data: float | None
    ols_data_d: int | None
    ols_data_gaussian: float | None
    ols_columns: float | None


@dataclass(frozen=True, kw_only=True)
class CheckpointLayer:
    """A layer's share at one checkpoint."""

    name: str
    diag_share: float | None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a trajectory shows of one checkpoint; as in its own result, but for its label."""

    label: str
    diag_share: float | None
    diag_share_stderr: float | None
    diag_share_interval: Interval | None
    layer_block_share: float | None
    wigner: float
    ols_gaussian: float
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
    difference: float
    stderr: float
    p: float
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Trend:
    """The slope of the log share, per step where the labels name steps, else per checkpoint."""

    along: str
    slope: float
    stderr: float
    p: float
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

    before: float
    after: float
    whole: Difference
    steps: tuple[Difference, ...]
    trend: Trend | None


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
        trajectory: The shares along several checkpoints, of which all else here is the last; `None` of one.
        change: What changes along them; `None` also where the first or the last share is not to be trusted.
        status: "ok", "inexact" (a self-check failed) or "interrupted".
    """

    diag_share: float | None
    diag_share_stderr: float | None
    diag_share_interval: Interval | None
    method: Literal["exact", "rows"]
    rows: int
    parameters: int
    abs_diag_sum: float | None
    abs_sum: float | None
    trace: float | None
    negative_diagonal_fraction: float | None
    negative_entry: float | None
    negative_certificate: Certificate
    untouched: int
    merged_strata: tuple[tuple[str, ...], ...]
    zero_rows: float | None
    layer_block_share: float | None
    layer_block_share_stderr: float | None
    layer_block_share_interval: Interval | None
    layer_block_matrix: tuple[tuple[float, ...], ...] | None
    layers: tuple[LayerShare, ...]
    baselines: Baselines
    hvps: int
    engine: str
    trajectory: tuple[Checkpoint, ...] | None = None
    change: Change | None = None

    @property
    def theory(self) -> dict[str, Any]:
        """What closed forms predict, whatever the network: the floor below which H must be indefinite."""
        return {"psd_floor": 1 / self.parameters}
