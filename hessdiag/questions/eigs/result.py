"""What `eigs` finds: both ends of a Hessian's spectrum."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from hessdiag.fields import Count, Interval, Number, Real, same_length
from hessdiag.questions.common.certificate import Certificate
from hessdiag.questions.common.inertia import Inertia
from hessdiag.questions.common.metric import Metric
from hessdiag.questions.common.result import Measured

if TYPE_CHECKING:
    from torch import Tensor

    Vectors: TypeAlias = Tensor | None
else:
    Vectors = None  # of a document, which holds none


@dataclass(frozen=True)
class Eigenpair:
    """One eigenvalue, with what its eigenvector says.

    Attributes:
        eigenvalue: The Ritz value.
        residual: |Hv - theta v|: an eigenvalue lies within this distance.
        converged: Whether the residual is within the tolerance, or at the level of rounding.
        gradient_overlap: |cos| of the angle between eigenvector and gradient; `None` where the gradient vanishes.
        layer_weights: Share of the eigenvector's squared norm in each layer; sums to 1.
        bound: What a Ritz value that has not converged is, by Cauchy's interlacing: the k-th lowest an "upper" bound of
            the k-th smallest eigenvalue, the k-th highest a "lower" one of the k-th largest. `None` if converged.
    """

    eigenvalue: Real
    residual: Real
    converged: bool
    gradient_overlap: Number
    layer_weights: tuple[Real, ...]
    bound: Literal["lower", "upper"] | None = None


@dataclass(frozen=True, kw_only=True)
class Eigs(Measured):
    """Both ends of a Hessian's spectrum.

    Attributes:
        lowest: The lowest eigenpairs, ascending.
        highest: The highest eigenpairs, ascending: the last is the largest.
        smallest: The first of `lowest`; `None` if none was asked for.
        smallest_is_bound: Whether it has not converged, so that the smallest eigenvalue is at or below it.
        largest: The last of `highest`.
        largest_is_bound: Likewise; the largest eigenvalue is at or above it.
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
        largest_step: 2 / lambda_max, beyond which gradient descent is unstable; `None` without positive curvature. In a
            metric the optimizer's threshold / lambda_max; `None` also where no threshold is known.
        largest_step_is_bound: Whether the largest Ritz value has not converged, so that the limit is at or below it.
        gradient_norm: |g|; in a metric of P^(-1/2) g.
        gradient_curvature: g'Hg / g'g, the curvature along the gradient; `None` where the gradient vanishes. In a
            metric d'Hd / d'Pd, along d = P^(-1) g.
        negative_certificate: Whether negative curvature is proven: by a Ritz vector of either end, the gradient, or the
            whole spectrum.
        hvps: Hessian-vector products spent, self-checks not counted; a whole Hessian counts as N, by whatever route.
        basis: The most vectors held.
        restarts: How often the basis was compressed.
        engine: How products were computed.
        metric: The metric P that all numbers are in, those of P^(-1/2) H P^(-1/2); `None` for H itself.
        vectors: Eigenvectors as columns, lowest then highest, (N, lowest + highest); `None` if not kept, or read
            from a document.
        scale: P^(-1/2), (N,): in a metric, an eigenvector v is the direction scale * v of the parameters; `None` of H
            itself, and where vectors are.
    """

    command: ClassVar[str] = "eigs"

    lowest: tuple[Eigenpair, ...]
    highest: tuple[Eigenpair, ...]
    smallest: Number
    smallest_is_bound: bool | None = None
    largest: Number
    largest_is_bound: bool | None = None
    method: Literal["exact", "lanczos"]
    parameters: Count
    zero_rows: Count = 0
    untouched: Count = 0
    layers: tuple[str, ...]
    tol: Real
    rounding: Real
    ritz_range: Interval | None = None
    inertia: Inertia | None
    spectrum: tuple[Real, ...] | None
    largest_step: Number
    largest_step_is_bound: bool | None = None
    gradient_norm: Number
    gradient_curvature: Number
    negative_certificate: Certificate
    hvps: Count
    basis: Count
    restarts: Count | None
    engine: str = ""
    metric: Metric | None = None
    vectors: Vectors = field(default=None, repr=False, compare=False, metadata={"apart": True})
    scale: Vectors = field(default=None, repr=False, compare=False, metadata={"apart": True})

    def __post_init__(self) -> None:
        """Each pair has a weight for each layer, and all eigenvalues come with what counts as zero."""
        for pair in (*self.lowest, *self.highest):
            same_length(layers=self.layers, layer_weights=pair.layer_weights)
        if self.spectrum is not None and self.inertia is None:
            raise ValueError("`inertia` is missing beside `spectrum`")
