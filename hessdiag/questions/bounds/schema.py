"""The document of `bounds`."""

from dataclasses import dataclass
from typing import Literal

from hessdiag.report.schema import parts
from hessdiag.report.schema.parts import Certificate, Count, Interval, Number


@dataclass(frozen=True, kw_only=True)
class Component:
    """A group of overlapping discs."""

    interval: Interval
    count: Count


@dataclass(frozen=True, kw_only=True)
class Result(parts.Measured):
    """The numbers of `bounds`."""

    method: Literal["exact", "sketch"]
    parameters: Count
    negative_certificate: Certificate
    gershgorin: Interval | None
    measured: Interval | None
    brauer: Interval | None
    perron: Interval | None
    block_norm: Interval | None
    feingold_varga: Interval | None
    frobenius: Interval | None
    inner: Interval | None
    measured_residuals: Interval | None
    measured_converged: tuple[bool, bool] | None
    relative_stderr: Number
    components: list[Component] | None
    rows: Count | None = None
    known_discs: Interval | None = None
    zero_rows: Count | None = None
    hvps: Count | None


@dataclass(frozen=True, kw_only=True)
class Document(parts.Document):
    """The whole document."""

    result: Result
