"""What `precondition` finds: what each preconditioner does for the condition number, and what it holds."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from hessdiag.fields import Count, Interval, Number, Real
from hessdiag.questions.common.result import Measured


@dataclass(frozen=True, kw_only=True)
class Preconditioned:
    """One preconditioner P, and the damped curvature A = H+ + mu I after it, with the same damping: B = P + mu I.

    Attributes:
        name: Of its kind.
        numbers_held: That whoever applies it holds.
        condition: Of B^(-1/2) (H+ + mu I) B^(-1/2), H+ the positive part of H: largest over smallest eigenvalue.
        condition_interval: Between what it is, where small eigenvalues are not resolved; `None` where exact.
        condition_absolute: The same of |H| + mu I, which turns negative curvature around.
        condition_absolute_interval: Likewise.
        effective_dimension: Sum of m / (m + d) over the positive eigenvalues m of B^(-1/2) H B^(-1/2), with d the
            relative damping times the largest: about how many directions are curved.
        effective_dimension_stderr: Its standard error; `None` where exact.
        cg_iterations: Of preconditioned conjugate gradients for (H+ + mu I) s = -g, until the error in the energy norm
            has fallen to the tolerance; from the gradient's spectral measure. `None` where the gradient
            vanishes, or negative curvature was not resolved.
        cg_unfinished: Whether they are more than that.
        frontier: Whether no other is better conditioned and holds no more.
        notes: How it was made.
    """

    name: str
    numbers_held: Count
    condition: Number
    condition_interval: Interval | None = None
    condition_absolute: Number = None
    condition_absolute_interval: Interval | None = None
    effective_dimension: Number
    effective_dimension_stderr: Number = None
    cg_iterations: Count | None
    cg_unfinished: bool = False
    frontier: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A preconditioner that could not be made, and why."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Precondition(Measured):
    """What each preconditioner does for the condition number of a Hessian.

    Attributes:
        preconditioners: Those that are finished, `none` first.
        left_out: Those that this problem has none of.
        damping: Relative to the largest magnitude of an eigenvalue.
        shift: The same, absolute: mu.
        tol: Of conjugate gradients.
        method: "exact" (all eigenvalues, by LAPACK) or "lanczos".
        parameters: N.
        largest: Largest eigenvalue of H.
        smallest: Smallest.
        resolved: How many eigenpairs of H were found.
        unresolved: All others are at most that large in magnitude; 0 where exact.
        unresolved_negative: And at most that far below zero.
        gradient_norm: |g|.
        sharing: Whether a layer multiplies several positions of a sample (tokens, patches) by one matrix: K-FAC takes
            them for samples (expand).
        draws: Random gradients that stand for those of each sample; `None` where all were taken.
        optimizer: Whose second moments are among the preconditioners, with its settings.
        optimizer_name: What that one is called among them.
        optimizer_state: Where they are from: "checkpoint", "optimizer", or "gradients" of the batches here.
        hvps: Products with H spent, self-checks not counted; a whole Hessian counts as N.
        engine: How they were computed.
    """

    command: ClassVar[str] = "precondition"

    preconditioners: tuple[Preconditioned, ...]
    left_out: tuple[LeftOut, ...] = ()
    damping: Real
    shift: Number
    tol: Real
    method: Literal["exact", "lanczos"]
    parameters: Count
    largest: Number
    smallest: Number
    resolved: Count
    unresolved: Number
    unresolved_negative: Number = None
    gradient_norm: Number
    sharing: bool = False
    draws: Count | None = None
    optimizer: str = ""
    optimizer_name: str = "adam"
    optimizer_state: Literal["checkpoint", "optimizer", "gradients"] = "gradients"
    hvps: Count
    engine: str = ""

    def of(self, name: str) -> Preconditioned | None:
        """The one of a name; `None` where it is not among those finished."""
        return next((row for row in self.preconditioners if row.name == name), None)
