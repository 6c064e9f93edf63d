"""What an optimizer makes of a gradient at one moment: the metric that it sees curvature in, and its next step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.local import flat
from hessdiag.curvature.sharded.gradient import gradient_here
from hessdiag.errors import SpecError
from hessdiag.numbers import listed
from hessdiag.optimizers.in_pieces import hollow_model, refuse_state, step_of_pieces
from hessdiag.optimizers.recipe import Recipe, of_gradients, recipe
from hessdiag.optimizers.state import held as holding
from hessdiag.optimizers.state.denominators import NEEDED
from hessdiag.optimizers.state.held import Held, number_of
from hessdiag.optimizers.state.likeness import LOW, Likeness, likeness
from hessdiag.optimizers.state.saved import of_saved
from hessdiag.optimizers.state.seen import Preconditioning, of_state
from hessdiag.optimizers.update import forget_gradients, give_gradients, step_as_given
from hessdiag.problem.files.optimizer_states import is_file, read_saved
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import ShardedProblem

__all__ = ["Preconditioning", "direction", "of_checkpoint", "of_optimizer", "of_recipe", "preconditioning"]

Spec = str | torch.optim.Optimizer | Recipe | Callable[..., Any] | None


def preconditioning(
    problem: Problem,
    spec: Spec = None,
    lr: float | None = None,
    *,
    state: str | None = None,
    scripts: dict[Path, ModuleType] | None = None,
) -> Preconditioning:
    """What an optimizer makes of gradients where the parameters are.

    Args:
        problem: What is trained. Of a sharded one all vectors are this process's pieces, and there is no state.
        spec: "adam", "sgd(momentum=0.9)", "train.py:make_optimizer", or "ckpt.pt#optimizer", whose state tells which
            it is; or in Python a recipe, a function, or a `torch.optim.Optimizer` of the model's parameters, with the
            state that it has.
        lr: Learning rate, instead of its own; several groups keep the ratios of theirs.
        state: "ckpt.pt#optimizer", what the optimizer that `spec` names had accumulated. Its settings are the file's.
            A function of the user's tells the order of parameters, where the file holds no names.
        scripts: Scripts of the user's that ran already.

    Raises:
        SpecError: if there is no such optimizer, it does not take these settings, or steps along no gradient; or if it
            cannot be told which parameter of the model is which in a file.
        LoadError: if the user's code fails, or a state does not fit the model.

    Example: Adam divides by |g| where it stands still; the loss is w^2, at w = 3.

    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> _ = torch.nn.init.constant_(model.weight, 3.0)
    >>> problem = Problem(model, data=[None], objective=lambda model, batch: model.weight.square().sum())
    >>> found = preconditioning(problem, "adam(eps=0.5)")
    >>> found.diagonal, round(found.threshold, 9), found.state
    (tensor([6.5000], dtype=torch.float64), 38.0, 'gradients')
    """
    if isinstance(problem, ShardedProblem):
        refuse_state(spec, state)
    if isinstance(spec, str) and is_file(spec):
        if state is not None:
            raise SpecError("two files are given for one optimizer's state.", f"--optimizer adamw --state {state}")
        spec, state = None, spec
    if state is not None:
        found = of_checkpoint(problem, state, spec, lr, scripts=scripts)
    elif isinstance(spec, torch.optim.Optimizer):
        found = of_optimizer(problem, spec, lr)
    else:
        found = of_recipe(problem, recipe(spec, lr, scripts, model=problem.model))
    if not 0 < found.lr < math.inf:
        raise SpecError(
            f"the learning rate of {found.kind} is {found.lr:g}: it has to be a positive number.", "--lr 1e-3"
        )
    return found


def of_recipe(problem: Problem, made: Recipe) -> Preconditioning:
    """Of an optimizer that has not stepped yet: v is the mean of the batches' squared gradients here."""
    model = hollow_model(problem) if isinstance(problem, ShardedProblem) else problem.model
    found = of_state(problem, holding.of_recipe(of_gradients(made), model), made.name if made.known else None)
    origin = f"the optimizer is that of {made.origin}, as none was named" if made.origin else ""
    return replace(found, notes=(*(note for note in (made.assumed, origin) if note), *found.notes))


def of_optimizer(problem: Problem, optimizer: torch.optim.Optimizer, lr: float | None = None) -> Preconditioning:
    """Of an optimizer with the state that it has; neither is touched.

    Raises:
        SpecError: if it holds none of the model's parameters, or differentiates the loss itself.
    """
    made = of_gradients(recipe(optimizer, lr, model=problem.model))
    state = holding.of_instance(optimizer, problem.model, made.build)
    if lr is not None:
        state = replace(state, of=_at_rate(state.of, lr))
    return of_state(problem, state)


def of_checkpoint(
    problem: Problem,
    state: str,
    spec: Spec = None,
    lr: float | None = None,
    *,
    scripts: dict[Path, ModuleType] | None = None,
) -> Preconditioning:
    """Of an optimizer whose state lies in a file: arguments and errors as those of `preconditioning`."""
    saved = read_saved(state, trust_code=bool(problem.source.get("trusted_code")))
    made = None if spec is None else of_gradients(recipe(spec, None, scripts, model=problem.model))
    held = of_saved(saved, problem.model, made)
    if lr is not None:
        held = replace(held, of=_at_rate(held.of, lr))
    found = of_state(problem, held)
    if not found.lr:
        raise SpecError(f"the learning rate in {saved.where} is 0, as schedules end.", "--lr 1e-3, or that of training")
    if found.kind not in NEEDED:
        return found
    like = likeness(problem, held, problem.seed)
    return replace(
        found,
        gradients=found.gradients + like.gradients,
        likeness=like.correlation,
        notes=(*found.notes, *_unlike(like)),
    )


def _unlike(like: Likeness) -> list[str]:
    """What is to be said of a state that does not look like the gradients here."""
    if like.correlation is not None and like.correlation < LOW:
        return [
            f"the state's v hardly goes with the squared gradients here (correlation {like.correlation:.2f} of their "
            f"logarithms, where right ones have 0.3 to 0.9): are weights, data and order those of training?"
        ]
    if like.swapped:
        return [
            f"{listed(list(like.swapped))}: the state's v does not go with the squared gradients here (correlation "
            f"below {LOW:g}), and that of another tensor of the same shape does: they may be swapped"
        ]
    return []


def _at_rate(of: Mapping[str, Held], lr: float) -> dict[str, Held]:
    """With another learning rate; groups keep the ratios of theirs, beside the first."""
    first = number_of(next(iter(of.values())).group["lr"])
    return {
        name: replace(held, group={**held.group, "lr": number_of(held.group["lr"]) / first * lr if first else lr})
        for name, held in of.items()
    }


def direction(problem: Problem, made: Preconditioning, gradient: Tensor | None = None) -> Tensor:
    """The optimizer's own next step from here, momentum and weight decay included.

    It is taken on a copy of the model, with a copy of the state: neither the user's model nor the optimizer moves.

    Args:
        problem: Where the parameters are.
        made: Of `preconditioning`.
        gradient: Of the problem, (N,), if it is known; else it is computed, over all batches.

    Returns:
        What is added to the parameters, (N,); of a sharded problem this process's pieces of it, (own,).

    Raises:
        SpecError: if the optimizer looks for its step by itself, as LBFGS does.
        ComputeError: if the model cannot be copied.

    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> _ = torch.nn.init.constant_(model.weight, 3.0)
    >>> problem = Problem(model, data=[None], objective=lambda model, batch: model.weight.square().sum())
    >>> direction(problem, preconditioning(problem, "sgd", lr=0.25))
    tensor([-1.5000], dtype=torch.float64)
    """
    assert made.held is not None
    slope = gradient_here(problem) if gradient is None else gradient
    if isinstance(problem, ShardedProblem):
        return step_of_pieces(problem, made, slope)
    model, optimizer = made.held.on(problem.model)
    forget_gradients(optimizer)
    give_gradients(problem, slope, model)
    step_as_given(optimizer, made.optimizer)
    at = dict(model.named_parameters())
    moves = [at[name].detach() - parameter.detach() for name, parameter in problem.named_parameters]
    return flat(moves, problem.dtype)
