"""`LightningModule.configure_optimizers`: the optimizer that a model names itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.lightning.alone import NoTrainer, alone, counting
from hessdiag.problem.lightning.kinds import is_module, overrides

CONFIGURE = "configure_optimizers"
LENGTHS = {"max_epochs": 100, "max_steps": -1, "num_training_batches": 100, "estimated_stepping_batches": 10_000}
_YOURS = "--optimizer adam, or --optimizer train.py:make"


def names_optimizer(model: nn.Module | None) -> bool:
    """Whether a model is a LightningModule that says how it is trained."""
    return model is not None and is_module(model) and overrides(model, CONFIGURE)


def configured(model: Any) -> torch.optim.Optimizer:
    """The one optimizer of a LightningModule, without its schedule.

    A schedule may ask the Trainer how long training will be. Without one any length does, for no step of it is taken.

    Raises:
        SpecError: if it makes none, or several.
        LoadError: if it reads more of a Trainer than that.
    """
    trainer = NoTrainer(0, 0)
    vars(trainer).update(LENGTHS, accumulate_grad_batches=1)
    try:
        with alone(counting(model), trainer, set()):
            made = model.configure_optimizers()
    except LoadError as error:
        raise LoadError(error.what, _YOURS) from error
    found = list(_optimizers(made))
    if len(found) != 1:
        several = f"{len(found)} optimizers" if found else "no optimizer"
        raise SpecError(f"{type(model).__name__}.{CONFIGURE} makes {several}.", _YOURS)
    return found[0]


def _optimizers(made: Any) -> Sequence[torch.optim.Optimizer]:
    """Those in any of the forms that Lightning takes: alone, in a mapping, in lists, with schedules beside them."""
    if isinstance(made, torch.optim.Optimizer):
        return [made]
    if isinstance(made, Mapping):
        return _optimizers(made.get("optimizer"))
    if isinstance(made, (tuple, list)):
        if len(made) == 2 and isinstance(made[0], (tuple, list)):
            return _optimizers(made[0])
        return [one for part in made for one in _optimizers(part)]
    return []
