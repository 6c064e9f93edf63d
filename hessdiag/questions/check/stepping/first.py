"""The optimizer's first step on a network, and some more after it."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hessdiag.optimizers.update import forget_gradients, take_step
from hessdiag.problem.problem import Problem
from hessdiag.problem.seeds import sow

LARGE = 2**16  # numbers up to which arithmetic is cheap in float64


@dataclass(frozen=True)
class Slope:
    """The first batch's loss, and its gradient by each of the problem's parameters."""

    loss: float
    gradients: tuple[Tensor | None, ...]


@dataclass(frozen=True)
class FirstStep:
    """The optimizer's first step, tensor by tensor, in the order of the parameters.

    Attributes:
        weights: Before it.
        gradients: Of the loss; `None` where none arrived.
        changes: What the step added.
        before: The loss before it.
        after: The loss after it, with the same random numbers.
    """

    weights: tuple[Tensor, ...]
    gradients: tuple[Tensor | None, ...]
    changes: tuple[Tensor, ...]
    before: float
    after: float

    @cached_property
    def weight_squares(self) -> tuple[float, ...]:
        """Sums of squares of the weights, tensor by tensor."""
        return tuple(map(squares, self.weights))

    @cached_property
    def change_squares(self) -> tuple[float, ...]:
        """Sums of squares of the changes."""
        return tuple(map(squares, self.changes))

    @cached_property
    def predicted(self) -> float:
        """By how much the loss should fall by the gradient alone: minus its product with the change."""
        return -sum(product(g, d) for g, d in zip(self.gradients, self.changes, strict=True) if g is not None)


def first_step(problem: Problem, optimizer: torch.optim.Optimizer, slope: Slope | None = None) -> FirstStep | None:
    """Take the optimizer's first step with the first batch's gradient; `None` where no gradient arrives.

    The parameters are left where the step takes them.

    Args:
        problem: Whose parameters step.
        optimizer: Takes the step.
        slope: The loss and its gradient, where they are known; with the same random numbers as here.
    """
    batch, parameters = problem.data[0], problem.parameters
    forget_gradients(optimizer)
    if slope is None:
        value = _loss(problem, batch, draw=problem.seed)
        before = float(value.detach())
        if not value.requires_grad:
            return None
        torch.autograd.backward(value)
    else:
        before = slope.loss
        for parameter, gradient in zip(parameters, slope.gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.detach().clone()
    gradients = tuple(None if p.grad is None else p.grad.detach().to_dense().clone() for p in parameters)
    if all(gradient is None for gradient in gradients):
        return None
    weights = tuple(parameter.detach().clone() for parameter in parameters)
    _update(problem, optimizer, batch)
    changes = tuple(p.detach() - weight for p, weight in zip(parameters, weights, strict=True))
    after = float(_loss(problem, batch, draw=problem.seed).detach())
    return FirstStep(weights, gradients, changes, before, after)


def run(problem: Problem, optimizer: torch.optim.Optimizer, first: FirstStep, steps: int) -> tuple[float | None, ...]:
    """Go on from the first step, on the batches in turn; the losses before each step and after the last.

    A loss that is not finite ends it, as no number.
    """
    losses: list[float | None] = [finite(first.before)]
    if losses[0] is None:
        return tuple(losses)
    for index in range(1, steps + 1):
        batch = problem.data[index % len(problem.data)]
        value = _loss(problem, batch)
        losses.append(finite(float(value.detach())))
        if losses[-1] is None or index == steps:
            break
        forget_gradients(optimizer)
        torch.autograd.backward(value)
        _update(problem, optimizer, batch)
    return tuple(losses)


def _loss(problem: Problem, batch: Any, *, draw: int | None = None) -> Tensor:
    if draw is not None:
        sow(draw, problem.device)
    return problem.objective_function(problem.model, batch).reshape(())


def _update(problem: Problem, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    def again() -> Any:
        forget_gradients(optimizer)
        value = _loss(problem, batch, draw=problem.seed)
        torch.autograd.backward(value)
        return value

    take_step(optimizer, again)


def squares(tensor: Tensor) -> float:
    """The sum of squares."""
    return product(tensor, tensor)


def product(a: Tensor, b: Tensor) -> float:
    """The inner product, in float64; of tensors that are large for that, in float32, whose sums are split up."""
    dtype = torch.float64 if a.numel() <= LARGE or a.dtype == torch.float64 else torch.float32
    return float(torch.dot(a.reshape(-1).to(dtype), b.reshape(-1).to(dtype)))


def finite(value: float) -> float | None:
    """A number, or none where it is infinite or NaN."""
    return value if math.isfinite(value) else None
