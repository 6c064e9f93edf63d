"""Optimizers of torch without its compiler, which each of them imports to be made or to step: a second of every run."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import SpecError
from hessdiag.problem.problem import Problem

_MARK = "__dynamo_disable"  # where torch keeps a function as the compiler is to see it, once it has made that


@contextmanager
def uncompiled() -> Iterator[None]:
    """Make optimizers without importing the compiler, where it is not there yet; undone afterwards."""
    inner: Any = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    if "torch._dynamo" in sys.modules or inner is torch.optim.Optimizer.add_param_group or hasattr(inner, _MARK):
        yield
        return
    setattr(inner, _MARK, inner)
    try:
        yield
    finally:
        delattr(inner, _MARK)


def take_step(optimizer: torch.optim.Optimizer, loss: Callable[[], Any]) -> None:
    """Step once.

    Args:
        optimizer: Whose parameters hold their gradients.
        loss: Evaluates the loss and its gradient anew: for one that looks for its step by itself (LBFGS).

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> weight.grad = torch.ones(1)
    >>> take_step(torch.optim.SGD([weight], lr=0.25), lambda: None)
    >>> weight.item()
    0.75
    """
    stepper(optimizer, loss)()


def stepper(optimizer: torch.optim.Optimizer, loss: Callable[[], Any]) -> Callable[[], Any]:
    """What takes one step each time that it is called: as `take_step`, with nothing looked up again."""
    kind: Any = type(optimizer)
    if searches(optimizer):
        return lambda: optimizer.step(loss)
    if kind.__module__.startswith("torch.optim.") and "torch._dynamo" not in sys.modules:
        bare = inspect.unwrap(kind.step)  # as it is below what asks the compiler to keep out

        def step() -> Any:
            with torch.no_grad():
                bare(optimizer)

        return step
    return optimizer.step


def searches(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it evaluates the loss by itself as often as it likes, as LBFGS does."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def step_as_given(optimizer: torch.optim.Optimizer, name: str) -> None:
    """Step once along the gradients that lie there.

    Args:
        optimizer: Whose parameters hold their gradients.
        name: What people call it.

    Raises:
        SpecError: if it looks for its step by itself, or cannot step along a gradient that is given.
    """
    if searches(optimizer):
        raise SpecError(f"{name} looks for its step by itself.", "--optimizer adam")
    try:
        stepper(optimizer, lambda: None)()
    except RuntimeError as error:  # it differentiates gradients again, or takes sparse ones alone
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise SpecError(
            f"{name} cannot step on a gradient that is given to it: {reason}.", "--optimizer adam"
        ) from error


def forget_gradients(optimizer: torch.optim.Optimizer) -> None:
    """As `zero_grad`."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def give_gradients(problem: Problem, gradient: Tensor, model: nn.Module | None = None) -> None:
    """Lay a gradient where optimizers look for it, in place of what is there.

    Args:
        problem: Whose gradient it is.
        gradient: (N,).
        model: A copy of the problem's model, whose parameters get it instead.
    """
    own = dict((problem.model if model is None else model).named_parameters())
    for (name, parameter), place in zip(problem.named_parameters, problem.places(), strict=True):
        own[name].grad = gradient[place].view(parameter.shape).to(own[name])
