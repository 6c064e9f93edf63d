"""The document of `forward`."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from hessdiag.report.schema import parts
from hessdiag.report.schema.parts import Count, NonEmpty, Number, OwnProblem, ascending, same_length

Place = Annotated[int, Meta(ge=1, le=2**31)]  # of a layer


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Norm ratios after one layer."""

    layer: Place
    median: Number
    mean: Number
    rms: Number
    q05: Number
    q95: Number
    dead_fraction: Number
    live: Count
    name: str | None = None
    median_stderr: Number
    mean_stderr: Number
    rms_stderr: Number
    log_median: Number
    log_median_stderr: Number
    carriers: Number = None
    kurtosis: Number = None
    kurtosis_stderr: Number = None
    theory_median: Number
    theory_rms: Number
    theory_log_median: Number
    theory_log_rms: Number
    theory_kurtosis: Number = None
    z: Number


@dataclass(frozen=True, kw_only=True)
class LayerGain:
    """The gain of one layer."""

    layer: Place
    gain: Number
    achieved: Number
    name: str | None
    gain_stderr: Number
    achieved_stderr: Number
    z: Number


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The gain that keeps a norm."""

    target: str
    gain: Number
    method: str
    achieved: Number
    gain_stderr: Number
    mean_square_growth: Number
    mean_square_growth_deep: Number
    achieved_stderr: Number
    z: Number
    layers: list[LayerGain] | None = None


@dataclass(frozen=True, kw_only=True)
class Init:
    """One initialization."""

    init: str
    distribution: str | None
    activation: str | None
    depth: Count
    width: Count | None
    seeds: Count
    median: Number
    rms: Number
    layers: NonEmpty[Layer]
    median_stderr: Number
    rms_stderr: Number
    log_median_per_layer: Number
    log_median_per_layer_stderr: Number
    solution: Solution | None = None

    def __post_init__(self) -> None:
        """Layers ascend, gains are those of the layers, and a model's layers have names."""
        ascending(layers=[layer.layer for layer in self.layers])
        gains = self.solution.layers if self.solution is not None else None
        same_length(layers=self.layers, gains=gains or None)
        if self.width is None and any(layer.name is None for layer in (*self.layers, *(gains or ()))):
            raise ValueError("a layer has no `name`, and there is no `width`")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A log-median beside its exact value."""

    init: str
    layer: Place
    measured_log_median: Number
    stderr: Number
    theory_log_median: Number
    z: Number


@dataclass(frozen=True, kw_only=True)
class Result:
    """The numbers of `forward`."""

    inits: list[Init]  # none after an interrupt before two networks
    agreement: list[Comparison]

    def __post_init__(self) -> None:
        """All initializations are of the same layers."""
        for init in self.inits:
            same_length(**{"layers of the first": self.inits[0].layers, "layers of another": init.layers})


@dataclass(frozen=True, kw_only=True)
class Document(parts.Document):
    """The whole document."""

    problem: OwnProblem  # type: ignore[assignment]
    result: Result
