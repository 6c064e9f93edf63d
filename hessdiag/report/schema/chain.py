"""The document of `chain`."""

from dataclasses import dataclass
from typing import Literal

from hessdiag.report.schema import parts
from hessdiag.report.schema.parts import Count, NonEmpty, Number, OwnProblem, ascending


@dataclass(frozen=True, kw_only=True)
class Size:
    """How an absolute value is distributed over chains, beside its exact law."""

    median_abs: Number
    mean_abs: Number
    rms: Number
    q05: Number
    q95: Number
    median_abs_stderr: Number = None
    mean_abs_stderr: Number = None
    rms_stderr: Number = None
    log_median: Number = None
    log_median_stderr: Number = None
    probability_above_mean: Number = None
    probability_above_mean_stderr: Number = None
    probability_above_rms: Number = None
    probability_above_rms_stderr: Number = None
    theory_median_abs: Number = None
    theory_mean_abs: Number = None
    theory_rms: Number = None
    theory_log_median: Number = None
    theory_probability_above_mean: Number = None
    theory_probability_above_rms: Number = None


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
    flow_time: Number = None
    gradient: Number = None
    theory_time_bound: Number = None
    theory_blow_up_time: Number = None
    gradient_descent_steps: Number = None
    rmsprop_steps: Number = None
    theory_rmsprop_steps: Number = None
    rmsprop_default_steps: Number = None


@dataclass(frozen=True, kw_only=True)
class Length:
    """The first weights of the same chains."""

    length: Count
    product: Size
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
class Result(Size):
    """The numbers of `chain`; those of the output stand beside the others."""

    length: Count
    distribution: Literal["uniform", "normal"]
    scale: Number
    seeds: Count
    gradient: Size
    hessian_diagonal: Size
    hessian_offdiagonal: Size | None
    critical_scale: CriticalScale
    inertia: Signs
    lengths: NonEmpty[Length]
    agreement: list[Comparison]
    plateau: Plateau | None = None
    stabilized_order: Number = None

    def __post_init__(self) -> None:
        """Lengths ascend."""
        ascending(lengths=[entry.length for entry in self.lengths])


@dataclass(frozen=True, kw_only=True)
class Document(parts.Document):
    """The whole document."""

    problem: OwnProblem  # type: ignore[assignment]
    result: Result
