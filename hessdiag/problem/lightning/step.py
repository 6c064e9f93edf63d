"""`LightningModule.training_step` as an objective: the loss that training computes, dropped into `Problem`."""

import copy
import inspect
import weakref
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from hessdiag.errors import LoadError
from hessdiag.problem.lightning.alone import OBJECTIVE, NoTrainer, alone, counting
from hessdiag.problem.lightning.kinds import idle_hooks, is_module, overrides

NAME = "training_step"
_OF_OTHERS = {
    "optimizer_idx": "it has a loss for each of several optimizers",
    "dataloader_iter": "it takes its batches from the loader itself",
    "hiddens": "it carries a state from batch to batch",
}


@dataclass(eq=False)
class TrainingStep:
    """The objective (model, batch) that a LightningModule trains on: what its `training_step(batch, 0)` returns.

    Attributes:
        epoch: What it reads as `self.current_epoch` where no Trainer is attached.
        step: What it reads as `self.global_step`.
        used: Which of the two it has read.
    """

    epoch: int = 0
    step: int = 0
    used: set[str] = field(default_factory=set)
    _known: tuple[Any, tuple[nn.Module, ...]] = (None, ())

    __name__ = NAME

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch, which may be changed by the module: it gets a copy of the container.

        Raises:
            LoadError: if the step returns no loss, or reads of a Trainer what only one has.
        """
        own = copy.copy(batch) if isinstance(batch, (list, MutableMapping)) else batch
        step: Any = model.training_step
        with alone(self._counting(model), NoTrainer(self.epoch, self.step), self.used):
            returned = step(own, 0) if _takes_index(model) else step(own)
        return _loss(model, returned)

    def _counting(self, model: nn.Module) -> tuple[nn.Module, ...]:
        """The modules to put back, looked up once: walking a deep model takes as long as a product."""
        known, modules = self._known
        if known is None or known() is not model:
            modules = tuple(module for module in counting(model) if module is not model)
            self._known = (weakref.ref(model), modules)
        return (model, *modules)

    @property
    def notes(self) -> tuple[str, ...]:
        """What it has read of a Trainer that is not there."""
        values = {"current_epoch": self.epoch, "global_step": self.step}
        read = ", ".join(f"self.{name}, which is {values[name]}" for name in sorted(self.used))
        return (f"loss: {NAME} reads {read} here",) if read else ()


def objective_of(model: nn.Module, epoch: int = 0, step: int = 0) -> TrainingStep | None:
    """The training step of a LightningModule; `None` of another model.

    Args:
        model: Any model.
        epoch: Which the step may read as `self.current_epoch`.
        step: Which it may read as `self.global_step`.

    Raises:
        LoadError: if there is none, it steps its optimizers by hand, or it needs more than a batch.
    """
    if not is_module(model):
        return None
    kind = type(model).__name__
    if not overrides(model, NAME):
        raise LoadError(f"{kind} has no {NAME} of its own.", "--loss ce, mse, bce or nll, of what its forward returns")
    if not getattr(model, "automatic_optimization", True):
        raise LoadError(
            f"{kind} optimizes by hand (automatic_optimization is False): its {NAME} makes steps, and returns no loss "
            "to measure.",
            OBJECTIVE,
        )
    for name in _names(model):
        if name in _OF_OTHERS:
            raise LoadError(f"the {NAME} of {kind} takes {name}: {_OF_OTHERS[name]}.", OBJECTIVE)
    return TrainingStep(epoch, step)


def notes(model: nn.Module) -> tuple[str, ...]:
    """What a reader must know of the training step of a module as the loss."""
    hooks = idle_hooks(model)
    not_run = f"; not run: its {', '.join(hooks)}" if hooks else ""
    return (f"loss: the {NAME} of {type(model).__name__}, what it logs goes nowhere{not_run}",)


def _names(model: nn.Module) -> list[str]:
    return list(inspect.signature(model.training_step).parameters)  # type: ignore[arg-type]


def _takes_index(model: nn.Module) -> bool:
    given = inspect.signature(model.training_step).parameters.values()  # type: ignore[arg-type]
    places = [one for one in given if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(places) > 1 or any(one.kind is one.VAR_POSITIONAL for one in given)


def _loss(model: nn.Module, returned: Any) -> Tensor:
    found = returned.get("loss") if isinstance(returned, Mapping) else returned
    if isinstance(found, Tensor):
        return found
    if returned is None:
        what = "None, which skips the batch: there is no loss of it"
    elif isinstance(returned, Mapping):
        what = f"a dict without 'loss': it holds {', '.join(map(str, list(returned)[:6])) or 'nothing'}"
    else:
        what = f"a {type(returned).__name__}, and no loss"
    raise LoadError(f"the {NAME} of {type(model).__name__} returned {what}.", OBJECTIVE)
