"""What a training step's loss is: the one call of a loss of torch's whose value it returns, seen and not guessed."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hessdiag.problem.lightning.step import NAME, TrainingStep
from hessdiag.problem.losses import averages, criteria
from hessdiag.problem.losses.loss import Loss, Objective, resolve
from hessdiag.problem.losses.recognised import OF_AN_OBJECTIVE, OwnLoss, Recognition

_WHAT = f"the {NAME} does not return one of torch's losses as it is"


@dataclass(frozen=True)
class Call:
    """A call of one of torch's losses.

    Attributes:
        loss: Which, with its settings.
        received: What it was given of the model.
        target: What it was given to compare with.
    """

    loss: Callable[..., Tensor]
    received: Any
    target: Any


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
    """The loss of torch's that a training step returns, as a function of what it is given there."""

    step: Callable[[nn.Module, Any], Call | str] = lambda model, batch: ""

    def parts(self, model: nn.Module, batch: Any) -> tuple[Any, Any]:
        """What the loss is given of the model, and the target, in the training step on this batch."""
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
    for batch in data:
        with torch.enable_grad(), evaluation():
            found = watched(objective, model, batch)
        if isinstance(found, str):
            return Recognition(None, found, _WHAT)
        loss = resolve(found.loss)
        if first is not None and (first.kind, *_settings(first)) != (loss.kind, *_settings(loss)):
            return Recognition(None, "it is another loss for another batch", _WHAT)
        first = first or loss
    assert first is not None
    known = {one.name: getattr(first, one.name) for one in fields(Loss)}
    definition = f"the {NAME}, which is torch's {first.name} ({first.reduction})"
    step = functools.partial(watched, objective)
    return Recognition(StepLoss(**{**known, "name": NAME, "definition": definition}, step=step))


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
    call = next(((func, args, keywords) for own, func, args, keywords in watch.calls if own is value), None)
    if call is None:
        seen = sorted({func.__name__ for _, func, _, _ in watch.calls})
        return f"it computes {' and '.join(seen)}, and returns more" if seen else "it calls no loss of torch's"
    function, args, keywords = call
    given = dict(inspect.signature(function).bind(*args, **keywords).arguments)
    received, target = given.pop("input"), given.pop("target")
    settings = {name: item for name, item in given.items() if item is not None}
    loss = functools.partial(function, **settings)
    if criteria.recognised(loss) is None:
        return f"it calls {function.__name__} with {', '.join(sorted(settings))}"
    if any(isinstance(item, Tensor) and item.requires_grad for item in (target, *settings.values())):
        return f"what {function.__name__} compares with depends on parameters"
    return Call(loss, received, target)
