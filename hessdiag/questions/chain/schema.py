"""The document of `chain`."""

from dataclasses import dataclass
from typing import Literal

from hessdiag.report.schema import parts
from hessdiag.report.schema.parts import Count, NonEmpty, Number, OwnProblem, ascending


@dataclass(frozen=True, kw_only=True)
class Size:
    """How an absolute value is distributed over chains."""

    median_abs: Number
    mean_abs: Number
    rms: Number
    q05: Number
    q95: Number
    median_abs_stderr: Number
    mean_abs_stderr: Number
    rms_stderr: Number
    log_median: Number
    log_median_stderr: Number


@dataclass(frozen=True, kw_only=True)
class KnownSize(Size):
    """The same beside its exact law."""

    probability_above_mean: Number
    probability_above_mean_stderr: Number
    probability_above_rms: Number
    probability_above_rms_stderr: Number
    theory_median_abs: Number
    theory_mean_abs: Number
    theory_rms: Number
    theory_log_median: Number
    theory_probability_above_mean: Number
    theory_probability_above_rms: Number


@dataclass(frozen=True, kw_only=True)
class CriticalScale:
    """Scales that keep one size or another."""

    rms: Number
    mean_abs: Number
    median: Number
    median_at_length: Number


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of the chains."""

    measured: Number
    stderr: Number
    theory: Number


@dataclass(frozen=True, kw_only=True)
class Signs:
    """The signs of the Hessian's eigenvalues."""

    definite: Share
    one_negative: Share
    one_positive: Share


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The way off the plateau."""

    start: Number
    output: Number
    learning_rate: Number
    theory_time: Number
    flow_time: Number
    gradient: Number
    theory_time_bound: Number
    theory_blow_up_time: Number
    gradient_descent_steps: Number
    rmsprop_steps: Number
    theory_rmsprop_steps: Number
    rmsprop_default_steps: Number


@dataclass(frozen=True, kw_only=True)
class Length:
    """The first weights of the same chains."""

    length: Count
    product: KnownSize
    gradient: Size | None
    hessian_diagonal: Size | None
    hessian_offdiagonal: Size | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A measured number beside its exact value."""

    quantity: str
    statistic: str
    measured: Number
    stderr: Number
    theory: Number
    z: Number


@dataclass(frozen=True, kw_only=True)
class Result(KnownSize):
    """The numbers of `chain`; those of the output stand beside the others."""

    length: Count
    distribution: Literal["uniform", "normal"]
    scale: Number
    seeds: Count
    gradient: KnownSize
    hessian_diagonal: KnownSize
    hessian_offdiagonal: KnownSize | None
    critical_scale: CriticalScale
    inertia: Signs
    lengths: NonEmpty[Length]
    agreement: list[Comparison]
    plateau: Plateau | None
    stabilized_order: Number

    def __post_init__(self) -> None:
        """Lengths ascend."""
        ascending(lengths=[entry.length for entry in self.lengths])


@dataclass(frozen=True, kw_only=True)
class Document(parts.Document):
    """The whole document."""

    problem: OwnProblem  # type: ignore[assignment]
    result: Result
