"""What is read off an optimizer's first step: overall, and of each layer."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from hessdiag.optimizers.joint import main_of
from hessdiag.optimizers.recipe import Recipe, settings_of
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.readings import StepReading
from hessdiag.questions.check.stepping.first import FirstStep, finite, squares
from hessdiag.theory.optimizer_floors import Floor, floor_of

PLAIN = ("sgd", "asgd")  # whose steps are the gradient
DECOUPLED = ("adamw", "adafactor", "muon", "lion", "soap", "sophia", "sophiah", "adamwscheduler")
SAMPLED = 2**13  # entries of a tensor that are counted: shares of it to half a percent
ROUNDING = 16.0  # units of rounding of the loss within which a difference of two losses says nothing


def reading(problem: Problem, optimizer: torch.optim.Optimizer, recipe: Recipe, first: FirstStep) -> StepReading:
    """All but what is of layers and of further steps."""
    settings = settings_of(optimizer)
    floor = _floor(optimizer, problem)
    ratio, shrinks = _decay(optimizer, problem, first)
    divides = floor is not None and math.isfinite(floor.floor) and floor.floor > 0
    return StepReading(
        optimizer=type(main_of(optimizer)).__name__,
        given=recipe.given,
        origin=recipe.origin,
        lr=settings.pop("lr", None),
        settings=dict(settings),
        floor=floor.floor if divides and floor is not None else None,
        predicted=finite(first.predicted),
        before=finite(first.before),
        after=finite(first.after),
        curvature=_curvature(first, problem.dtype),
        lambda_threshold=lambda_threshold(optimizer),
        decay_ratio=ratio,
        decay_steps=shrinks,
        floor_leaves=_floor_leaves(first, floor) if divides and floor is not None else None,
        rounded_share=_rounded_share(first),
    )


def _sampled(first: FirstStep, own: Iterable[int] | None = None) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Gradient entries that are not zero, and what the step changed there: of large tensors an even part.

    Each with the number of entries that one of them stands for.
    """
    for index in range(len(first.weights)) if own is None else own:
        gradient = first.gradients[index]
        if gradient is None:
            continue
        stride = -(-gradient.numel() // SAMPLED)
        part, change = gradient.reshape(-1)[::stride].double(), first.changes[index].reshape(-1)[::stride]
        there = part != 0
        yield part[there].abs(), change[there], gradient.numel() / max(part.numel(), 1)


def _floor_leaves(first: FirstStep, floor: Floor) -> float | None:
    """What a floor of single entries leaves of the step."""
    total = counted = 0.0
    for sizes, _, each in _sampled(first):
        total += each * float((sizes / (sizes + floor.floor)).square().sum())
        counted += each * sizes.numel()
    return math.sqrt(total / counted) if counted and floor.of == "entry" and math.isfinite(total) else None


def _rounded_share(first: FirstStep) -> float | None:
    there = lost = 0.0
    for sizes, change, each in _sampled(first):
        there += each * sizes.numel()
        lost += each * int((change == 0).sum())
    return lost / there if there else None


def _curvature(first: FirstStep, dtype: torch.dtype) -> float | None:
    """d'Hd/d'd by Taylor's formula: the loss after the step is that before, minus the fall predicted, plus d'Hd/2."""
    bend, size = first.after - first.before + first.predicted, sum(first.change_squares)
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
    return floor_of(type(main_of(optimizer)).__name__, epsilon=settings_of(optimizer).get("eps"), dtype=dtype)


def _decay(optimizer: torch.optim.Optimizer, problem: Problem, first: FirstStep) -> tuple[float | None, float | None]:
    """What weight decay takes in this step over what the gradient does; and in how many steps, an e-th of the weights.

    Sizes are root mean squares. Where decay is part of the gradient, an optimizer that divides by the gradient's size
    takes steps whose size does not depend on it.
    """
    place = {id(parameter): index for index, parameter in enumerate(problem.parameters)}
    decayed = rest = moved = weights = 0.0
    name = type(optimizer).__name__.lower()
    for group in optimizer.param_groups:
        strength, lr = float(group.get("weight_decay") or 0.0), float(group["lr"])
        if not strength:
            continue
        at_once = group.get("decoupled_weight_decay", name in DECOUPLED)
        for index in [place[id(parameter)] for parameter in group["params"] if id(parameter) in place]:
            gradient, change, weight = first.gradients[index], first.changes[index], first.weights[index]
            if gradient is None:
                continue
            taken = (strength * (lr if at_once else 1.0)) ** 2 * first.weight_squares[index]
            decayed += taken
            rest += squares(change + lr * strength * weight) if at_once else squares(gradient)
            weights += first.weight_squares[index]
            moved += taken if at_once else lr**2 * taken if name in PLAIN else first.change_squares[index]
    if not decayed or not rest or not moved:
        return None, None
    return math.sqrt(decayed / rest), math.sqrt(weights / moved)


def of_layers(
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
    moved = sum(first.change_squares[index] for index in matrices)
    size = sum(first.weight_squares[index] for index in matrices)
    return math.sqrt(moved / size) if size and math.isfinite(moved) else None


def _share_below(own: list[int], first: FirstStep, floor: Floor | None) -> float | None:
    """Share of gradient entries below an optimizer's floor, exact zeros left out."""
    if floor is None or math.isinf(floor.floor):
        return None
    if floor.of == "matrix":
        norms = [math.sqrt(squares(found)) for found in (first.gradients[index] for index in own) if found is not None]
        there = [norm for norm in norms if norm]
        return sum(norm < floor.floor for norm in there) / len(there) if there else None
    below = counted = 0.0
    for sizes, _, each in _sampled(first, own):
        counted += each * sizes.numel()
        below += each * int((sizes < floor.floor).sum())
    return below / counted if counted else None
