"""What a case is: a small model, its batches and its loss, beside the same function of all data written by hand."""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hessdiag.problem.batches import batch
from hessdiag.problem.problem import Problem

DEVICE = torch.device(
    os.environ.get("HESSDIAG_TEST_DEVICE", "cpu")
)  # where the product computes; oracles stay on the CPU
F64 = torch.float64


@dataclass(frozen=True)
class Case:
    """One architecture with one loss.

    Attributes:
        model: The network, in float64.
        data: Its batches, as a user gives them.
        value: The function whose Hessian is measured: of what the loss receives of *all* data at once where `received`
            is given, else of the model. It uses neither the product's objective nor its batch weights.
        loss: As a user gives it.
        objective: Likewise, instead of a loss.
        received: From a model to every tensor that the loss receives of all batches; G is J'BJ for these.
        oracle: "differences" of the gradient (fourth order, step 1e-3), or "double backward" where the network has
            kinks that such steps cross.
        weights: What each batch must weigh, where there are several.
        tolerance: Relative to the norm of the oracle's matrix.
        settings: More arguments of the problem.
    """

    model: nn.Module
    data: Sequence[Any]
    value: Callable[..., Tensor]
    loss: Any = None
    objective: Callable[[nn.Module, Any], Tensor] | None = None
    received: Callable[[nn.Module], Sequence[Tensor]] | None = None
    oracle: Literal["differences", "double backward"] = "differences"
    weights: Sequence[float] | None = None
    tolerance: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """The problem as a user states it."""
        model, data, loss = self.model, self.data, self.loss
        if DEVICE.type != "cpu":
            model, data = copy.deepcopy(model).to(DEVICE), [batch.to(one, DEVICE) for one in data]
            loss = copy.deepcopy(loss).to(DEVICE) if isinstance(loss, nn.Module) else loss
        return Problem(model, data=data, loss=loss, objective=self.objective, **self.settings)

    def whole(self, model: nn.Module) -> Tensor:
        """The function whose Hessian is measured."""
        return self.value(model) if self.received is None else self.value(*self.received(model))

    @property
    def allowed(self) -> float:
        """Relative error that the oracle explains."""
        return self.tolerance or 1e-9


CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    """Add a case to the table, under its function's name."""
    there = CASES.setdefault(build.__name__, build)
    if there.__code__.co_filename != build.__code__.co_filename:  # pytest's doctests import each file once more
        raise ValueError(f"two cases are called {build.__name__}")
    return build


def normal(*shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, dtype=F64)


def classes(count: int, *shape: int) -> Tensor:
    """Class labels, each class at least once where there is room."""
    return (
        torch.arange(int(torch.tensor(shape).prod()))
        .remainder(count)[torch.randperm(int(torch.tensor(shape).prod()))]
        .view(shape)
    )


def cut(x: Tensor, y: Tensor, *sizes: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of these sizes."""
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


class Net(nn.Module):
    """Named parts and a function of them and the inputs: a small model in two lines.

    A `name=tensor` becomes a parameter, a `name=module` a child.
    """

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if type(part) is Tensor else part)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.function(self, *inputs, **named)
