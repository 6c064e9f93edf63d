"""What `forward` answers: the norm of a signal, layer by layer, over many random networks."""

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from hessdiag.fields import Count, NonEmpty, Number, Real, ascending, same_length
from hessdiag.questions.common.ensembles.agreement import LogMedianAgreement
from hessdiag.questions.common.ensembles.prediction import Theory
from hessdiag.questions.common.result import OPTIONAL, Result
from hessdiag.questions.forward.own_result import OwnSignal

Target = Literal["median", "rms"]
Place = Annotated[int, Meta(ge=1, le=2**31)]  # of a layer

FEWEST_CARRIERS = 30  # networks on which a root mean square must rest for its error to be believed


@dataclass(frozen=True, kw_only=True)
class RatioStatistics:
    """The ratio norm(h_l) / norm(x) over many networks.

    Median and quantiles are those of live networks; mean and root mean square count the dead as zero, as theory's
    expectations do.

    Attributes:
        median: Median, what a typical network has.
        median_stderr: Its standard error; NaN for fewer than two live networks.
        mean: Average, which rare networks dominate when depth exceeds width.
        mean_stderr: Its standard error; `None` where so few networks carry the average that it would be too small.
        rms: Root mean square.
        rms_stderr: Its standard error, likewise.
        q05: 5 % quantile; `None` of fewer than 20 networks, which do not know it.
        q95: 95 % quantile; likewise.
        log_median: Natural log of the median, which exists where the median has left float64.
        log_median_stderr: Its standard error, from order statistics.
        dead_fraction: Share of networks whose layer is zero.
        live: How many are not.
        carriers: `(sum r^2)^2 / sum r^4`: how many networks the root mean square rests on.
        kurtosis: `E r^4 / (E r^2)^2`, 1 where all networks agree; NaN where all are dead, and in older documents.
        kurtosis_stderr: Its standard error, an underestimate where the tail is heavy.
    """

    median: Real
    median_stderr: Real
    mean: Real
    mean_stderr: Number
    rms: Real
    rms_stderr: Number
    q05: Number
    q95: Number
    log_median: Real
    log_median_stderr: Real
    dead_fraction: Real
    live: Count
    carriers: Real = math.nan
    kurtosis: Real = math.nan
    kurtosis_stderr: Real = math.nan


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer.

    Attributes:
        layer: Its number l, counted from 1.
        name: Of the layer in the user's model; `None` in the built-in networks.
    """

    layer: Place
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class LayerRatio(RatioStatistics, Layer):
    """The ratio norm(h_l) / norm(x) in one layer.

    Attributes:
        theory_median: The exact median; `None` where no closed form holds.
        theory_rms: The exact root mean square; `None` likewise.
        theory_log_median: Natural log of the exact median; `None` likewise.
        theory_log_rms: Natural log of the exact root mean square; `None` likewise.
        theory_kurtosis: Exact `E r^4 / (E r^2)^2`; `None` likewise.
        theory_dead_fraction: Exact probability that a network is dead by this layer; `None` likewise.
        z: Standard errors between the measured log-median and the exact one; `None` where too few networks tell.
        variation: Of a user's model: how much outputs differ between samples, over their size; median over networks.
    """

    theory_median: Number
    theory_rms: Number
    theory_log_median: Number
    theory_log_rms: Number
    theory_kurtosis: Number = None
    theory_dead_fraction: Number = None
    z: Number
    variation: Number = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Achieved:
    """What a gain made of the ratio at one layer of fresh networks.

    Attributes:
        achieved: Their median or root mean square, whichever was to be 1.
        achieved_stderr: Its standard error; `None` where too few networks carry a root mean square to know.
        z: How many standard errors its log is away from 0 (the gain's error counts too); `None` if that is not known.
        carriers: How many networks a root mean square rests on; `None` for a median, which rests on all.
    """

    achieved: Real
    achieved_stderr: Number
    z: Number
    carriers: Number = field(default=None, metadata=OPTIONAL)

    @property
    def tried(self) -> bool:
        """Whether the fresh networks can tell: a root mean square that rests on a few of them cannot."""
        return self.carriers is None or self.carriers >= FEWEST_CARRIERS


@dataclass(frozen=True, kw_only=True)
class LayerGain(Achieved, Layer):
    """The factor of one layer's weights, and the ratio after this layer with all layers' gains.

    Attributes:
        gain: The factor.
        gain_stderr: Its standard error (of a model's layer an upper bound); `None` for a closed form.
    """

    gain: Real
    gain_stderr: Number


@dataclass(frozen=True, kw_only=True)
class Solution(Achieved):
    """The factor of an initialization's weights that makes the ratio 1, tried on fresh networks at the last layer.

    With a gain for each layer, `z` is that of the layer whose ratio is farthest from 1.

    Attributes:
        target: Whether the median or the root mean square is 1.
        gain: The factor; with one for each layer, their geometric mean.
        gain_stderr: Its standard error; `None` for a closed form.
        method: How it was found: by a closed form, from one measurement, by a search, or one layer after the other.
        mean_square_growth: `p d sigma^2` with it; `None` for curved activations and dependent weights.
        mean_square_growth_deep: The same in the limit of infinite depth; `None` where no closed form holds.
        layers: The factor of each layer; `None` where there is one for all.
    """

    target: Target
    gain: Real
    gain_stderr: Number
    method: Literal["exact", "scaling", "bisection", "sequential"]
    mean_square_growth: Number
    mean_square_growth_deep: Number
    layers: tuple[LayerGain, ...] | None = None

    @property
    def tried(self) -> bool:
        """Whether the fresh networks can tell, at every layer that the gain is for."""
        return super().tried and all(layer.tried for layer in self.layers or ())

    @property
    def worst(self) -> LayerGain | None:
        """With a gain for each layer, the one whose ratio is farthest from 1 in standard errors."""
        judged = [layer for layer in self.layers or () if layer.z is not None]
        return max(judged, key=lambda layer: abs(layer.z or 0.0), default=None)

    def of_layers(self, count: int) -> tuple[float, ...]:
        """The factor of each of so many layers."""
        return (self.gain,) * count if self.layers is None else tuple(layer.gain for layer in self.layers)


@dataclass(frozen=True, kw_only=True)
class InitRatios:
    """One initialization, layer by layer.

    Attributes:
        init: Its name.
        distribution: Of the weights; `None` for dependent ones.
        activation: Of the built-in networks; `None` for the user's own model.
        depth: Layers; of the user's model, those with weights.
        width: Of the built-in networks; `None` likewise.
        seeds: Networks.
        median: Of the last layer's ratio, and below its standard error, root mean square, and the rate of its log.
        solution: The gain that was solved for; `None` where none was.
        layers: All layers, the last one last.
        in_float64: How many networks of a user's model were computed in float64, for their dtype did not hold them.
    """

    init: str
    distribution: Literal["uniform", "normal"] | None
    activation: str | None
    depth: Count
    width: Count | None
    seeds: Count
    median: Real
    median_stderr: Real
    rms: Real
    rms_stderr: Number
    log_median_per_layer: Real
    log_median_per_layer_stderr: Real
    layers: NonEmpty[LayerRatio]
    solution: Solution | None = None
    in_float64: Count | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        """Layers ascend, gains are those of the layers, and a model's layers have names."""
        ascending(layers=[layer.layer for layer in self.layers])
        gains = self.solution.layers if self.solution is not None else None
        same_length(layers=self.layers, gains=gains or None)
        names = [layer.name for layer in self.layers] + [layer.name for layer in gains or ()]
        if self.width is None and None in names:
            raise ValueError("a layer has no `name`, and there is no `width`")

    @property
    def last(self) -> LayerRatio:
        """The deepest layer."""
        return self.layers[-1]

    @property
    def compared(self) -> tuple[LayerRatio, ...]:
        """The layers whose medians are held against exact ones: powers of two and the last; neighbours say the same."""
        return tuple(
            entry
            for entry in self.layers
            if entry.z is not None and (entry.layer == self.depth or entry.layer.bit_count() == 1)
        )

    @property
    def worst(self) -> LayerRatio | None:
        """Of those, the one whose measured median is farthest from the exact one, in standard errors."""
        return max(self.compared, key=lambda entry: abs(entry.z or 0.0), default=None)


@dataclass(frozen=True, kw_only=True)
class LayerAgreement(LogMedianAgreement):
    """A measured log-median beside the exact one.

    Attributes:
        init: The initialization.
        layer: Counted from 1.
    """

    init: str
    layer: Place


@dataclass(frozen=True, kw_only=True)
class ForwardTheory:
    """What closed forms predict for each initialization that has them."""

    inits: dict[str, Theory]


@dataclass(frozen=True, kw_only=True)
class Forward(Result):
    """What becomes of a signal: in a user's model as it is, and in random networks under several initializations.

    The checks are, for each initialization, the largest deviation of a log-median from its exact value, in standard
    errors. A gain that was tried on too few networks makes it "inexact".

    Attributes:
        own: The user's model with its own weights; `None` of networks that are made up.
        inits: What was measured of each, in the order asked for; after an interrupt, of those that it left.
        agreement: The medians that theory knows, beside it.
        asked_seeds: Networks that were asked for, where an interrupt left out some of them, or a gain.
        asked_inits: And initializations.
        theory: What closed forms predict; `None` where there are none.
    """

    command: ClassVar[str] = "forward"

    theory: ForwardTheory | None = None
    own: OwnSignal | None = field(default=None, metadata=OPTIONAL)
    inits: tuple[InitRatios, ...]  # none after an interrupt before two networks
    agreement: tuple[LayerAgreement, ...]
    asked_seeds: Count | None = field(default=None, metadata=OPTIONAL)
    asked_inits: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        """All initializations are of the same layers."""
        for init in self.inits:
            same_length(**{"layers of the first": self.inits[0].layers, "layers of another": init.layers})
