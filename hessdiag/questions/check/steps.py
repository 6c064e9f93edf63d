"""What the optimizer does with a network: its first step, the curvature along it, and a few more where time allows."""

import inspect
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import HessdiagError, SpecError, said
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.as_it_trains import as_it_trains
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.copies import copied
from hessdiag.questions.check.optimizers import Recipe, settings_of
from hessdiag.questions.check.readings import StepReading
from hessdiag.questions.check.result import Check
from hessdiag.theory.optimizer_floors import Floor, floor_of

MOST_STEPS, MOST_SECONDS = 60, 0.6  # of the steps after the first
SLOW = 0.05  # seconds of a step from which no more are taken
DECOUPLED = ("adamw", "adafactor", "muon", "lion", "soap", "sophia", "sophiah", "adamwscheduler")
ROUNDING = 16.0  # units of rounding of the loss within which a difference of two losses says nothing


@dataclass(frozen=True)
class FirstStep:
    """The optimizer's first step, tensor by tensor, in the order of the parameters.

    Attributes:
        weights: Before it.
        gradients: Of the loss; `None` where none arrived.
        changes: What the step added.
        before: The loss before it.
        after: The loss after it, with the same random numbers.
        seconds: What one step takes: forward, back, update.
    """

    weights: tuple[Tensor, ...]
    gradients: tuple[Tensor | None, ...]
    changes: tuple[Tensor, ...]
    before: float
    after: float
    seconds: float


def stepped(found: Check, problem: Problem, recipe: Recipe, *, seed: int) -> Check:
    """The same with `step`, `trains`, and each layer's `update_ratio` and `epsilon_share`.

    All steps are of a copy: the user's model, optimizer and random numbers stay as they are.

    Args:
        found: What one pass has shown.
        problem: Model, batches and loss.
        recipe: How the optimizer is made.
        seed: Of dropout and the like.

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
            return _stepped(found, problem.like(model=model, seed=seed), recipe, missing)
    except SpecError:
        raise
    except Exception as error:
        if ran_out(error) or isinstance(error, HessdiagError):
            raise
        return _without(found, [*missing, f"the optimizer's steps: they fail ({said(error)})"])


def _without(found: Check, missing: list[str]) -> Check:
    return replace(found, not_looked_at=(*found.not_looked_at, *missing))


def _stepped(found: Check, problem: Problem, recipe: Recipe, missing: list[str]) -> Check:
    names = [name for name, _ in problem.named_parameters]
    with as_it_trains(problem) as model:
        optimizer = recipe.build(model, names)
        first = first_step(problem, optimizer)
        if first is None:
            return _without(found, missing)
        losses: tuple[float | None, ...] = ()
        if first.seconds < SLOW:
            losses = run(problem, optimizer, first)
    reading = _reading(problem, optimizer, recipe, first)
    by_layer = _by_layer(problem, optimizer, first)
    ratios = [ratio for ratio, _ in by_layer.values() if ratio is not None]
    layers = tuple(
        replace(layer, update_ratio=by_layer[layer.layer][0], epsilon_share=by_layer[layer.layer][1])
        if layer.layer in by_layer
        else layer
        for layer in found.layers
    )
    reading = replace(reading, update_ratio=median(ratios) if ratios else None, losses=losses)
    if not losses:
        missing = [*missing, f"whether the loss falls: a step takes {first.seconds:.2g} s, too long to take several"]
    output = found.output
    return replace(
        _without(found, missing),
        layers=layers,
        step=reading,
        trains=trains(reading, None if output is None else output.chance),
    )


def first_step(problem: Problem, optimizer: torch.optim.Optimizer) -> FirstStep | None:
    """Take the optimizer's first step with the first batch's gradient; `None` where no gradient arrives.

    The parameters are left where the step takes them.
    """
    batch, parameters = problem.data[0], problem.parameters
    start = time.perf_counter()
    value = _loss(problem, batch, draw=problem.seed)
    before = float(value.detach())
    if not value.requires_grad:
        return None
    optimizer.zero_grad()
    _back(value)
    spent = time.perf_counter() - start
    gradients = tuple(None if p.grad is None else p.grad.detach().to_dense().clone() for p in parameters)
    if all(gradient is None for gradient in gradients):
        return None
    weights = tuple(parameter.detach().clone() for parameter in parameters)
    start = time.perf_counter()
    _update(problem, optimizer, batch)
    spent += time.perf_counter() - start
    changes = tuple(p.detach() - weight for p, weight in zip(parameters, weights, strict=True))
    after = float(_loss(problem, batch, draw=problem.seed).detach())
    return FirstStep(weights, gradients, changes, before, after, spent)


def run(problem: Problem, optimizer: torch.optim.Optimizer, first: FirstStep) -> tuple[float | None, ...]:
    """Go on from the first step, on the batches in turn; the losses before each step and after the last.

    A loss that is not finite ends it, as no number.
    """
    most = min(MOST_STEPS, int(MOST_SECONDS / max(first.seconds, 1e-9)))
    ends = time.perf_counter() + MOST_SECONDS
    losses: list[float | None] = [_finite(first.before)]
    for index in range(1, most + 1):
        batch = problem.data[index % len(problem.data)]
        value = _loss(problem, batch)
        losses.append(_finite(float(value.detach())))
        if losses[-1] is None or index == most or time.perf_counter() > ends:
            break
        optimizer.zero_grad()
        _back(value)
        _update(problem, optimizer, batch)
    return tuple(losses)


def trains(step: StepReading, chance: float | None) -> bool | None:
    """Whether the losses of a few steps fall clearly; `None` where they do not tell.

    They fall if the last ones are a tenth of chance below chance and below the first one. They do not if they end where
    they were, at chance or above it, although the steps were large enough to move the weights or the loss. A network
    that is below chance from the beginning may have no further to fall.
    """
    losses = step.losses
    if len(losses) < 2 or step.before is None:
        return None
    if any(loss is None for loss in losses):
        return False
    values = [float(loss) for loss in losses if loss is not None]
    first, last = values[0], sum(values[-5:]) / len(values[-5:])
    known = chance is not None and math.isfinite(chance) and chance > 0
    start = min(first, chance) if known and chance is not None else first
    enough = 0.1 * chance if known and chance is not None else 0.3 * abs(first)
    if last < start - enough:
        return True
    steps = len(values) - 1
    predicted = (step.predicted or 0.0) * steps
    telling = predicted > 0.05 * abs(start) or (step.update_ratio or 0.0) * steps > 0.03
    at_chance = chance is not None and known and first > 0.9 * chance
    if steps >= 20 and telling and at_chance and last > 0.98 * start:
        return False
    return None


def _loss(problem: Problem, batch: Any, *, draw: int | None = None) -> Tensor:
    if draw is not None:
        torch.manual_seed(draw)
    return problem.objective_function(problem.model, batch).reshape(())


def _update(problem: Problem, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    """Step; one that looks for its step by itself is given the loss."""

    def again() -> Any:
        optimizer.zero_grad()
        value = _loss(problem, batch, draw=problem.seed)
        _back(value)
        return value

    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        optimizer.step(again)
    else:
        optimizer.step()


def _back(value: Tensor) -> None:
    torch.autograd.backward(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _reading(problem: Problem, optimizer: torch.optim.Optimizer, recipe: Recipe, first: FirstStep) -> StepReading:
    settings = settings_of(optimizer)
    pairs = [(g, d) for g, d in zip(first.gradients, first.changes, strict=True) if g is not None]
    predicted = -sum(float((g.double() * d.double()).sum()) for g, d in pairs)
    size = sum(float(d.double().square().sum()) for d in first.changes)
    floor = _floor(optimizer, problem)
    finite = floor is not None and math.isfinite(floor.floor) and floor.floor > 0
    return StepReading(
        optimizer=type(optimizer).__name__,
        given=recipe.given,
        lr=settings.pop("lr", None),
        settings=dict(settings),
        floor=floor.floor if finite and floor is not None else None,
        predicted=_finite(predicted),
        before=_finite(first.before),
        after=_finite(first.after),
        curvature=_curvature(first, predicted, size, problem.dtype),
        lambda_threshold=lambda_threshold(optimizer),
        decay_ratio=_decay_ratio(optimizer, problem, first),
    )


def _curvature(first: FirstStep, predicted: float, size: float, dtype: torch.dtype) -> float | None:
    """d'Hd/d'd by Taylor's formula: the loss after the step is that before, minus the fall predicted, plus d'Hd/2."""
    bend = first.after - first.before + predicted
    rounding = ROUNDING * torch.finfo(dtype).eps * max(abs(first.before), abs(first.after))
    if not math.isfinite(bend) or not size or abs(bend) <= rounding:
        return None
    return 2 * bend / size


def lambda_threshold(optimizer: torch.optim.Optimizer) -> float | None:
    """The largest eigenvalue of the Hessian at which gradient descent on a quadratic function stays bounded.

    2/lr; with momentum b that is damped by t, 2 (1 + b)/(lr (1 - t)), and 2 (1 + b)/(lr (1 + 2b)) for Nesterov's.
    Weight decay takes of it what it adds to the Hessian. `None` for other optimizers.

    >>> lambda_threshold(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5, momentum=0.5))
    6.0
    """
    group = optimizer.param_groups[0]
    if type(optimizer).__name__ != "SGD" or not float(group["lr"]):
        return None
    momentum, damped = float(group.get("momentum", 0.0)), float(group.get("dampening", 0.0))
    ahead = 1 + 2 * momentum if group.get("nesterov") else 1 - damped if momentum else 1.0
    return 2 * (1 + momentum) / (float(group["lr"]) * ahead) - float(group.get("weight_decay", 0.0))


def _floor(optimizer: torch.optim.Optimizer, problem: Problem) -> Floor | None:
    dtype = str(problem.dtype).removeprefix("torch.")
    return floor_of(type(optimizer).__name__, epsilon=settings_of(optimizer).get("eps"), dtype=dtype)


def _decay_ratio(optimizer: torch.optim.Optimizer, problem: Problem, first: FirstStep) -> float | None:
    """What weight decay takes in this step over what the gradient does, both by their root mean squares."""
    place = {id(parameter): index for index, parameter in enumerate(problem.parameters)}
    decayed, rest = 0.0, 0.0
    for group in optimizer.param_groups:
        strength = float(group.get("weight_decay") or 0.0)
        if not strength:
            continue
        at_once = group.get("decoupled_weight_decay", type(optimizer).__name__.lower() in DECOUPLED)
        for index in [place[id(parameter)] for parameter in group["params"] if id(parameter) in place]:
            weight, gradient = first.weights[index].double(), first.gradients[index]
            if gradient is None:
                continue
            taken = strength * weight
            if at_once:
                taken = float(group["lr"]) * taken
                other = first.changes[index].double() + taken
            else:
                other = gradient.double()
            decayed += float(taken.square().sum())
            rest += float(other.square().sum())
    return math.sqrt(decayed / rest) if decayed and rest else None


def _by_layer(
    problem: Problem, optimizer: torch.optim.Optimizer, first: FirstStep
) -> dict[str, tuple[float | None, float | None]]:
    """Of each module that owns parameters: update over weight, and the share of its gradient below the floor."""
    place = {id(parameter): index for index, parameter in enumerate(problem.parameters)}
    floor = _floor(optimizer, problem)
    return {name: (_ratio(own, first), _share_below(own, first, floor)) for name, own in _owners(problem.model, place)}


def _owners(model: nn.Module, place: dict[int, int]) -> Iterator[tuple[str, list[int]]]:
    for name, module in model.named_modules():
        own = [place[id(p)] for p in module.parameters(recurse=False) if id(p) in place]
        if own:
            yield name or type(module).__name__, own


def _ratio(own: list[int], first: FirstStep) -> float | None:
    """Root mean squares of the step over the weights: of the matrix, where there is one."""
    matrices = [index for index in own if first.weights[index].ndim > 1] or own
    moved = sum(float(first.changes[index].double().square().sum()) for index in matrices)
    size = sum(float(first.weights[index].double().square().sum()) for index in matrices)
    return math.sqrt(moved / size) if size and math.isfinite(moved) else None


def _share_below(own: list[int], first: FirstStep, floor: Floor | None) -> float | None:
    """Share of gradient entries below an optimizer's floor, exact zeros left out."""
    if floor is None or math.isinf(floor.floor):
        return None
    below = counted = 0
    for gradient in (first.gradients[index] for index in own):
        if gradient is None:
            continue
        there = int((gradient != 0).sum())
        counted += there
        if floor.of == "matrix":
            below += there if float(gradient.double().norm()) < floor.floor else 0
        else:
            below += int(((gradient.abs() < floor.floor) & (gradient != 0)).sum())
    return below / counted if counted else None
