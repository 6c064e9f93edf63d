"""What damped Newton methods have in common: a line search, and damping by how well the model predicted."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.local import LocalGaussNewton, LocalHessian, gradient
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.optimizers.closure import NOISE, Closure, ClosureOptimizer
from hessdiag.optimizers.settings import Range, at_least_one, check_ranges, not_negative
from hessdiag.optimizers.step import Exit, Step

Matrix = LocalHessian | LocalGaussNewton
FIRST = 1e-2  # damping of the first step, relative to the curvature that was seen
LEAST, MOST = 1e-12, 1e3  # bounds of any step's, relative to the same
TRUSTED, DOUBTED = 0.75, 0.25  # rho from which damping is dropped, and below which it is boosted
RANGES: Mapping[str, Range] = {
    "damping": not_negative(1.0),
    "tolerance": (lambda value: 0 < value < 1, "above 0 and below 1", 0.1),
    "products": at_least_one(50),
    "decrease": (lambda value: 0 < value < 0.5, "above 0 and below 0.5", 1e-4),
    "halvings": (lambda value: value >= 0, "at least 0", 60),
    "drop": (lambda value: 0 < value <= 1, "above 0 and at most 1", 0.5),
    "boost": (lambda value: 1 <= value < math.inf, "at least 1, and finite", 1.5),
}
CUT = 0.25  # share of the direction up to which the line search itself says that damping was too small
CAUGHT_UP = 0.1  # how much of the damping that would have given the shorter step is taken over then


@dataclass(frozen=True)
class Direction:
    """Where a damped model leads.

    Attributes:
        vector: d, (n,).
        slope: g'd.
        curvature: d'Bd, of the undamped model.
        exit: How the solver ended.
        damping: With which it was found; 0 for none.
        least: Of the damping of the next step.
        most: Of the same.
    """

    vector: Tensor
    slope: float
    curvature: float
    exit: Exit
    damping: float
    least: float
    most: float


@dataclass(frozen=True)
class _Trial:
    """The last step that the line search tried: whether it was taken, which share of the direction, its length, rho."""

    taken: bool
    share: float
    length: float
    rho: float


class DampedNewton(ClosureOptimizer):
    """A direction of descent from a damped quadratic model, a line search along it, new damping by its success.

    The damping is kept in the group of parameters, and so in the `state_dict`.
    """

    def __init__(self, params: Iterable[Any], **settings: Any) -> None:
        check_ranges(settings, RANGES)
        super().__init__(params, settings)

    def step(self, closure: Closure, curvature: Closure | None = None) -> float:  # type: ignore[override]
        """Move once, or stay where loss, gradient or products are not finite or the gradient is zero.

        Args:
            closure: Returns the loss (Gauss-Newton: the loss and the model's output) with its graph, and does not go
                backward. It is called several times, and should be the same function each time: one batch. Dropout
                draws the same mask each time.
            curvature: The same of a part of the samples, for the matrix alone: 5 % in Chih-Jen Lin's simpleNN. The
                gradient and all values of the loss are those of `closure`. Default: `closure`.

        Returns:
            The loss before the step.

        Raises:
            SpecError: if a closure does not return what is needed.
            ComputeError: if what it returns cannot be differentiated twice.
        """
        group, start = self.param_groups[0], self.point()
        self.counted()
        found = trial = operator = None
        with self.unless_interrupted(start):
            loss, rounding, operator, slope, gradients = self._local(closure, curvature)
            if operator is not None and slope is not None and 0 < safe_norm(slope) < math.inf:
                found = self.direction(operator, slope)
            if found is not None and math.isfinite(found.slope) and math.isfinite(found.curvature):
                trial = self._searched(found, closure, start, loss, NOISE * rounding * abs(loss))
                group["damping"] = self._adapted(found, trial)
        self.last = Step(
            loss=loss,
            accepted=trial is not None and trial.taken,
            gradients=gradients,
            products=operator.products if operator is not None else 0,
            evaluations=self.counted(),
            length=trial.length if trial is not None else 0.0,
            rho=trial.rho if trial is not None else None,
            damping=group["damping"],
            exit=found.exit if found is not None else "none",
        )
        return loss

    def damping_at(self, scale: float) -> tuple[float, float, float]:
        """Damping of a step on which curvature of this size was seen, and the bounds of the next."""
        damping = self.param_groups[0]["damping"]
        least, most = (LEAST * scale, MOST * scale) if scale else (0.0, math.inf)
        damping = FIRST * scale if damping is None else damping
        return min(max(damping, least), most) if damping else 0.0, least, most

    @abstractmethod
    def direction(self, operator: Matrix, slope: Tensor) -> Direction | None:
        """Where to go from a gradient (n,) that is not zero; `None` where products are not finite."""

    def _matrix(self, value: Tensor, output: Any) -> Matrix:
        return LocalHessian(value, self.parameters)

    def _local(
        self, closure: Closure, curvature: Closure | None
    ) -> tuple[float, float, Matrix | None, Tensor | None, int]:
        """Loss, its unit of rounding, the matrix, the gradient, and how many gradients these took."""
        operator = None if curvature is None else self._matrix(*self.evaluate(curvature))
        value, output = self.evaluate(closure)  # last: random numbers of the line search are those drawn here
        loss, rounding = float(value.detach()), torch.finfo(value.dtype).eps
        if not math.isfinite(loss):
            return loss, rounding, operator, None, 0 if operator is None else operator.gradients
        if operator is None:
            operator = self._matrix(value, output)
            return loss, rounding, operator, operator.gradient, operator.gradients
        return loss, rounding, operator, gradient(value, self.parameters), 1 + operator.gradients

    def _searched(self, found: Direction, closure: Closure, start: Tensor, loss: float, noise: float) -> _Trial:
        """Halve the step until the loss decreases sufficiently (Armijo 1966), and leave the parameters there."""
        group, length = self.param_groups[0], safe_norm(found.vector)
        share, rho = 1.0, 1.0
        for halved in range(group["halvings"] + 1):
            share = 0.5**halved
            self.place(start + share * found.vector)
            actual = loss - self.value(closure)
            predicted = -share * (found.slope + share * found.curvature / 2)
            unseen = abs(actual) <= noise and abs(predicted) <= noise
            rho = 1.0 if unseen else actual / predicted
            if unseen or actual >= -group["decrease"] * share * found.slope:
                return _Trial(True, share, share * length, rho)
        self.place(start)
        return _Trial(False, share, share * length, rho)

    def _adapted(self, found: Direction, trial: _Trial) -> float | None:
        """Damping for the next step, by the rule of Levenberg (1944) and Marquardt (1963); none stays none."""
        group = self.param_groups[0]
        damping: float | None = group["damping"]
        if not found.damping:
            return damping
        if trial.share <= CUT:
            stiffness = -found.slope / (trial.length * safe_norm(found.vector))
            damping = max(found.damping * group["boost"], CAUGHT_UP * stiffness)
        else:
            factor = group["boost"] if trial.rho < DOUBTED else group["drop"] if trial.rho >= TRUSTED else 1.0
            damping = found.damping * factor
        return float(min(max(damping, found.least), found.most))
