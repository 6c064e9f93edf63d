"""An optimizer that a checkpoint holds, for commands that make it anew: its class and its settings."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

from hessdiag.errors import SpecError
from hessdiag.optimizers.recipe import Recipe, recipe
from hessdiag.optimizers.state.saved import of_saved
from hessdiag.problem.files.optimizer_states import is_file, read_saved
from hessdiag.problem.problem import Problem

Spec = str | torch.optim.Optimizer | Recipe | Callable[..., object] | None


def recipe_for(
    problem: Problem, spec: Spec, lr: float | None = None, scripts: dict[Path, ModuleType] | None = None
) -> Recipe:
    """The optimizer that is meant, as `recipe` takes it, or "ckpt.pt#optimizer", whose settings are taken.

    What it had accumulated is left, as it is of an optimizer that is handed over in Python: it belongs to the weights
    that it was saved with, and cures change those.

    Args:
        problem: What is trained.
        spec: As `recipe` takes it, or a file.
        lr: Learning rate, instead of its own.
        scripts: Scripts of the user's that ran already.

    Raises:
        SpecError: if there is no such optimizer, it does not take these settings, or a file does not tell which
            parameter is in which of its groups, or ends with a learning rate of 0.
        LoadError: if the user's code fails, or the file holds no optimizer of this model.
    """
    if not (isinstance(spec, str) and is_file(spec)):
        return recipe(spec, lr, scripts, problem.model)
    saved = read_saved(spec, trust_code=bool(problem.source.get("trusted_code")))
    try:
        held = of_saved(saved, problem.model, None)
    except SpecError as error:
        if error.hint is None or "--state" not in error.hint:
            raise
        raise SpecError(error.what, "--optimizer train.py:make_optimizer, the function that made it") from error
    made = recipe(held.build(problem.model), lr, model=problem.model)
    if lr is None and not made.known["lr"]:
        raise SpecError(f"the learning rate in {saved.where} is 0, as schedules end.", "--lr 1e-3, or that of training")
    assumed = f"what {held.kind} had accumulated in {saved.where}: its settings are taken, and its steps start anew"
    return replace(made, assumed=assumed)
