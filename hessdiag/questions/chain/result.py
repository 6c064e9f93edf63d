"""What `chain` answers: typical sizes in the network of width one, beside the exact laws."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from hessdiag.questions.common.agreement import Agreement
from hessdiag.questions.common.verdict import Z_ALLOWED, Finding, Status

NO_RESULT = ("seed", "asked_length", "findings")  # in the document, beside its "result"


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

    median_abs: float
    median_abs_stderr: float
    mean_abs: float
    mean_abs_stderr: float | None
    rms: float
    rms_stderr: float | None
    q05: float | None
    q95: float | None
    log_median: float
    log_median_stderr: float


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

    probability_above_mean: float
    probability_above_mean_stderr: float
    probability_above_rms: float
    probability_above_rms_stderr: float
    theory_median_abs: float
    theory_mean_abs: float
    theory_rms: float
    theory_log_median: float
    theory_probability_above_mean: float
    theory_probability_above_rms: float


@dataclass(frozen=True, kw_only=True)
class AtLength:
    """All quantities in the first `length` weights; see `Chain`."""

    length: int
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

    rms: float
    mean_abs: float
    median: float
    median_at_length: float


@dataclass(frozen=True, kw_only=True)
class Share:
    """A measured share of the chains, with its standard error, and its exact probability."""

    measured: float
    stderr: float
    theory: float


@dataclass(frozen=True, kw_only=True)
class SignShares:
    """Which signs the Hessian's eigenvalues have: all positive, one negative, or one positive and more negative."""

    definite: Share
    one_negative: Share
    one_positive: Share


@dataclass(frozen=True, kw_only=True)
class Plateau:
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

    start: float
    gradient: float
    output: float
    theory_time: float
    theory_time_bound: float
    theory_blow_up_time: float
    flow_time: float | None
    learning_rate: float
    gradient_descent_steps: float
    rmsprop_steps: int | None
    theory_rmsprop_steps: int
    rmsprop_default_steps: int | None


@dataclass(frozen=True, kw_only=True)
class StatisticAgreement(Agreement):
    """A measured statistic of one quantity, against the exact one."""

    quantity: str
    statistic: str
    measured: float
    theory: float


@dataclass(frozen=True, kw_only=True)
class Chain(Magnitude):
    """The chain `v = w_1 ... w_L` with the loss `(v - 1)^2 / 2`. What `Magnitude` says is of the product v.

    Attributes:
        length: Number L of weights.
        distribution: "uniform" on [-scale, scale], or "normal".
        scale: tau or sigma.
        seeds: Number of random chains.
        seed: Of all randomness.
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
        asked_length: How long the chain was to be: an interrupt leaves a shorter one, which is all that is told of.
        findings: The verdict.
    """

    length: int
    distribution: Literal["uniform", "normal"]
    scale: float
    seeds: int
    seed: int
    gradient: Magnitude
    hessian_diagonal: Magnitude
    hessian_offdiagonal: Magnitude | None
    critical_scale: CriticalScale
    stabilized_order: float | None
    inertia: SignShares
    plateau: Plateau | None
    lengths: tuple[AtLength, ...]
    agreement: tuple[StatisticAgreement, ...]
    asked_length: int
    findings: tuple[Finding, ...] = ()

    @property
    def status(self) -> Status:
        """Whether it was interrupted; nothing here is iterated or estimated without an error."""
        return "interrupted" if self.length < self.asked_length else "ok"

    @property
    def checks(self) -> dict[str, float | None]:
        """The largest deviation from theory in standard errors."""
        return {"largest_z": max((abs(row.z) for row in self.agreement), default=None)}

    @property
    def thresholds(self) -> dict[str, float]:
        """What the self-checks allow, by name."""
        return dict.fromkeys(self.checks, Z_ALLOWED)

    @property
    def verdict(self) -> list[dict[str, str]]:
        """The findings as result documents hold them."""
        return [finding.as_dict() for finding in self.findings]

    def to_result(self) -> dict[str, Any]:
        """The document's "result"."""
        return {name: value for name, value in asdict(self).items() if name not in NO_RESULT}
