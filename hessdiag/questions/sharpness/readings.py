"""The kinds of sharpness, each from what is known of an optimizer's next step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from hessdiag.curvature.differences import CannotCopyError
from hessdiag.curvature.metric import Scaled
from hessdiag.curvature.point.line import LOSS_ROUNDING
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import inner
from hessdiag.optimizers.dual_norm import PRODUCTS, dual_norm
from hessdiag.optimizers.preconditioning import direction
from hessdiag.questions.common.runs.outlay import Basis
from hessdiag.questions.sharpness.along import trying
from hessdiag.questions.sharpness.critical import CriticalStep, critical_step
from hessdiag.questions.sharpness.largest import Largest, largest, overlap
from hessdiag.questions.sharpness.result import Kind, Reading
from hessdiag.questions.sharpness.standing import Standing

UPHILL = "the next step goes uphill at first: momentum carries it, and no learning rate is its edge"
STILL = "the next step is zero, to first order: there is no gradient along it"
UNSEEN = "not the curvature that the optimizer sees: it divides its steps entry by entry, or groups differ"
NO_EIGENVALUE = "the steps' size does not follow the gradient's: no eigenvalue is their edge"
NO_CONSTANT = "no threshold is derived for this optimizer"
NO_METRIC = "no optimizer steps in this metric"
FLAT = "the loss does not come back to its value within reach: it falls, or stays, along the whole step"
STEEP = "the loss rises at the shortest step that was tried"
COVERED = "rounding of the loss covers what the step changes"
FEW, LARGE = 4, 2**17  # products, where there are more parameters than this: polar factors take longer than they do
COVERING = 0.5  # of a critical step that rounding may move


@dataclass
class Here(Standing):
    """The same with all that readings need.

    Attributes:
        gradient: Of the loss, (N,), in float64; of a sharded problem this and all vectors are a process's pieces.
        space: How many vectors a search may hold.
        tol: Relative residual of eigenvalues.
        seed: Of random starts.
        precision: Relative error of products.
        tops: Eigenvectors that were found, with the scale of their metric.
    """

    gradient: Tensor
    space: Basis
    tol: float
    seed: int
    precision: float

    def __post_init__(self) -> None:
        self.tops: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.interrupted = False
        self.loss: float | None = None

    @cached_property
    def step(self) -> Tensor:
        """The next step per unit of the learning rate, (N,): d, where the weights become theta - lr d."""
        return -direction(self.problem, self.made, self.gradient).double() / self.made.lr

    @cached_property
    def slope(self) -> float:
        """By how much the loss falls at first along the step, per unit of the learning rate: g'd."""
        pull = self.gradient + self.decay * self.theta.double() if self.decays else self.gradient
        return inner(pull, self.step, self.spread)


def _of_eigenvalue(here: Here, kind: Kind, scale: Tensor | None, shift: Tensor | float) -> Reading:
    scaled: SymmetricOperator = here.operator
    if scale is not None or isinstance(shift, Tensor) or shift:
        scaled = Scaled(here.operator, scale, shift)
    found: Largest = largest(scaled, here.space, here.tol, here.seed, here.precision)
    here.interrupted |= found.interrupted
    here.tops[kind] = found.vector, scale
    return Reading(
        kind=kind,
        value=found.value,
        stderr=found.residual if found.converged and found.residual else None,
        error_of="residual" if found.converged and found.residual else None,
        bound=None if found.converged else "lower",
        passes=found.products,
    )


def against(reading: Reading, threshold: float) -> Reading:
    """A reading beside its threshold; without one, where weight decay alone is beyond it."""
    value, error = reading.value, reading.stderr
    if value is None or not threshold > 0:
        return reading
    beside = None if error is None else error / threshold
    return replace(reading, threshold=threshold, ratio=value / threshold, ratio_stderr=beside)


def lambda_max(here: Here) -> Reading:
    """The largest eigenvalue of the Hessian."""
    found = _of_eigenvalue(here, "lambda_max", None, 0.0)
    if not here.plain or here.edge is None or isinstance(here.decay, Tensor):
        return replace(found, why=NO_EIGENVALUE if here.metric is None or here.edge is None else UNSEEN)
    return against(found, here.edge - here.decay)  # what weight decay leaves of it


def preconditioned(here: Here) -> Reading:
    """The same in the optimizer's metric, weight decay that is part of the gradient included."""
    assert here.metric is not None
    scale = here.metric.double().rsqrt()  # zero where the optimizer does not move an entry
    found = _of_eigenvalue(here, "preconditioned", scale, here.decay)
    return against(found, here.edge) if here.edge is not None else replace(found, why=NO_CONSTANT)


def adaptive(here: Here) -> Reading:
    """Where each weight is measured by its own size: T H T with T = |w|, which rescaling of neurons leaves alone."""
    return replace(_of_eigenvalue(here, "adaptive", here.theta.abs(), 0.0), why=NO_METRIC)


def directional(here: Here) -> Reading:
    """The curvature along the next step, d'Hd / d'd: at 2 g'd / (lr d'd) that step leaves the loss where it is."""
    size = inner(here.step, here.step, here.spread)
    if not size:
        return Reading(kind="directional", value=None, why="the next step is zero")
    image = here.operator @ here.step.to(here.operator.dtype)
    bend = inner(here.step, image, here.spread)
    if here.decays:
        bend += inner(here.decay * here.step, here.step, here.spread)
    found = Reading(kind="directional", value=bend / size, passes=1)
    if not here.slope > 0:
        return replace(found, why=UPHILL if here.slope < 0 else STILL)
    return against(found, 2 * here.slope / (here.made.lr * size))


def critical(here: Here) -> Reading:
    """2 over the learning rate at which the next step leaves the loss where it is, by losses alone."""
    if not here.slope > 0:
        return Reading(kind="critical", value=None, why=UPHILL if here.slope < 0 else STILL)
    try:
        rounding = LOSS_ROUNDING * torch.finfo(here.problem.dtype).eps
        with trying(here.problem, here.step, here.decay) as loss:
            found = critical_step(_remembering(here, loss), here.slope, here.made.lr, rounding=rounding)
    except CannotCopyError as error:
        return Reading(kind="critical", value=None, why=f"no step can be tried: {error.what}")
    return against(_of_step(found), 2 / here.made.lr)


def _of_step(found: CriticalStep) -> Reading:
    empty = Reading(kind="critical", value=None, passes=found.passes)
    if found.step is None and not found.low:
        return replace(empty, value=2 / found.high, bound="lower", why=STEEP) if found.high < math.inf else empty
    if found.step is None:
        return replace(empty, value=2 / found.low, bound="upper", why=FLAT)
    if found.blur > COVERING:
        return replace(empty, why=COVERED)
    return replace(empty, value=found.sharpness, stderr=found.error, error_of="bracket")


def _remembering(here: Here, loss: Callable[[float], float]) -> Callable[[float], float]:
    """The same, which leaves in `here` what the loss is without a step."""

    def told(step: float) -> float:
        value = loss(step)
        if not step:
            here.loss = value
        return value

    return told


def muon(here: Here) -> Reading | None:
    """The largest curvature in the norm of Muon's steps, beside 2 |g|_* / lr; `None` for other optimizers."""
    if here.made.kind != "muon":
        return None
    gradient = here.gradient.to(here.operator.dtype)
    most = PRODUCTS if here.problem.n_parameters <= LARGE else FEW
    found = dual_norm(here.problem, here.operator, gradient, here.made, most=most, seed=here.seed)
    if found is None:
        return None
    reading = Reading(kind="dual", value=found.sharpness, bound="lower", passes=found.products)
    return against(reading, 2 * found.dual / here.made.lr)


def step_overlap(here: Here, kind: str) -> float | None:
    """|cos| between the next step and the top eigenvector of a kind, in its metric."""
    if kind not in here.tops:
        return None
    vector, scale = here.tops[kind]
    return overlap(vector, here.step, scale, here.spread)
