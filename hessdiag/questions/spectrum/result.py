"""The spectrum of a matrix as numbers: what the function returns, and what a document holds."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from hessdiag.curvature.registry import OperatorName
from hessdiag.fields import Count, Interval, Number, Numbers, Real, ascending, same_length
from hessdiag.questions.common.certificate import UNKNOWN, Certificate
from hessdiag.questions.common.inertia import Inertia
from hessdiag.questions.common.matrices import LossInOutput
from hessdiag.questions.common.metric import Metric
from hessdiag.questions.common.result import Measured

Ends = tuple[Numbers, Numbers]  # lower and upper ends of a curve's intervals


@dataclass(frozen=True)
class Outlier:
    """An extreme eigenvalue that was computed by itself; its residual is `None` where all were.

    One that has not converged is a `bound` of the eigenvalue of its rank, as in `eigs`: "upper" below, "lower" above.
    """

    eigenvalue: Number
    residual: Number
    converged: bool
    bound: Literal["lower", "upper"] | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A smoothed density; errors are `None` where all eigenvalues are known.

    Attributes:
        grid: Eigenvalues, ascending; fine where there is mass.
        values: Density there; its integral is 1.
        stderr: Standard error of each value.
        interval: 95 % interval of each: lower ends, upper ends.
        width: Standard deviation of the Gaussian that smooths.
        one_eigenvalue: Height of a single eigenvalue's bump: nothing below it is more than a tail.
    """

    grid: Numbers
    values: Numbers
    stderr: Numbers | None
    interval: Ends | None = None
    width: Number
    one_eigenvalue: Number

    def __post_init__(self) -> None:
        """All columns are as long as the grid, which ascends."""
        ascending(grid=self.grid)
        low, high = self.interval or (None, None)
        same_length(grid=self.grid, values=self.values, stderr=self.stderr, lower_ends=low, upper_ends=high)


@dataclass(frozen=True, kw_only=True)
class LogCurve:
    """Densities per decade of positive and of negative eigenvalues, over log10 of the magnitude.

    Where Ritz values are too far apart to tell, entries are `None`.

    Attributes:
        grid: log10 of the magnitude.
        positive: Density of positive eigenvalues, with `positive_stderr` and `positive_interval`.
        negative: That of negative ones, likewise.
        width: Standard deviation of the Gaussian that smooths, in decades.
        one_eigenvalue: Height of a single eigenvalue's bump.
        unresolved_below: Magnitude below which nothing is resolved; `None` where everything is.
        unresolved_share: Share of the eigenvalues of smaller magnitude, 95 % bounds.
    """

    grid: Numbers
    positive: Numbers
    positive_stderr: Numbers | None
    positive_interval: Ends | None = None
    negative: Numbers
    negative_stderr: Numbers | None
    negative_interval: Ends | None = None
    width: Number
    one_eigenvalue: Number
    unresolved_below: Number = None
    unresolved_share: Interval | None = None

    def __post_init__(self) -> None:
        """All columns are as long as the grid, which ascends."""
        ascending(grid=self.grid)
        same_length(grid=self.grid, positive=self.positive, negative=self.negative)
        for ends in (self.positive_interval, self.negative_interval):
            low, high = ends or (None, None)
            same_length(grid=self.grid, lower_ends=low, upper_ends=high)


@dataclass(frozen=True)
class Moment:
    """(1 / N) tr H^order."""

    order: Count
    value: Number
    stderr: Number
    interval: Interval | None = None


@dataclass(frozen=True)
class Semicircle:
    """Wigner's semicircle of the same trace and norm: where the eigenvalues of a structureless matrix would end."""

    semicircle_low: Real
    semicircle_high: Real


@dataclass(frozen=True, kw_only=True)
class Spectrum(Measured):
    """The spectrum of a Hessian, Gauss-Newton or Fisher matrix.

    A standard error and a 95 % interval are `None` where the number is exact; the error also where none can be given.
    Intervals are not symmetric: they are not twice the error. What an interrupt left unmeasured is `None`.

    Attributes:
        operator: Its name: "hessian", "ggn" or "fisher".
        metric: The metric P that all numbers are in, those of P^(-1/2) A P^(-1/2); `None` for the matrix A itself.
        loss_in_output: Of the latter two, what is known of the loss in what it receives: "convex", so that no
            eigenvalue is negative; "linear" at this point, so that all are zero; or "unknown". `None` of the Hessian.
        loss_uses_parameters: Of the latter two, whether the loss depends on parameters by another way than the output,
            too, which they leave out.
        outputs_at_kink: Of the latter two, whether the outputs have a kink here, so that the matrix is that of a piece.
        method: "exact" (all eigenvalues) or "slq" (stochastic Lanczos quadrature).
        parameters: N.
        probes: Random vectors; 0 if exact.
        steps: Lanczos steps from each.
        trace: Sum of the eigenvalues, with `trace_stderr` and `trace_interval`; so also below.
        frobenius: Root of the sum of their squares.
        zero_rows: Rows of the matrix that are exactly zero, left out of all vectors and counted as zero eigenvalues; 0
            unless they are a tenth of more than 1,500.
        untouched: How many of them belong to parameters that the batches do not touch.
        lowest: Smallest eigenvalue found: a Ritz value.
        lowest_is_bound: Whether it has not converged, so that the smallest eigenvalue is at or below it.
        highest: Largest.
        highest_is_bound: Likewise; the largest eigenvalue is at or above it.
        density: Smoothed density.
        log_density: The same over the logarithm of the magnitude.
        moments: Averages of powers.
        negative_fraction: Share of negative eigenvalues, beyond rounding; it has bounds but no standard error.
        negative_fraction_interval: Between what it lies; wide where many eigenvalues are near zero.
        negative_fraction_bounds: The same.
        negative_mass: Share of the sum of |eigenvalues| that negative ones hold.
        near_zero_fraction: Share of eigenvalues below 1 % of the largest magnitude; bounds likewise.
        negative_certificate: Whether negative curvature is proven: by all eigenvalues, or by a Ritz vector.
        inertia: Counts by sign; `None` unless exact.
        condition: Largest magnitude over the smallest that is not zero to rounding; `None` unless exact.
        outliers: Extreme eigenpairs taken out of the density and put back exactly, ascending.
        eigenvalues: All but those of `zero_rows`; `None` unless exact.
        hvps: Products spent, self-checks not counted; a whole matrix counts as N, by whatever route.
        engine: How products were computed.
        status: "ok", "inexact" (a self-check failed, or an end of the spectrum is not found) or "interrupted".
    """

    command: ClassVar[str] = "spectrum"

    theory: Semicircle | None = None
    operator: OperatorName
    metric: Metric | None = None
    loss_in_output: LossInOutput | None = None
    loss_uses_parameters: bool | None = None
    outputs_at_kink: bool | None = None
    method: Literal["exact", "slq"]
    parameters: Count
    probes: Count
    steps: Count
    trace: Number
    trace_stderr: Number
    trace_interval: Interval | None = None
    frobenius: Number
    frobenius_stderr: Number
    frobenius_interval: Interval | None = None
    zero_rows: Count = 0
    untouched: Count = 0
    lowest: Number
    lowest_is_bound: bool = False
    highest: Number
    highest_is_bound: bool = False
    density: Curve | None
    log_density: LogCurve | None
    moments: tuple[Moment, ...]
    negative_fraction: Number
    negative_fraction_stderr: Number
    negative_fraction_interval: Interval | None = None
    negative_fraction_bounds: Interval | None
    negative_mass: Number
    negative_mass_stderr: Number
    negative_mass_interval: Interval | None = None
    near_zero_fraction: Number
    near_zero_fraction_stderr: Number
    near_zero_fraction_interval: Interval | None = None
    negative_certificate: Certificate = UNKNOWN
    inertia: Inertia | None
    condition: Number = None
    outliers: tuple[Outlier, ...]
    eigenvalues: Numbers | None
    hvps: Count | None
    engine: str = ""
