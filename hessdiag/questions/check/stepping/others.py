"""Short runs with one setting of the optimizer changed: whether that setting keeps a network from training."""

import math

from hessdiag.fields import Number, Numbers
from hessdiag.optimizers.recipe import Recipe
from hessdiag.problem.as_it_trains import as_it_trains
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.effort import affordable
from hessdiag.questions.check.readings import OtherSetting, StepReading
from hessdiag.questions.check.stepping.first import first_step, run
from hessdiag.questions.check.stepping.judged import fell
from hessdiag.theory.optimizer_floors import ENTRY_EPSILON

SECONDS = 0.8  # for all of them
STEPS = 60  # of each, at most
OVERSHOT, LEAPT = 1.05, 2.0  # loss over that at the start, from which a smaller step may help; though it fell
COARSE = 100.0  # eps over the usual one
FLOORED = 0.05  # what it leaves of a step, from which a smaller one may help though the loss fell
GONE = 1e-3  # what it leaves of a step, from which even a usual one is above the gradients
LESS = (10.0, 100.0, 1e4)  # by which a learning rate is divided
FINE = 2e-5  # update over weight below which a larger step may help
USUAL_UPDATES = (3e-3, 3e-2)  # update over weight of networks that train
DECAYS, DECAYS_ANYWAY = 0.3, 1.0  # weight decay over the rest of the step; though the loss fell


def others(
    problem: Problem, recipe: Recipe, step: StepReading, trains: bool | None, chance: Number, pace: float
) -> list[OtherSetting]:
    """Runs with the settings that may be to blame, each changed by itself; a step takes `pace` seconds."""
    tried: list[OtherSetting] = []
    settings = suspects(step, trains)
    steps = affordable(SECONDS / max(len(settings), 1), pace, STEPS)
    for name, value in settings if steps else ():
        if any(other.setting == name and other.fell for other in tried):
            continue
        losses = _losses(problem, recipe.with_settings(**{name: value}), steps)
        if losses:
            tried.append(
                OtherSetting(setting=name, value=value, losses=losses, fell=fell(losses, chance, len(problem.data)))
            )
    return tried


def suspects(step: StepReading, trains: bool | None) -> list[tuple[str, float]]:
    """Which settings to change, and to what, the likeliest first."""
    if step.lr is None or not step.lr or not step.losses:
        return []
    found: list[tuple[str, float]] = []
    usual = ENTRY_EPSILON.get(step.optimizer.lower())
    epsilon = step.settings.get("eps")
    floored = not trains or (step.floor_leaves is not None and step.floor_leaves < FLOORED)
    if usual is not None and epsilon is not None and epsilon > COARSE * usual and floored:
        found.append(("eps", usual))
    elif epsilon and step.floor_leaves and step.floor_leaves < GONE and not trains:
        found.append(("eps", float(f"{epsilon * step.floor_leaves / 10:.1g}")))
    if (step.decay_ratio or 0.0) > (DECAYS_ANYWAY if trains else DECAYS):
        found.append(("weight_decay", 0.0))
    if _rises(step.losses, LEAPT if trains else OVERSHOT):
        found += [("lr", float(f"{step.lr / by:.12g}")) for by in LESS]
    elif step.update_ratio and step.update_ratio < FINE and not trains:
        powers = [round(math.log10(size / step.update_ratio)) for size in USUAL_UPDATES]
        found += [("lr", float(f"{step.lr * 10.0**power:.12g}")) for power in powers]
    return found


def _rises(losses: Numbers, by: float) -> bool:
    """Whether a loss is not finite, or more than so many times the first."""
    first = losses[0]
    return first is None or any(loss is None or loss > by * abs(first) for loss in losses)


def _losses(problem: Problem, recipe: Recipe, steps: int) -> tuple[Number, ...]:
    with as_it_trains(problem) as model:
        optimizer = recipe.build(model, [name for name, _ in problem.named_parameters])
        first = first_step(problem, optimizer)
        return () if first is None else run(problem, optimizer, first, steps)
