"""What `bounds` finds: intervals that hold every eigenvalue, beside the measured extremes."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from hessdiag.fields import Count, Interval, Number
from hessdiag.linalg.component import Component
from hessdiag.questions.common.certificate import Certificate
from hessdiag.questions.common.metric import Metric
from hessdiag.questions.common.result import Measured

NAMES = {  # of the intervals, as sentences call them
    "gershgorin": "Gershgorin's discs",
    "brauer": "Brauer's ovals",
    "perron": "the Perron-scaled discs",
    "feingold_varga": "discs of layers (Feingold and Varga)",
    "block_norm": "the layers' block norms",
    "frobenius": "trace and Frobenius norm",
}


@dataclass(frozen=True, kw_only=True)
class Bounds(Measured):
    """Intervals that hold every eigenvalue of a Hessian. One that needs more of H than was computed is `None`.

    So are all of them after an interrupt before every row was done: sums of some rows bound nothing.

    Attributes:
        gershgorin: Hull of the discs around the diagonal, with the rows' absolute sums for radii.
        brauer: From pairs of rows (ovals of Cassini); within Gershgorin's.
        perron: Gershgorin's after the best diagonal scaling at each end; within Brauer's.
        block_norm: From the extremes of layer-diagonal blocks and the spectral norms of the others.
        feingold_varga: Gershgorin's by layers instead of rows; around `block_norm`.
        frobenius: From trace and Frobenius norm alone (Wolkowicz and Styan).
        inner: What the matrix's own entries and blocks prove from inside: an eigenvalue at or below the first, and
            one at or above the second.
        measured: Lowest and highest Ritz value. One that has not converged is a bound: the lowest eigenvalue is at or
            below it, or the highest at or above.
        measured_residuals: Their true residuals: an eigenvalue lies within each of its Ritz value.
        measured_converged: Whether each reached the relative residual 1e-3.
        method: "exact", or "sketch": the largest row sums come from random products and are estimates.
        relative_stderr: Relative standard error of sketched row sums; `None` when exact.
        components: Connected parts of the union of discs, ascending; `None` if sketched.
        parameters: N.
        rows: How many of them are known exactly.
        known_discs: After an interrupt before every row was done: the hull of the discs of those that were. Each of
            these discs holds an eigenvalue, for the matrix is symmetric; others may lie anywhere.
        zero_rows: Rows of parameters that the batches do not touch: they are zero, were left out, and their eigenvalues
            are in every interval; 0 unless they are a tenth of more than 5,000.
        negative_certificate: Whether H certainly has a negative eigenvalue.
        hvps: Products spent, self-checks not counted; a whole matrix counts as N, by whatever route.
        engine: How products were computed.
        metric: The metric P that all numbers are in, those of P^(-1/2) H P^(-1/2); `None` for H itself.
    """

    command: ClassVar[str] = "bounds"

    gershgorin: Interval | None
    brauer: Interval | None
    perron: Interval | None
    block_norm: Interval | None
    feingold_varga: Interval | None
    frobenius: Interval | None
    inner: Interval | None
    measured: Interval | None
    measured_residuals: Interval | None
    measured_converged: tuple[bool, bool] | None
    method: Literal["exact", "sketch"]
    relative_stderr: Number
    components: tuple[Component, ...] | None
    parameters: Count
    rows: Count = 0
    known_discs: Interval | None = None
    zero_rows: Count = 0
    negative_certificate: Certificate
    hvps: Count
    engine: str = ""
    metric: Metric | None = None

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The bounds that were computed, by name."""
        return {name: ends for name in NAMES if (ends := getattr(self, name)) is not None}
