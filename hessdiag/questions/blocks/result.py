"""What `blocks` finds, as numbers: norms of layer blocks, what they share out, and what they prove."""

from dataclasses import dataclass
from typing import Literal

from hessdiag.questions.common.certificate import Certificate
from hessdiag.questions.common.matrices import LossInOutput
from hessdiag.questions.common.measured import Measured

Matrix = list[list[float | None]]  # `None`: not measured
Interval = tuple[float, float]


@dataclass(frozen=True)
class IndefinitePair:
    """Two layers with |H_lm|^2 > |H_ll| |H_mm|, which no semidefinite matrix has; `ratio` is the quotient."""

    layers: tuple[str, str]
    ratio: float


@dataclass(frozen=True)
class Blocks(Measured):
    """Frobenius norms of the layer blocks of H = G + R, G the Gauss-Newton matrix and R the residual.

    Standard errors and 95 % intervals are `None` where numbers are exact; everything about G and R is `None` where the
    problem has no such split. Intervals of norms are not symmetric: the error is not for "plus or minus two". After an
    interrupt of what is exact, so is all that needs layers that were not done: blocks between two of them, their
    traces, and every number about the whole.

    Attributes:
        names: The L layers, in the order in which they are executed.
        kinds: Their classes.
        sizes: Their numbers of parameters.
        depths: How many layers that multiply by a matrix the data has passed with this one; `None` for those that are
            not on the longest way from the data to the loss (norms, scalars of the loss, shortcuts).
        parameters: N.
        frobenius: |H_lm|, (L, L), symmetric; with `frobenius_stderr` and `frobenius_interval` (lower ends, upper ends).
            So also below.
        gauss_newton: |G_lm|.
        residual: |R_lm|.
        trace: tr H_ll per layer.
        diagonal_mass: Sum of |H_ii| per layer; `None` if interrupted before.
        norm: |H|.
        split_missing: Why there is no G; `None` where there is.
        loss_in_output: What is known of the loss in what it receives: "convex", so that G is positive semidefinite;
            "linear" at this point, so that G is zero; or "unknown". `None` without G.
        loss_uses_parameters: Whether the loss depends on parameters by another way than the output, too: that part is
            in R. `None` without G.
        gauss_newton_norm: |G|.
        residual_norm: |R|.
        between_layers: Share of |H|^2 outside the layer-diagonal blocks.
        residual_share: |R|^2 / (|G|^2 + |R|^2).
        residual_diagonal: Norm of R's layer-diagonal blocks over |H|; zero to rounding where the output is piecewise
            linear in each layer's parameters.
        residual_diagonal_vanishes: Whether it is.
        indefinite_pair: The pair of layers that proves negative curvature most clearly; `None` where none does, or if
            norms are estimates.
        negative_certificate: Whether negative curvature is proven: by that pair, or by the trace of a block.
        eigenvalue_bounds: An interval from the matrices of norms alone that holds every eigenvalue; an estimate of it
            where norms are estimates.
        method: "exact" or "probes".
        probes: Random vectors per layer; 0 if exact.
        hvps: Hessian-vector products spent, self-checks not counted; a whole Hessian counts as N, by whatever route.
        engine: How products were computed.
        status: "ok", "inexact" (a self-check failed) or "interrupted".
    """

    names: list[str]
    kinds: list[str]
    sizes: list[int]
    depths: list[int | None]
    parameters: int
    frobenius: Matrix
    frobenius_stderr: Matrix | None
    frobenius_interval: tuple[Matrix, Matrix] | None
    gauss_newton: Matrix | None
    gauss_newton_stderr: Matrix | None
    gauss_newton_interval: tuple[Matrix, Matrix] | None
    residual: Matrix | None
    residual_stderr: Matrix | None
    residual_interval: tuple[Matrix, Matrix] | None
    split_missing: str | None
    loss_in_output: LossInOutput | None
    loss_uses_parameters: bool | None
    trace: list[float | None]
    trace_stderr: list[float] | None
    trace_interval: tuple[list[float], list[float]] | None
    diagonal_mass: list[float | None] | None
    diagonal_mass_stderr: list[float] | None
    norm: float | None
    norm_stderr: float | None
    norm_interval: Interval | None
    gauss_newton_norm: float | None
    gauss_newton_norm_stderr: float | None
    gauss_newton_norm_interval: Interval | None
    residual_norm: float | None
    residual_norm_stderr: float | None
    residual_norm_interval: Interval | None
    between_layers: float | None
    between_layers_stderr: float | None
    residual_share: float | None
    residual_share_stderr: float | None
    residual_diagonal: float | None
    residual_diagonal_vanishes: bool | None
    indefinite_pair: IndefinitePair | None
    negative_certificate: Certificate
    eigenvalue_bounds: tuple[float, float] | None
    method: Literal["exact", "probes"]
    probes: int
    hvps: int
    engine: str
