"""What `eigs` finds: both ends of a Hessian's spectrum."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from hessdiag.questions.common.certificate import Certificate
from hessdiag.questions.common.inertia import Inertia
from hessdiag.questions.common.measured import Measured

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Eigenpair:
    """One eigenvalue, with what its eigenvector says.

    Attributes:
        eigenvalue: The Ritz value.
        residual: |Hv - theta v|: an eigenvalue lies within this distance.
        converged: Whether the residual is within the tolerance, or at the level of rounding.
        bound: What a Ritz value that has not converged is, by Cauchy's interlacing: the k-th lowest an "upper" bound of
            the k-th smallest eigenvalue, the k-th highest a "lower" one of the k-th largest. `None` if converged.
        gradient_overlap: |cos| of the angle between eigenvector and gradient; `None` where the gradient vanishes.
        layer_weights: Share of the eigenvector's squared norm in each layer; sums to 1.
    """

    eigenvalue: float
    residual: float
    converged: bool
    bound: Literal["lower", "upper"] | None
    gradient_overlap: float | None
    layer_weights: tuple[float, ...]


@dataclass(frozen=True)
class Eigs(Measured):
    """Both ends of a Hessian's spectrum.

    Attributes:
        lowest: The lowest eigenpairs, ascending.
        highest: The highest eigenpairs, ascending: the last is the largest.
        method: "exact" (all eigenvalues, by LAPACK) or "lanczos".
        parameters: N.
        zero_rows: Rows of H that are exactly zero, left out of all vectors and counted as zero eigenvalues; 0 unless
            they are a tenth of more than 2,000.
        untouched: How many of them belong to parameters that the batches do not touch.
        layers: Names of the layers that `layer_weights` counts.
        tol: Relative residual asked for.
        rounding: Residual and eigenvalue below which rounding rules.
        ritz_range: Smallest and largest Ritz value of the whole run, wanted or not: the spectrum reaches that far.
            `None` where an interrupt came before any.
        inertia: Signs of all eigenvalues; `None` unless exact.
        spectrum: All eigenvalues but those of `zero_rows`, ascending; `None` unless exact.
        largest_step: 2 / lambda_max, beyond which gradient descent is unstable; `None` without positive curvature. If
            the largest Ritz value has not converged, it is an upper bound of that limit.
        gradient_norm: |g|.
        gradient_curvature: g'Hg / g'g, the curvature along the gradient; `None` where the gradient vanishes.
        negative_certificate: Whether negative curvature is proven: by a Ritz vector of either end, the gradient, or the
            whole spectrum.
        hvps: Hessian-vector products spent, self-checks not counted; a whole Hessian counts as N, by whatever route.
        basis: The most vectors held.
        restarts: How often the basis was compressed.
        engine: How products were computed.
        status: "ok", "inexact" (a self-check failed, or a pair did not converge) or "interrupted".
        vectors: Eigenvectors as columns, lowest then highest, (N, lowest + highest); `None` if not kept.
    """

    lowest: tuple[Eigenpair, ...]
    highest: tuple[Eigenpair, ...]
    method: Literal["exact", "lanczos"]
    parameters: int
    zero_rows: int
    untouched: int
    layers: tuple[str, ...]
    tol: float
    rounding: float
    ritz_range: tuple[float, float] | None
    inertia: Inertia | None
    spectrum: tuple[float, ...] | None
    largest_step: float | None
    gradient_norm: float | None
    gradient_curvature: float | None
    negative_certificate: Certificate
    hvps: int
    basis: int
    restarts: int
    engine: str
    vectors: "Tensor | None" = field(default=None, repr=False, compare=False)

    def to_result(self) -> dict[str, Any]:
        """The document's "result"."""
        numbers = Measured.to_result(replace(self, vectors=None))  # with them, a copy of all eigenvectors would be made
        del numbers["vectors"]
        bounded = bool(self.highest) and self.highest[-1].bound is not None
        ends = {
            "smallest": self.lowest[0].eigenvalue if self.lowest else None,
            "smallest_is_bound": bool(self.lowest) and self.lowest[0].bound is not None,
            "largest": self.highest[-1].eigenvalue if self.highest else None,
            "largest_is_bound": bounded,
            "largest_step_is_bound": bounded and self.largest_step is not None,
        }
        return numbers | ends
