"""What the optimizer does with a network: its first step, the curvature along it, and a few more where time allows."""

from dataclasses import replace
from statistics import median

import torch

from hessdiag.errors import HessdiagError, SpecError, said
from hessdiag.machine.shortage import ran_out
from hessdiag.optimizers.joint import Jointly
from hessdiag.optimizers.recipe import Recipe
from hessdiag.problem.as_it_trains import as_it_trains
from hessdiag.problem.copies import copied
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.effort import affordable, step_seconds
from hessdiag.questions.check.result import Check
from hessdiag.questions.check.stepping.first import Slope, first_step, run
from hessdiag.questions.check.stepping.judged import trains
from hessdiag.questions.check.stepping.others import others
from hessdiag.questions.check.stepping.reading import of_layers, reading
from hessdiag.questions.check.stepping.sharpness import lambda_max

SECONDS = 0.6  # for the steps after the first
SLOW = 0.05  # seconds of a step from which no more are taken
STEPS = 60  # at most


def stepped(found: Check, problem: Problem, recipe: Recipe, *, seed: int, slope: Slope | None = None) -> Check:
    """The same with `step`, `trains`, and each layer's `update_ratio` and `epsilon_share`.

    All steps are of a copy: the user's model, optimizer and random numbers stay as they are.

    Args:
        found: What one pass has shown.
        problem: Model, batches and loss.
        recipe: How the optimizer is made.
        seed: Of dropout and the like.
        slope: The first batch's loss and gradient, where they are known, with random numbers from the problem's seed.

    Raises:
        SpecError: if the optimizer cannot be made for this model.
        LoadError: if the user's function that makes it fails.
    """
    missing = [recipe.assumed] if recipe.assumed else []
    model = copied(problem.model)
    if model is None:
        return _without(found, [*missing, "the optimizer's steps: the model cannot be copied"])
    try:
        with torch.enable_grad():
            return _stepped(
                found, problem.like(model=model, seed=seed), recipe, missing, slope if seed == problem.seed else None
            )
    except SpecError:
        raise
    except Exception as error:
        if ran_out(error) or isinstance(error, HessdiagError):
            raise
        return _without(found, [*missing, f"the optimizer's steps: they fail ({said(error)})"])


def _without(found: Check, missing: list[str]) -> Check:
    return replace(found, not_looked_at=(*found.not_looked_at, *missing))


def _stepped(found: Check, problem: Problem, recipe: Recipe, missing: list[str], slope: Slope | None) -> Check:
    names = [name for name, _ in problem.named_parameters]
    with as_it_trains(problem) as model:
        optimizer = recipe.build(model, names)
        if isinstance(optimizer, Jointly):
            missing = [*missing, f"{recipe.kind} alone: {optimizer.said}"]
        first = first_step(problem, optimizer, slope)
        if first is None:
            return _without(found, missing)
        pace = step_seconds(found, problem)
        losses = run(problem, optimizer, first, affordable(SECONDS, pace, STEPS)) if pace < SLOW else ()
    by_layer = of_layers(problem, optimizer, first)
    ratios = [ratio for ratio, _ in by_layer.values() if ratio is not None]
    step = replace(
        reading(problem, optimizer, recipe, first), update_ratio=median(ratios) if ratios else None, losses=losses
    )
    if step.lambda_threshold is not None:
        step = replace(step, lambda_max=lambda_max(problem, pace))
    chance = None if found.output is None else found.output.chance
    told = trains(step, chance, len(problem.data))
    if losses:
        step = replace(step, others=tuple(others(problem, recipe, step, told, chance, pace)))
    else:
        missing = [*missing, f"whether the loss falls: a step takes about {pace:.2g} s, too long to take several"]
    layers = tuple(
        replace(layer, update_ratio=by_layer[layer.layer][0], epsilon_share=by_layer[layer.layer][1])
        if layer.layer in by_layer
        else layer
        for layer in found.layers
    )
    return replace(_without(found, missing), layers=layers, step=step, trains=told)
