"""The document of `spectrum`."""

from dataclasses import dataclass
from typing import Literal

from hessdiag.curvature.registry import OperatorName
from hessdiag.report.schema import parts
from hessdiag.report.schema.parts import Certificate, Count, Inertia, Interval, Number, Numbers, ascending, same_length

Ends = tuple[Numbers, Numbers]  # lower and upper ends of a curve's intervals


@dataclass(frozen=True, kw_only=True)
class Density:
    """The smoothed density."""

    grid: Numbers
    values: Numbers
    width: Number
    one_eigenvalue: Number
    stderr: Numbers | None
    interval: Ends | None = None

    def __post_init__(self) -> None:
        """All columns are as long as the grid, which ascends."""
        ascending(grid=self.grid)
        low, high = self.interval or (None, None)
        same_length(grid=self.grid, values=self.values, stderr=self.stderr, lower_ends=low, upper_ends=high)


@dataclass(frozen=True, kw_only=True)
class LogDensity:
    """The density over decades, of each sign."""

    grid: Numbers
    positive: Numbers
    negative: Numbers
    width: Number
    one_eigenvalue: Number
    positive_stderr: Numbers | None
    positive_interval: Ends | None = None
    negative_stderr: Numbers | None
    negative_interval: Ends | None = None
    unresolved_below: Number = None
    unresolved_share: Interval | None = None

    def __post_init__(self) -> None:
        """All columns are as long as the grid, which ascends."""
        ascending(grid=self.grid)
        same_length(grid=self.grid, positive=self.positive, negative=self.negative)
        for ends in (self.positive_interval, self.negative_interval):
            low, high = ends or (None, None)
            same_length(grid=self.grid, lower_ends=low, upper_ends=high)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The average of a power of the eigenvalues."""

    order: Count
    value: Number
    stderr: Number
    interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """An extreme eigenvalue."""

    eigenvalue: Number
    residual: Number
    converged: bool
    bound: Literal["lower", "upper"] | None = None


@dataclass(frozen=True, kw_only=True)
class Result(parts.Measured):
    """The numbers of `spectrum`."""

    operator: OperatorName
    method: Literal["exact", "slq"]
    parameters: Count
    probes: Count
    steps: Count
    trace: Number
    frobenius: Number
    lowest: Number
    highest: Number
    density: Density | None
    log_density: LogDensity | None
    moments: list[Moment]
    outliers: list[Outlier]
    negative_fraction: Number
    negative_mass: Number
    near_zero_fraction: Number
    trace_stderr: Number
    trace_interval: Interval | None = None
    frobenius_stderr: Number
    frobenius_interval: Interval | None = None
    lowest_is_bound: bool | None = None
    highest_is_bound: bool | None = None
    negative_fraction_stderr: Number
    negative_fraction_interval: Interval | None = None
    negative_fraction_bounds: Interval | None
    negative_mass_stderr: Number
    negative_mass_interval: Interval | None = None
    near_zero_fraction_stderr: Number
    near_zero_fraction_interval: Interval | None = None
    negative_certificate: Certificate | None = None
    inertia: Inertia | None
    zero_rows: Count | None = None
    untouched: Count | None = None
    condition: Number = None
    eigenvalues: Numbers | None
    hvps: Count | None


@dataclass(frozen=True, kw_only=True)
class Theory:
    """The ends of Wigner's semicircle."""

    semicircle_low: Number
    semicircle_high: Number


@dataclass(frozen=True, kw_only=True)
class Document(parts.Document):
    """The whole document."""

    result: Result
    theory: Theory | None  # type: ignore[assignment]
