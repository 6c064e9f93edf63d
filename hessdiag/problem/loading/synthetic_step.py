"""A synthetic batch for a LightningModule: inputs that its forward pass takes, targets that its training step does."""

from typing import Any

import torch
from torch import nn

from hessdiag.errors import LoadError, first_line
from hessdiag.problem.batches.batch import placed
from hessdiag.problem.lightning.step import NAME, TrainingStep
from hessdiag.problem.loading import synthetic
from hessdiag.problem.modes import mode

_TARGETS = ("ce", "mse", "bce")  # classes, real numbers, bits


def make(
    model: nn.Module, step: TrainingStep, *, batch_size: int | None = None, batches: int | None = None, seed: int = 0
) -> tuple[list[Any], tuple[str, ...]]:
    """Synthetic batches `(x, y)` that a training step takes; arguments as those of `synthetic.make`.

    Raises:
        LoadError: if it takes none of those that are made up.
    """
    why = ""
    for loss in _TARGETS:
        try:
            trial, _ = synthetic.make(model, loss, batch_size=2, seed=seed)
            with torch.enable_grad(), mode(model, train=False):
                value = step(model, placed(trial[0], model))
            trained = [item for item in model.parameters() if item.requires_grad]
            torch.autograd.grad(value, trained, allow_unused=True)  # torch takes some targets forward, and not back
            if not bool(value.isfinite()):
                raise ValueError(f"its loss is {float(value.detach())}")
        except Exception as error:  # whether it takes this is the question
            why = why or (error.what if isinstance(error, LoadError) else first_line(error)).rstrip(".")
            continue
        return synthetic.make(model, loss, batch_size=batch_size, batches=batches, seed=seed)
    raise LoadError(
        f"no data was given, and none could be made up for the {NAME} of {type(model).__name__}: {why}.",
        "--data lit.py:datamodule",
    )
