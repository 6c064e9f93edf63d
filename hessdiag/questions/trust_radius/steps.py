"""Steps of the quadratic model, and what becomes of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hessdiag.curvature.point.gates import RESOLVED, Gates
from hessdiag.curvature.point.line import LOSS_ROUNDING
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.quadratic.step import ModelStep
from hessdiag.linalg.tridiagonal import inner
from hessdiag.linalg.trust_region import gltr, steihaug
from hessdiag.machine import capacity
from hessdiag.questions.trust_radius.result import Radius

MOST = 50  # products of a step
EXACT = 1e-2  # relative residual of what is taken for the model's minimum


class Remembering:
    """An operator that gives the products it has formed already without forming them again: steps share a Krylov space.

    Args:
        operator: The matrix.
        most: Products that are kept, each with its vector.

    Attributes:
        products: That were formed.
    """

    def __init__(self, operator: SymmetricOperator, most: int) -> None:
        self._operator, self._most = operator, most
        self._known: list[tuple[Tensor, Tensor]] = []
        self.products = 0
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """A @ v with v of shape (n,)."""
        if (image := self._formed(vectors)) is not None:
            return image.clone()
        image = self._operator @ vectors
        self.products += 1
        if len(self._known) < self._most:
            self._known.append((vectors.clone(), image.clone()))
        return image

    def _formed(self, vector: Tensor) -> Tensor | None:
        """Its product, if that is kept."""
        if self._known and capacity.of(vector.device).gathers:  # one wait, where each comparison would be one
            same = iter(torch.stack([(known == vector).all() for known, _ in self._known]).tolist())
        else:
            same = (torch.equal(known, vector) for known, _ in self._known)
        return next((image for (_, image), found in zip(self._known, same, strict=True) if found), None)


@dataclass(frozen=True)
class Stepper:
    """Takes the model's step at a radius, in one metric, and looks where it leads.

    Attributes:
        norm: Name of the metric.
        metric: Its diagonal, (n,); `None` for the uniform one.
        operator: The Hessian.
        gradient: (n,).
        gates: The loss away from here.
        eps: Rounding of the loss.
        lanczos: Products for the step of GLTR; 0 where there is no room for its vectors.
    """

    norm: str
    metric: Tensor | None
    operator: SymmetricOperator
    gradient: Tensor
    gates: Gates
    eps: float
    lanczos: int

    def at(self, radius: float) -> Radius:
        """The step whose root mean square in the metric is at most `radius`."""
        unit = math.sqrt(len(self.gradient))
        taken = self._step(steihaug, radius * unit, MOST)
        slope = -inner(self.gradient, taken.step)
        ahead = self.gates.at(taken.step.double())
        return Radius(
            radius=radius,
            norm=self.norm,
            rho=self._rho(taken.decrease, ahead.loss),
            exit=taken.exit,
            products=taken.products,
            reach=taken.length / unit,
            quadratic_share=abs(taken.decrease - slope) / slope if slope > 0 else None,
            gates_flipped=self.gates.share(ahead),
            rho_frozen_gates=None if ahead.frozen is None else self._rho(taken.decrease, ahead.frozen),
            missing_share=self.gates.missing(ahead, slope - taken.decrease, self.eps),
            cauchy=self._beside(taken, steihaug, radius * unit, 1),
            gltr=self._beside(taken, partial(gltr, tolerance=EXACT), radius * unit, self.lanczos),
            decrease=taken.decrease,
        )

    def _step(self, solve: Callable[..., ModelStep], radius: float, most: int) -> ModelStep:
        return solve(self.operator, self.gradient, radius, metric=self.metric, most=most)

    def _beside(self, taken: ModelStep, solve: Callable[..., ModelStep], radius: float, most: int) -> float | None:
        """The model's decrease by another solver, over that of the step taken."""
        if not most or not taken.decrease > 0:
            return None
        return self._step(solve, radius, most).decrease / taken.decrease

    def _rho(self, predicted: float, loss: float) -> float | None:
        """Actual over predicted decrease; `None` where rounding of the loss covers it."""
        if not predicted > 0 or self._noise(loss) > RESOLVED * max(predicted, abs(self.gates.loss - loss)):
            return None
        return (self.gates.loss - loss) / predicted

    def _noise(self, loss: float) -> float:
        largest = max(abs(self.gates.loss), abs(loss))
        return LOSS_ROUNDING * self.eps * largest if math.isfinite(largest) else 0.0
