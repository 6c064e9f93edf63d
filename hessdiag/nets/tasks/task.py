"""What a training task is, beside its model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

DECLARED = "task"  # the attribute of a model that says how optimizers are compared on it


@dataclass(frozen=True, kw_only=True)
class Task:
    """How optimizers are compared on a model; `model.task` where there is something to say.

    Attributes:
        contenders: Who runs unless others are named: an optimizer's spec, without the learning rate where it is to be
            searched, and with it where the paper gives it.
        samples: In a minibatch of first-order methods; `None` for the usual.
        curvature_samples: In one of methods that take products with curvature; `None` for the usual.
        order: "shuffled" minibatches of all samples, "whole" for all of them at every step, or "stream": each batch of
            the data once, in order.
        steps: How many each run takes; `None` for the usual budget.
        score: Mean of the loss over these shares of the steps, instead of the step at which the plateau is left.
        floor: The loss that no model is below (an entropy of targets); 0 where it is not known.
        level: What counts as out, as a share of the way from `floor` to the reference loss; `None` for the usual.
        said: Anything else that a report should say of it.
    """

    contenders: tuple[str, ...] = ()
    samples: int | None = None
    curvature_samples: int | None = None
    order: Literal["shuffled", "whole", "stream"] = "shuffled"
    steps: int | None = None
    score: tuple[float, float] | None = None
    floor: float = 0.0
    level: float | None = None
    said: tuple[str, ...] = ()


def setup(*, model: nn.Module, data: Any, loss: Any = None, objective: Any = None, **task: Any) -> Mapping[str, Any]:
    """A task in the form in which a model spec gives one: `{"model": ..., "data": ..., "loss" or "objective": ...}`.

    Args:
        model: Gets an attribute that says how optimizers are compared on it.
        data: Batches `(x, y)`.
        loss: Of the output and the target.
        objective: Of the model and a batch, instead.
        task: Attributes of `Task`.
    """
    setattr(model, DECLARED, Task(**task))
    found = {"model": model, "data": data, "loss": loss, "objective": objective}
    return {name: value for name, value in found.items() if value is not None}
