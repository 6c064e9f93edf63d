"""The document of `eigs`."""

from dataclasses import dataclass
from typing import Literal

from hessdiag.report.schema import parts
from hessdiag.report.schema.parts import Certificate, Count, Inertia, Interval, Number, Numbers, same_length


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A Ritz pair."""

    eigenvalue: Number
    residual: Number
    converged: bool
    layer_weights: Numbers
    gradient_overlap: Number
    bound: Literal["lower", "upper"] | None = None


@dataclass(frozen=True, kw_only=True)
class Result(parts.Measured):
    """The numbers of `eigs`."""

    lowest: list[Pair]
    highest: list[Pair]
    smallest: Number
    largest: Number
    method: Literal["exact", "lanczos"]
    parameters: Count
    layers: list[str]
    hvps: Count
    basis: Count
    negative_certificate: Certificate
    inertia: Inertia | None
    spectrum: Numbers | None
    restarts: Count | None
    tol: Number
    rounding: Number
    smallest_is_bound: bool | None = None
    largest_is_bound: bool | None = None
    zero_rows: Count | None = None
    untouched: Count | None = None
    ritz_range: Interval | None = None
    largest_step: Number
    largest_step_is_bound: bool | None = None
    gradient_norm: Number
    gradient_curvature: Number

    def __post_init__(self) -> None:
        """Each pair has a weight for each layer, and all eigenvalues come with what counts as zero."""
        for pair in (*self.lowest, *self.highest):
            same_length(layers=self.layers, layer_weights=pair.layer_weights)
        if self.spectrum is not None and self.inertia is None:
            raise ValueError("`inertia` is missing beside `spectrum`")


@dataclass(frozen=True, kw_only=True)
class Document(parts.Document):
    """The whole document."""

    result: Result
