"""The document of `blocks`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from hessdiag.report.schema import parts
from hessdiag.report.schema.parts import (
    Certificate,
    Count,
    Interval,
    Matrix,
    NonEmpty,
    Number,
    Numbers,
    same_length,
    square,
)


@dataclass(frozen=True, kw_only=True)
class Couple:
    """The pair of layers that proves negative curvature."""

    layers: Annotated[list[str], Meta(min_length=2, max_length=2)]
    ratio: Number


@dataclass(frozen=True, kw_only=True)
class Result(parts.Measured):
    """The numbers of `blocks`."""

    names: NonEmpty[str]
    kinds: list[str]
    sizes: list[Count]
    parameters: Count
    method: Literal["exact", "probes"]
    probes: Count
    hvps: Count
    frobenius: Matrix
    gauss_newton: Matrix | None
    residual: Matrix | None
    trace: Numbers
    norm: Number
    gauss_newton_norm: Number
    residual_norm: Number
    between_layers: Number
    residual_share: Number
    frobenius_stderr: Matrix | None
    gauss_newton_stderr: Matrix | None
    residual_stderr: Matrix | None
    trace_stderr: Numbers | None
    diagonal_mass: Numbers | None
    diagonal_mass_stderr: Numbers | None
    norm_stderr: Number
    norm_interval: Interval | None = None
    gauss_newton_norm_stderr: Number
    gauss_newton_norm_interval: Interval | None = None
    residual_norm_stderr: Number
    residual_norm_interval: Interval | None = None
    between_layers_stderr: Number
    residual_share_stderr: Number
    residual_diagonal: Number
    residual_diagonal_vanishes: bool | None
    loss_in_output: Literal["convex", "linear", "unknown"] | None = None
    indefinite_pair: Couple | None
    eigenvalue_bounds: Interval | None
    negative_certificate: Certificate | None = None
    frobenius_interval: list[Matrix] | None = None
    gauss_newton_interval: list[Matrix] | None = None
    residual_interval: list[Matrix] | None = None
    trace_interval: list[list[Number]] | None = None

    def __post_init__(self) -> None:
        """Lists and matrices have an entry for each layer, and both parts of the Hessian are there or neither."""
        columns = ("kinds", "sizes", "trace", "trace_stderr", "diagonal_mass", "diagonal_mass_stderr")
        same_length(names=self.names, **{name: getattr(self, name) for name in columns})
        matrices = ("frobenius", "gauss_newton", "residual")
        square(len(self.names), **{name: getattr(self, name) for name in matrices})
        square(len(self.names), **{f"{name}_stderr": getattr(self, f"{name}_stderr") for name in matrices})
        if (self.gauss_newton is None) != (self.residual is None):
            raise ValueError("one of `gauss_newton` and `residual` is null, and the other is not")


@dataclass(frozen=True, kw_only=True)
class Document(parts.Document):
    """The whole document."""

    result: Result
