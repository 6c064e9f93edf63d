"""What `chain` answers: typical sizes in the network of width one, beside the exact laws."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hessdiag.fields import Count, NonEmpty, Number, Real, ascending
from hessdiag.questions.common.ensembles.agreement import Agreement
from hessdiag.questions.common.result import OPTIONAL, Result


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Absolute value of a random quantity over the chains.

    Attributes:
        median_abs: Median.
        median_abs_stderr: Its standard error, from order statistics.
        mean_abs: Average; in long chains few chains set it, and the average of finitely many is too small.
        mean_abs_stderr: Its standard error; `None` where so few chains carry the average that it would be too small.
        rms: Root mean square.
        rms_stderr: Its standard error, likewise.
        q05: 5 % quantile; `None` of fewer than 20 chains, which do not know it.
        q95: 95 % quantile; likewise.
        log_median: Natural log of the median, which does not underflow.
        log_median_stderr: Its standard error.
    """

    median_abs: Real
    median_abs_stderr: Real
    mean_abs: Real
    mean_abs_stderr: Number
    rms: Real
    rms_stderr: Number
    q05: Number
    q95: Number
    log_median: Real
    log_median_stderr: Real


@dataclass(frozen=True, kw_only=True)
class Magnitude(Sample):
    """The same beside the exact law.

    Attributes:
        probability_above_mean: Share of the chains at or above the exact mean.
        probability_above_mean_stderr: Its standard error.
        probability_above_rms: Share of the chains at or above the exact root mean square.
        probability_above_rms_stderr: Its standard error.
        theory_median_abs: Exact, as are all that follow.
        theory_mean_abs: Mean.
        theory_rms: Root mean square.
        theory_log_median: Log of the median.
        theory_probability_above_mean: Probability to be at or above the mean.
        theory_probability_above_rms: Probability to be at or above the root mean square.
    """

    probability_above_mean: Real
    probability_above_mean_stderr: Real
    probability_above_rms: Real
    probability_above_rms_stderr: Real
    theory_median_abs: Real
    theory_mean_abs: Real
    theory_rms: Real
    theory_log_median: Real
    theory_probability_above_mean: Real
    theory_probability_above_rms: Real


@dataclass(frozen=True, kw_only=True)
class AtLength:
    """All quantities in the first `length` weights; see `Chain`."""

    length: Count
    product: Magnitude
    gradient: Sample
    hessian_diagonal: Sample
    hessian_offdiagonal: Sample | None


@dataclass(frozen=True, kw_only=True)
class CriticalScale:
    """Scales at which a size neither vanishes nor explodes.

    Attributes:
        rms: For the root mean square of v.
        mean_abs: For the mean of |v|.
        median: For the median of |v|, in the limit of long chains.
        median_at_length: For the median of |v| at this length, exactly.
    """

    rms: Real
    mean_abs: Real
    median: Real
    median_at_length: Real


@dataclass(frozen=True, kw_only=True)
class Share:
    """A measured share of the chains, with its standard error, and its exact probability."""

    measured: Real
    stderr: Real
    theory: Real


@dataclass(frozen=True, kw_only=True)
class SignShares:
    """Which signs the Hessian's eigenvalues have: all positive, one negative, or one positive and more negative."""

    definite: Share
    one_negative: Share
    one_positive: Share


@dataclass(frozen=True, kw_only=True)
class ChainPlateau:
    """The way from equal weights up to the output `peak(length)`, where the gradient is largest.

    Attributes:
        start: Each weight's value at first: a typical one, whose power L is the median of |v|.
        gradient: Size of each entry of the gradient there.
        output: Output at the end.
        theory_time: Of gradient flow.
        theory_time_bound: A lower bound on it: the first term of its series.
        theory_blow_up_time: When that term would diverge.
        flow_time: Of gradient flow, integrated numerically in all weights; None where it is beyond 1e100.
        learning_rate: Of the discrete steps below.
        gradient_descent_steps: The flow's time over the learning rate.
        rmsprop_steps: Counted, with epsilon = 0.
        theory_rmsprop_steps: An upper bound, the distance over the learning rate.
        rmsprop_default_steps: Counted, with torch's epsilon = 1e-8; None if more than 20,000.
    """

    start: Real
    gradient: Real
    output: Real
    theory_time: Real
    theory_time_bound: Real
    theory_blow_up_time: Real
    flow_time: Number
    learning_rate: Real
    gradient_descent_steps: Real
    rmsprop_steps: Count | None
    theory_rmsprop_steps: Count
    rmsprop_default_steps: Count | None


@dataclass(frozen=True, kw_only=True)
class StatisticAgreement(Agreement):
    """A measured statistic of one quantity, against the exact one."""

    quantity: str
    statistic: str
    measured: Real
    theory: Real

    @property
    def values(self) -> tuple[float, float]:
        """What was measured, and the exact value."""
        return self.measured, self.theory


@dataclass(frozen=True, kw_only=True)
class ChainTheory:
    """What the exact laws assume."""

    assumes: str
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Chain(Magnitude, Result):
    """The chain `v = w_1 ... w_L` with the loss `(v - 1)^2 / 2`. What `Magnitude` says is of the product v.

    Attributes:
        length: Number L of weights.
        distribution: "uniform" on [-scale, scale], or "normal".
        scale: tau or sigma.
        seeds: Number of random chains.
        gradient: An entry of the gradient.
        hessian_diagonal: A diagonal entry of the Hessian.
        hessian_offdiagonal: Another entry of the Hessian; None for one weight.
        critical_scale: Scales that would keep one size or another.
        stabilized_order: The q whose moment `E|v|^q` this scale keeps at 1; None if there is none.
        inertia: Signs of the Hessian's eigenvalues.
        plateau: How long optimizers take from equal weights of typical size; None where there is no plateau,
            or one that lasts longer than float64 can say.
        lengths: The same sizes in shorter chains.
        agreement: Log medians and shares against theory, as far as there are enough chains for a standard error.
        asked_length: How long the chain was to be, where an interrupt left a shorter one: that is all that is told of.
        theory: What the exact laws assume.
    """

    command: ClassVar[str] = "chain"

    length: Count
    distribution: Literal["uniform", "normal"]
    scale: Real
    seeds: Count
    gradient: Magnitude
    hessian_diagonal: Magnitude
    hessian_offdiagonal: Magnitude | None
    critical_scale: CriticalScale
    stabilized_order: Number
    inertia: SignShares
    plateau: ChainPlateau | None
    lengths: NonEmpty[AtLength]
    agreement: tuple[StatisticAgreement, ...]
    asked_length: Count | None = field(default=None, metadata=OPTIONAL)
    theory: ChainTheory | None = None

    def __post_init__(self) -> None:
        """Lengths ascend."""
        ascending(lengths=[entry.length for entry in self.lengths])
