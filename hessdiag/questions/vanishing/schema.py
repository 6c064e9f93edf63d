"""The document of `vanishing`."""

from dataclasses import dataclass
from typing import Literal

from hessdiag.report.schema import parts
from hessdiag.report.schema.parts import Count, Number, OwnProblem, ascending


@dataclass(frozen=True, kw_only=True)
class Norm:
    """How a norm is distributed over networks."""

    median: Number
    mean: Number
    q05: Number
    q95: Number
    rms: Number
    log_median: Number = None
    log_median_stderr: Number
    networks: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Theory:
    """Exact values of some norms."""

    gradient: Number = None
    hessian: Number = None
    hessian_diagonal_blocks: Number = None
    hessian_offdiagonal_blocks: Number = None
    vjp: Number = None


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Networks of one depth."""

    depth: Count
    seeds: Count
    hessian_seeds: Count
    gradient_norm: Norm
    hessian_norm: Norm
    hessian_diagonal_blocks_norm: Norm
    hessian_offdiagonal_blocks_norm: Norm
    hessian_diag_share: Norm | Number
    dead_fraction: Number
    width: Count | None
    parameters: Count | None = None
    vjp_norm: Norm | None
    theory_median: Theory | None = None
    theory_rms: Theory | None
    certified_indefinite: Number = None
    hessian_probe_error: Number = None
    path_width: Number = None
    effective_width: Number = None
    effective_width_stderr: Number = None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of the deepest network."""

    layer: Count
    gradient_norm: Norm
    hessian_block_norm: Norm | None
    name: str | None = None
    parameters: Count | None = None
    path_width: Number = None
    effective_width: Number = None
    effective_width_stderr: Number = None


@dataclass(frozen=True, kw_only=True)
class Rate:
    """By how much the log of a median changes with each layer."""

    per_layer: Number
    per_layer_stderr: Number
    theory_per_layer: Number
    from_depth: Count | None = None
    to_depth: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Rates:
    """All of them, as far as they were measured."""

    gradient: Rate | None = None
    hessian: Rate | None = None
    hessian_diagonal_blocks: Rate | None = None
    hessian_offdiagonal_blocks: Rate | None = None
    vjp: Rate | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A log-median beside its exact value."""

    depth: Count
    quantity: str
    measured_log_median: Number
    stderr: Number
    theory_log_median: Number
    z: Number


@dataclass(frozen=True, kw_only=True)
class Result:
    """The numbers of `vanishing`."""

    width: Count | Literal["same"] | None
    init: str | None
    distribution: str | None
    activation: str | None
    seeds: Count
    batch: Count | None
    depths: list[Depth]
    layers: list[Layer]
    rates: Rates
    agreement: list[Comparison] | None

    def __post_init__(self) -> None:
        """Depths and layers ascend."""
        ascending(depths=[entry.depth for entry in self.depths], layers=[entry.layer for entry in self.layers])


@dataclass(frozen=True, kw_only=True)
class Document(parts.Document):
    """The whole document."""

    problem: OwnProblem  # type: ignore[assignment]
    result: Result
