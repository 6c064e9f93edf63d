"""What a training step's loss is: the one call of a loss of torch's whose value it returns, seen and not guessed."""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hessdiag.problem.graph import behind
from hessdiag.problem.lightning.step import NAME, TrainingStep
from hessdiag.problem.losses import averages, criteria
from hessdiag.problem.losses.loss import Loss, Objective, resolve
from hessdiag.problem.losses.recognised import OF_AN_OBJECTIVE, OwnLoss, Recognition

ALONE = 1e-5  # relative: what rounding may make of a product in single precision
SAME = 1e-6  # relative difference of multiples of a loss that are one
_WHAT = f"the {NAME} does not return one of torch's losses as it is, or a multiple of one"


@dataclass(frozen=True)
class Call:
    """A call of one of torch's losses.

    Attributes:
        loss: Which, with its settings.
        received: What it was given of the model.
        target: What it was given to compare with.
        multiple: How many times its value is returned.
    """

    loss: Callable[..., Tensor]
    received: Any
    target: Any
    multiple: float = 1.0


class _Watch(TorchFunctionMode):
    """Remembers what torch's losses were called with, and returned."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Callable[..., Tensor], tuple[Any, ...], Mapping[str, Any]]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        returned = func(*args, **(kwargs or {}))
        if func in criteria.FUNCTIONS:
            self.calls.append((returned, func, args, kwargs or {}))
        return returned


@dataclass(frozen=True)
class StepLoss(OwnLoss):
    """The loss of torch's that a training step returns, as a function of what it is given there.

    Attributes:
        step: From the model and a batch to the call.
        multiple: How many times its value is returned.
    """

    step: Callable[[nn.Module, Any], Call | str] = lambda model, batch: ""
    multiple: float = 1.0

    @property
    def is_plain(self) -> bool:
        """As of any loss."""
        return self.multiple == 1.0

    @property
    def is_likelihood(self) -> bool:
        """Whether it is a likelihood's: a multiple is one of squared errors alone, with another variance of noise."""
        return super().is_likelihood and (self.multiple == 1.0 or self.kind == "mse")

    def parts(self, model: nn.Module, batch: Any) -> tuple[Any, Any]:
        """What the loss is given of the model, and the target, in the training step on this batch."""
        with torch.enable_grad():  # by which a multiple is told
            found = self.step(model, batch)
        if isinstance(found, str):
            raise ValueError(f"the {NAME} does not return the loss that it returned first: {found}")
        return found.received, found.target


def recognise(
    model: nn.Module,
    data: Sequence[Any],
    objective: Objective,
    evaluation: Callable[[], AbstractContextManager[None]],
) -> Recognition:
    """Find out whether a training step returns one of torch's losses, on all batches; others are not looked at.

    Args:
        model: A LightningModule.
        data: Its batches.
        objective: Its training step.
        evaluation: In which the model is to be called.
    """
    if not isinstance(objective, TrainingStep):
        return OF_AN_OBJECTIVE
    first: Loss | None = None
    multiple = 1.0
    for batch in data:
        with torch.enable_grad(), evaluation():
            found = watched(objective, model, batch)
        if isinstance(found, str):
            return Recognition(None, found, _WHAT)
        loss = resolve(found.loss)
        if first is not None and (first.kind, *_settings(first)) != (loss.kind, *_settings(loss)):
            return Recognition(None, "it is another loss for another batch", _WHAT)
        if first is not None and abs(found.multiple - multiple) > SAME * multiple:
            return Recognition(None, f"it is another multiple of {first.name} for another batch", _WHAT)
        first, multiple = first or loss, found.multiple if first is None else multiple
    assert first is not None
    known = {one.name: getattr(first, one.name) for one in fields(Loss)}
    times = f"{multiple:g} times " * (multiple != 1.0)
    definition = f"the {NAME}, which is {times}torch's {first.name} ({first.reduction})"
    function = first.function if multiple == 1.0 else functools.partial(_times, multiple, first.function)
    own = {**known, "name": NAME, "function": function, "definition": definition, "multiple": multiple}
    return Recognition(StepLoss(**own, step=functools.partial(watched, objective)))


def _times(multiple: float, function: Callable[[Any, Any], Tensor], output: Any, target: Any) -> Tensor:
    return multiple * function(output, target)


def terms(loss: Loss | None, model: nn.Module, batch: Any) -> averages.Terms:
    """What the loss of a batch is a mean of, where it is known to be a `StepLoss`; else samples."""
    if not isinstance(loss, StepLoss):
        return averages.of_batch(batch)
    received, target = loss.parts(model, batch)
    return averages.of_loss(loss, (None, target), received)


def _settings(loss: Loss) -> Iterator[Any]:
    for name in sorted(loss.options):
        value = loss.options[name]
        yield value.tolist() if isinstance(value, Tensor) else value


def watched(objective: TrainingStep, model: nn.Module, batch: Any) -> Call | str:
    """The call of a loss of torch's whose value the training step returns; or why there is none."""
    watch = _Watch()
    with watch:
        value = objective(model, batch)
    as_it_is = ((1.0, call) for call in watch.calls if call[0] is value)
    times = ((multiple, call) for call in watch.calls if (multiple := _multiple(value, call[0])) is not None)
    multiple, call = next(itertools.chain(as_it_is, times), (1.0, None))
    if call is None:
        seen = sorted({func.__name__ for _, func, _, _ in watch.calls})
        return f"it computes {' and '.join(seen)}, and returns more" if seen else "it calls no loss of torch's"
    _, function, args, keywords = call
    given = dict(inspect.signature(function).bind(*args, **keywords).arguments)
    received, target = given.pop("input"), given.pop("target")
    settings = {name: item for name, item in given.items() if item is not None}
    loss = functools.partial(function, **settings)
    if criteria.recognised(loss) is None:
        return f"it calls {function.__name__} with {', '.join(sorted(settings))}"
    if any(isinstance(item, Tensor) and item.requires_grad for item in (target, *settings.values())):
        return f"what {function.__name__} compares with depends on parameters"
    if multiple != 1.0 and resolve(loss).reduction != "mean":  # of a sum it may be what makes it a mean
        return f"it returns {multiple:g} times a {function.__name__} that is no mean"
    return Call(loss, received, target, multiple)


def _multiple(value: Tensor, own: Tensor) -> float | None:
    """How many times a loss is in a value that has nothing else in it; `None` where it has."""
    if not (isinstance(own, Tensor) and own.requires_grad and own.numel() == 1 and value.requires_grad):
        return None
    if own.grad_fn is None or any(node.name().endswith("AccumulateGrad") for node in behind([value], own.grad_fn)):
        return None
    (slope,) = torch.autograd.grad(value.sum(), own, create_graph=True, allow_unused=True)
    if slope is None or slope.requires_grad:  # it is not there, or not by a constant
        return None
    multiple, whole = float(slope), float(value.detach())
    alone = abs(whole - multiple * float(own.detach())) <= ALONE * abs(whole)
    return multiple if alone and 0 < multiple < math.inf else None
