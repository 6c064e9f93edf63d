"""What `blocks` finds, as numbers: norms of layer blocks, what they share out, and what they prove."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from hessdiag.fields import Count, Interval, Matrix, NonEmpty, Number, Numbers, Real, same_length, square
from hessdiag.questions.common.certificate import UNKNOWN, Certificate
from hessdiag.questions.common.matrices import LossInOutput
from hessdiag.questions.common.result import Measured


@dataclass(frozen=True)
class IndefinitePair:
    """Two layers with |H_lm|^2 > |H_ll| |H_mm|, which no semidefinite matrix has; `ratio` is the quotient."""

    layers: tuple[str, str]
    ratio: Real


@dataclass(frozen=True, kw_only=True)
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
        weight_gains: Root mean square of each layer's weights times the root of the number of its inputs; `None` for
            layers that multiply by no matrix, and as a whole in older documents.
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
        residual_diagonal_vanishes: Whether it is; `None` where that could not be told.
        indefinite_pair: The pair of layers that proves negative curvature most clearly; `None` where none does, or if
            norms are estimates.
        negative_certificate: Whether negative curvature is proven: by that pair, or by the trace of a block.
        eigenvalue_bounds: An interval from the matrices of norms alone that holds every eigenvalue; an estimate of it
            where norms are estimates.
        method: "exact" or "probes".
        probes: Random vectors per layer; 0 if exact.
        hvps: Hessian-vector products spent, self-checks not counted; a whole Hessian counts as N, by whatever route.
        engine: How products were computed.
    """

    command: ClassVar[str] = "blocks"

    names: NonEmpty[str]
    kinds: tuple[str, ...]
    sizes: tuple[Count, ...]
    depths: tuple[Count | None, ...] = ()
    weight_gains: Numbers | None = None
    parameters: Count
    frobenius: Matrix
    frobenius_stderr: Matrix | None
    frobenius_interval: tuple[Matrix, Matrix] | None = None
    gauss_newton: Matrix | None
    gauss_newton_stderr: Matrix | None
    gauss_newton_interval: tuple[Matrix, Matrix] | None = None
    residual: Matrix | None
    residual_stderr: Matrix | None
    residual_interval: tuple[Matrix, Matrix] | None = None
    split_missing: str | None = None
    loss_in_output: LossInOutput | None = None
    loss_uses_parameters: bool | None = None
    trace: Numbers
    trace_stderr: Numbers | None
    trace_interval: tuple[Numbers, Numbers] | None = None
    diagonal_mass: Numbers | None
    diagonal_mass_stderr: Numbers | None
    norm: Number
    norm_stderr: Number
    norm_interval: Interval | None = None
    gauss_newton_norm: Number
    gauss_newton_norm_stderr: Number
    gauss_newton_norm_interval: Interval | None = None
    residual_norm: Number
    residual_norm_stderr: Number
    residual_norm_interval: Interval | None = None
    between_layers: Number
    between_layers_stderr: Number
    residual_share: Number
    residual_share_stderr: Number
    residual_diagonal: Number
    residual_diagonal_vanishes: bool | None
    indefinite_pair: IndefinitePair | None
    negative_certificate: Certificate = UNKNOWN
    eigenvalue_bounds: Interval | None
    method: Literal["exact", "probes"]
    probes: Count
    hvps: Count
    engine: str = ""

    def __post_init__(self) -> None:
        """Lists and matrices have an entry for each layer, and both parts of the Hessian are there or neither."""
        same_length(
            names=self.names,
            kinds=self.kinds,
            sizes=self.sizes,
            trace=self.trace,
            trace_stderr=self.trace_stderr,
            diagonal_mass=self.diagonal_mass,
            weight_gains=self.weight_gains,
            diagonal_mass_stderr=self.diagonal_mass_stderr,
        )
        square(
            len(self.names),
            frobenius=self.frobenius,
            gauss_newton=self.gauss_newton,
            residual=self.residual,
            frobenius_stderr=self.frobenius_stderr,
            gauss_newton_stderr=self.gauss_newton_stderr,
            residual_stderr=self.residual_stderr,
        )
        if (self.gauss_newton is None) != (self.residual is None):
            raise ValueError("one of `gauss_newton` and `residual` is null, and the other is not")
