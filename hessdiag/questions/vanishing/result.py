"""What `vanishing` answers: norms of gradients and Hessians against depth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, NamedTuple, TypeGuard, TypeVar

from msgspec import Meta

from hessdiag.curvature.point.result import Kink, Point
from hessdiag.fields import Count, Number, Real, ascending
from hessdiag.questions.common.ensembles.agreement import LogMedianAgreement
from hessdiag.questions.common.ensembles.prediction import Theory
from hessdiag.questions.common.result import OPTIONAL, Result

T = TypeVar("T")

QUANTITIES = (
    "gradient", "first_layer_gradient", "last_layer_gradient",
    "hessian", "hessian_diagonal_blocks", "hessian_offdiagonal_blocks", "vjp",
)  # fmt: skip
ByQuantity = Annotated[dict[str, T], Meta(extra={"keys": QUANTITIES})]
UNEVEN = 100.0  # ratio of typical entries of gradients from which on layers are not reached alike
DEEP = 1 / 8  # of the deepest network: what is shallower has not settled to a rate


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

    median: Real
    mean: Real
    rms: Real
    q05: Number
    q95: Number
    log_median: Real = math.nan
    log_median_stderr: Real
    networks: Count = 0


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
        first_layer_gradient_norm: Norm of what reaches the first layer on the way from the data to the loss; `None` for
            the fully connected networks, in which all layers get alike.
        last_layer_gradient_norm: Likewise of the last.
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
        hessian_trace: Mean of the trace over all networks, dead ones counted as zero; `None` where it was not measured.
        hessian_trace_stderr: Its standard error.
        theory_trace: Its exact value, for any symmetric law of the weights; `None` where no closed form holds.
        path_width: Harmonic mean over all layers but the last of their number of inputs per neuron; `None` unless
            measured.
        padding_factor: By theory, the factor by which padding multiplies the expected energy (squared norm) in each
            convolution: geometric mean over those that keep the image's size; `None` where there is none.
        effective_width: Likewise of their effective widths (`effective_widths`), over networks too.
        effective_width_stderr: Its standard error.
    """

    depth: Count
    width: Count | None
    parameters: Count = 0
    seeds: Count
    hessian_seeds: Count
    hessian_method: Literal["exact", "hvp"] = "exact"
    dead_fraction: Real
    gradient_norm: NormStatistics
    first_layer_gradient_norm: NormStatistics | None = None
    last_layer_gradient_norm: NormStatistics | None = None
    hessian_norm: NormStatistics
    hessian_diagonal_blocks_norm: NormStatistics
    hessian_offdiagonal_blocks_norm: NormStatistics
    hessian_diag_share: NormStatistics | Number
    certified_indefinite: Number = None
    vjp_norm: NormStatistics | None
    theory_rms: ByQuantity[Real] | None
    theory_median: ByQuantity[Real] | None = None
    hessian_trace: Number = None
    hessian_trace_stderr: Number = None
    theory_trace: Number = None
    hessian_probe_error: Number = None
    path_width: Number = None
    padding_factor: Number = None
    effective_width: Number = None
    effective_width_stderr: Number = None


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """Norms of one layer's gradient and of its diagonal Hessian block, in the deepest network.

    Attributes:
        layer: Counted from 1 at the input, in the order of execution.
        gradient_norm: Of its gradient.
        hessian_block_norm: Of its diagonal block.
        theory_rms: Exact root mean squares of "gradient" and "hessian_block"; `None` where no closed form holds.
        name: In the model; `None` for the fully connected networks, whose layers have none.
        parameters: Their number; `None` likewise.
        path_width: Its inputs per neuron; `None` unless measured.
        padding_factor: As of a depth, of this layer.
        effective_width: See `effective_widths`; harmonic mean over networks.
        effective_width_stderr: Its standard error.
        depth: How many layers that multiply by a matrix the data has passed with this one; `None` for those that are
            not on the longest way from the data to the loss, and for the fully connected networks.
    """

    layer: Count
    gradient_norm: NormStatistics
    hessian_block_norm: NormStatistics | None
    theory_rms: dict[str, Real] | None = None
    name: str | None = None
    parameters: Count | None = None
    path_width: Number = None
    padding_factor: Number = None
    effective_width: Number = None
    effective_width_stderr: Number = None
    depth: Count | None = None

    @property
    def typical_entry(self) -> float:
        """Root mean square over the entries of its gradient, in a median network; 0 where it has no parameters."""
        median: float | None = self.gradient_norm.median  # a document that was cut by hand has none
        if median is None:
            return math.nan
        return median / math.sqrt(self.parameters) if self.parameters else 0.0


class Reached(NamedTuple):
    """The first and the last layer with parameters on the way from the data to the loss."""

    first: LayerNorms
    last: LayerNorms

    @property
    def kept(self) -> float:
        """The typical entry of the first layer's gradient over the last layer's."""
        last = self.last.typical_entry
        return self.first.typical_entry / last if last else math.nan


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Change of a log-median per layer (natural log) from one depth to another, beside the asymptotic theory."""

    per_layer: Real
    per_layer_stderr: Real
    theory_per_layer: Number
    from_depth: Count | None = None
    to_depth: Count | None = None


@dataclass(frozen=True, kw_only=True)
class DepthAgreement(LogMedianAgreement):
    """A measured log-median of one of `QUANTITIES` at one depth, against the exact one."""

    depth: Count
    quantity: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A depth that could not be measured.

    Attributes:
        depth: Which.
        says: Why.
        hint: What might help; documents have it in the verdict.
    """

    depth: Count
    says: str
    hint: str | None = field(default=None, compare=False, metadata={"apart": True})


@dataclass(frozen=True, kw_only=True)
class Vanishing(Result):
    """Norms against depth. See `DepthNorms` for what is measured.

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
        point: What kind of point the first network is at; `None` where it was not looked at.
        kinks: Where its units lie at a kink.
        same_weights: Whether all networks of the deepest depth turned out to be one; documents have it in the verdict.
        asked: The depths that were asked for, where an interrupt left some.
        theory: What closed forms predict at the width of the deepest network; `None` where there are none.
    """

    command: ClassVar[str] = "vanishing"

    width: Count | Literal["same"] | None
    init: str | None
    distribution: Literal["uniform", "normal"] | None
    activation: str | None
    seeds: Count
    batch: Count | None
    depths: tuple[DepthNorms, ...]
    failed: tuple[Failure, ...] = ()
    layers: tuple[LayerNorms, ...]
    rates: ByQuantity[Rate]
    agreement: tuple[DepthAgreement, ...]
    point: Point | None = field(default=None, metadata=OPTIONAL)
    kinks: tuple[Kink, ...] | None = field(default=None, metadata=OPTIONAL)
    same_weights: bool = field(default=False, compare=False, metadata={"apart": True})
    asked: tuple[Count, ...] | None = field(default=None, metadata=OPTIONAL)
    theory: Theory | None = None

    def __post_init__(self) -> None:
        """Depths and layers ascend, and rates are between depths."""
        ascending(depths=[entry.depth for entry in self.depths], layers=[entry.layer for entry in self.layers])
        if self.rates and not self.depths:
            raise ValueError("`rates` are there, and no `depths` between which they are")

    @property
    def ends(self) -> tuple[DepthNorms, DepthNorms] | None:
        """The depths between which all rates are taken: the deepest, and the first from an eighth of it on."""
        return ends(self.depths)

    @property
    def reached(self) -> Reached | None:
        """Between which layers a gradient travels in the deepest network; `None` where fewer than two are known."""
        way = [layer for layer in self.layers if layer.parameters and layer.depth]
        if len(way) < 2 or not all(math.isfinite(layer.typical_entry) for layer in way):
            return None
        return Reached(min(way, key=lambda layer: layer.depth or 0), max(way, key=lambda layer: layer.depth or 0))

    @property
    def unevenly_reached(self) -> bool:
        """Whether the first layer gets a gradient of another size than the last, so that the whole norm hides one."""
        return self.reached is not None and not 1 / UNEVEN <= self.reached.kept <= UNEVEN

    @property
    def check_failed(self) -> bool:
        """Whether a self-check came out beyond its tolerance, or the first network's products cannot be believed."""
        apart = [(value, self.thresholds.get(name)) for name, value in self.checks.items() if value is not None]
        within = all(allowed is not None and abs(value) <= allowed for value, allowed in apart)
        return not within or (self.point is not None and not self.point.trusted)


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
