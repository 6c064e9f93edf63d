"""What `vanishing` answers: norms of gradients and Hessians against depth."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeGuard

from hessdiag.curvature.point.result import Point
from hessdiag.errors import ComputeError
from hessdiag.questions.common.agreement import LogMedianAgreement
from hessdiag.questions.common.measured import point_result
from hessdiag.questions.common.prediction import Theory
from hessdiag.questions.common.verdict import Finding, Status

QUANTITIES = ("gradient", "hessian", "hessian_diagonal_blocks", "hessian_offdiagonal_blocks", "vjp")
DEEP = 1 / 8  # of the deepest network: what is shallower has not settled to a rate
LARGEST_Z = 5.0  # standard errors between exact norms and their check by random products


@dataclass(frozen=True, kw_only=True)
class NormStatistics:
    """A norm over many networks.

    Median and quantiles are those of live networks; mean and root mean square count the dead as zero, as theory's
    expectations do.

    Attributes:
        median: Median, what a typical network has.
        mean: Average, which rare networks dominate when depth exceeds width.
        rms: Root mean square.
        q05: 5 % quantile; `None` of fewer than 20 networks, which do not know it.
        q95: 95 % quantile; likewise.
        log_median: Natural log of the median.
        log_median_stderr: Its standard error; NaN for fewer than two networks.
        networks: How many were live.
    """

    median: float
    mean: float
    rms: float
    q05: float | None
    q95: float | None
    log_median: float
    log_median_stderr: float
    networks: int


@dataclass(frozen=True, kw_only=True)
class DepthNorms:
    """Norms at one depth.

    Attributes:
        depth: Number of weight matrices L.
        width: Width of every layer, input and output included; `None` for networks of another kind.
        parameters: Number of parameters.
        seeds: Networks behind `gradient_norm` and `vjp_norm`.
        hessian_seeds: Networks behind the Hessian norms: the first of the same ones.
        hessian_method: "exact" (no Hessian is formed) or "hvp" (random products; the spread holds their error).
        hessian_probe_error: Standard error of one network's Hessian norm from its random products, relative to the
            norm, as a median over networks; `None` where that is exact, or not told apart from the spread.
        dead_fraction: Fraction of networks in which each sample meets a layer with all units off: no gradient at all.
        gradient_norm: Norm of the whole gradient.
        hessian_norm: Frobenius norm of the whole Hessian.
        hessian_diagonal_blocks_norm: Of its layer-diagonal blocks.
        hessian_offdiagonal_blocks_norm: Of the rest.
        hessian_diag_share: Share of absolute mass on the diagonal, over live networks; `None` where not computed.
        certified_indefinite: Fraction of Hessians that certainly have a negative eigenvalue: were H positive
            semidefinite, |H_lm|^2 <= |H_ll| |H_mm| would hold for all blocks. `None` where norms are estimates.
        vjp_norm: Norm of the first layer's gradient of <u, z> for one sample, relative to |u| |x|; `None` for networks
            that need not have one output vector.
        theory_rms: Exact root mean squares, by quantity, dead networks counted as zero; `None` where no closed form
            holds.
        theory_median: Exact medians, by quantity; `None` likewise.
        path_width: Harmonic mean over all layers but the last of their number of inputs per neuron; `None` unless
            measured.
        effective_width: Likewise of their effective widths (`effective_widths`), over networks too.
        effective_width_stderr: Its standard error.
    """

    depth: int
    width: int | None
    parameters: int
    seeds: int
    hessian_seeds: int
    hessian_method: Literal["exact", "hvp"]
    dead_fraction: float
    gradient_norm: NormStatistics
    hessian_norm: NormStatistics
    hessian_diagonal_blocks_norm: NormStatistics
    hessian_offdiagonal_blocks_norm: NormStatistics
    hessian_diag_share: NormStatistics | None
    certified_indefinite: float | None
    vjp_norm: NormStatistics | None
    theory_rms: dict[str, float] | None
    theory_median: dict[str, float] | None
    hessian_probe_error: float | None = None
    path_width: float | None = None
    effective_width: float | None = None
    effective_width_stderr: float | None = None


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """Norms of one layer's gradient and of its diagonal Hessian block, in the deepest network.

    Attributes:
        layer: Counted from 1 at the input, in the order of execution.
        gradient_norm: Of its gradient.
        hessian_block_norm: Of its diagonal block.
        name: In the model; `None` for the fully connected networks, whose layers have none.
        parameters: Their number; `None` likewise.
        path_width: Its inputs per neuron; `None` unless measured.
        effective_width: See `effective_widths`; harmonic mean over networks.
        effective_width_stderr: Its standard error.
        depth: How many layers that multiply by a matrix the data has passed with this one; `None` for those that are
            not on the longest way from the data to the loss, and for the fully connected networks.
    """

    layer: int
    gradient_norm: NormStatistics
    hessian_block_norm: NormStatistics
    name: str | None = None
    parameters: int | None = None
    path_width: float | None = None
    effective_width: float | None = None
    effective_width_stderr: float | None = None
    depth: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Change of a log-median per layer (natural log) from one depth to another, beside the asymptotic theory."""

    per_layer: float
    per_layer_stderr: float
    theory_per_layer: float | None
    from_depth: int
    to_depth: int


@dataclass(frozen=True, kw_only=True)
class DepthAgreement(LogMedianAgreement):
    """A measured log-median of one of `QUANTITIES` at one depth, against the exact one."""

    depth: int
    quantity: str


@dataclass(frozen=True)
class Failure:
    """A depth that could not be measured: why, and what might help."""

    depth: int
    says: str
    hint: str | None

    def error(self) -> ComputeError:
        """The same, to be raised."""
        return ComputeError(f"at depth {self.depth}: {self.says}", self.hint)


@dataclass(frozen=True, kw_only=True)
class Vanishing:
    """Norms against depth. See `DepthNorms` for what is measured; attributes bear the names of the result keys.

    Attributes:
        width: Of all layers; "same" where it is the depth; `None` for networks that `vanishing_of` builds.
        init: `None` for networks that keep the weights that they are built with.
        distribution: What weights are drawn from; `None` where each is not drawn by itself.
        activation: `None` for networks that `vanishing_of` builds.
        seeds: Networks that were asked for at every depth.
        batch: Samples.
        depths: What was measured of each depth, ascending.
        failed: Depths that could not be measured.
        layers: Of the deepest network.
        rates: Change per layer of every quantity's log-median between two depths; empty for width = depth.
        agreement: Every measured log-median for which theory is exact.
        seed: Of all randomness.
        device: Where it was computed.
        checks: Self-checks by name.
        check_tolerance: What they allow.
        interrupted: Whether an interrupt left something out.
        prediction: What closed forms predict at the width of the deepest network; `None` where there are none.
        same_weights: Whether all networks of a depth turned out to be one.
        resumed_pieces: How many finished pieces of an earlier run were taken up.
        trusted: Whether the self-checks of the products passed.
        point: What kind of point the first network is at; `None` where it was not looked at.
        asked: The depths that were asked for, of which an interrupt leaves some.
        findings: The verdict.
    """

    width: int | Literal["same"] | None
    init: str | None
    distribution: Literal["uniform", "normal"] | None
    activation: str | None
    seeds: int
    batch: int
    depths: tuple[DepthNorms, ...]
    failed: tuple[Failure, ...] = ()
    layers: tuple[LayerNorms, ...]
    rates: dict[str, Rate]
    agreement: tuple[DepthAgreement, ...]
    seed: int
    device: str
    checks: dict[str, float | None]
    check_tolerance: float
    interrupted: bool
    prediction: Theory | None = None
    same_weights: bool = False
    resumed_pieces: int = 0
    trusted: bool = True
    point: Point | None = None
    asked: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def ends(self) -> tuple[DepthNorms, DepthNorms] | None:
        """The depths between which all rates are taken: the deepest, and the first from an eighth of it on."""
        return ends(self.depths)

    @property
    def thresholds(self) -> dict[str, float]:
        """What the self-checks allow, by name."""
        return dict.fromkeys(self.checks, self.check_tolerance)

    @property
    def check_failed(self) -> bool:
        """Whether a self-check came out beyond its tolerance."""
        apart = [value for value in self.checks.values() if value is not None]
        return not self.trusted or any(not abs(value) <= self.check_tolerance for value in apart)

    @property
    def status(self) -> Status:
        """Whether the measurement was interrupted, or a self-check or a depth failed ("inexact")."""
        if self.interrupted:
            return "interrupted"
        return "inexact" if self.check_failed or self.failed else "ok"

    @property
    def theory(self) -> dict[str, Any] | None:
        """What closed forms predict for the setting, and under which assumptions."""
        return asdict(self.prediction) if self.prediction else None

    @property
    def verdict(self) -> list[dict[str, str]]:
        """The findings as result documents hold them."""
        return [finding.as_dict() for finding in self.findings]

    def to_result(self) -> dict[str, Any]:
        """The document's "result"."""
        own = ("width", "init", "distribution", "activation", "seeds", "batch")
        return (
            {name: getattr(self, name) for name in own}
            | {
                "depths": [asdict(entry) for entry in self.depths],
                "failed": [{"depth": entry.depth, "says": entry.says} for entry in self.failed],
                "layers": [asdict(entry) for entry in self.layers],
                "rates": {quantity: asdict(rate) for quantity, rate in self.rates.items()},
                "agreement": [asdict(entry) for entry in self.agreement],
            }
            | ({} if self.point is None else point_result(self.point))
        )


def statistics_of(entry: DepthNorms, quantity: str) -> NormStatistics | None:
    """The statistics of one of `QUANTITIES` at one depth; `None` where it was not measured."""
    found = getattr(entry, f"{quantity}_norm")
    assert found is None or isinstance(found, NormStatistics)
    return found


def known(norm: NormStatistics | None) -> TypeGuard[NormStatistics]:
    """Whether a log-median has an error."""
    return norm is not None and math.isfinite(norm.log_median) and 0 < norm.log_median_stderr < math.inf


def ends(depths: Sequence[DepthNorms]) -> tuple[DepthNorms, DepthNorms] | None:
    """The depths between which rates are taken: the deepest, and the first from an eighth of it on."""
    settled = [entry for entry in depths if known(entry.gradient_norm)]
    deep = [entry for entry in settled if entry.depth >= max(DEEP * settled[-1].depth, 2)]
    return (deep[0], deep[-1]) if len(deep) > 1 else None
