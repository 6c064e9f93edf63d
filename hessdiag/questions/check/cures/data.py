"""Cures of the data: inputs and targets brought to a mean of 0 and a standard deviation of 1, or the output to them."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError
from hessdiag.numbers import number
from hessdiag.problem.batches import batch as batches
from hessdiag.questions.check.cures.cure import Cure, Setup
from hessdiag.questions.check.cures.initialize import matrices
from hessdiag.questions.check.result import Cause, Check
from hessdiag.questions.check.watching.incoming import named_inputs

SPELLED = 10  # units of an output whose biases are written out; of more, they are zero
SMALL = 0.01  # standard deviation of targets: their squared errors are below 1e-4
STEEP = 10.0  # a feature varies so many times more than most: each is standardized by itself


def standard_inputs(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """(x - mean) / std, per tensor; per feature first, where features differ much in size."""
    real = [one for one in found.inputs if one.kind == "real"]
    named = [one for one in real if cause.layer is not None and cause.layer in (one.taken_by, one.name)]
    chosen = (named or sorted(real, key=lambda one: -_oddness(one.mean, one.stdev)))[:1]
    if not chosen:
        return []
    name, steep = chosen[0].name, (chosen[0].steepest or 1.0) > STEEP
    pieces = [piece for batch in setup.data if (piece := _input(batch, name)) is not None]
    if not pieces:
        return []
    kinds = (True, False) if steep else (False, True)
    return [cure for by_feature in kinds if (cure := _standard(name, pieces, by_feature)) is not None]


def _oddness(mean: float | None, stdev: float | None) -> float:
    if mean is None or stdev is None:
        return 0.0
    return abs(math.log(max(math.hypot(mean, stdev), 1e-30)))


def _standard(name: str, pieces: list[Tensor], by_feature: bool) -> Cure | None:
    axis = 1 if pieces[0].ndim == 4 else pieces[0].ndim - 1  # channels of images, else the last
    if by_feature and pieces[0].ndim < 2:
        return None
    keep = [dim for dim in range(pieces[0].ndim) if dim != axis] if by_feature else list(range(pieces[0].ndim))
    whole = torch.cat([piece.detach().double() for piece in pieces])
    mean, std = whole.mean(keep, keepdim=True), whole.std(keep, keepdim=True, correction=0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    if not (bool(mean.isfinite().all()) and bool(std.isfinite().all())):
        return None

    def change(tensor: Tensor) -> Tensor:
        return ((tensor.double() - mean.to(tensor.device)) / std.to(tensor.device)).to(tensor.dtype)

    def apply(setup: Setup) -> Setup:
        return replace(setup, data=tuple(_with_input(batch, name, change) for batch in setup.data))

    var = name if name.isidentifier() else "x"
    if by_feature:
        dims = tuple(keep)
        code = (
            f"mean, std = {var}.mean({dims}, keepdim=True), {var}.std({dims}, keepdim=True)  # of the training data\n"
            f"{var} = ({var} - mean) / std"
        )
        says = "Standardizes each feature of the inputs: mean 0, standard deviation 1."
        return Cure("inputs standardized by feature", says, code, apply)
    centre, width = float(mean), float(std)
    code = f"{var} = ({var} - {centre:.4g}) / {width:.4g}"
    says = f"Standardizes the inputs, whose mean is {number(centre)} and standard deviation {number(width)}."
    return Cure("inputs standardized", says, code, apply)


def _input(batch: Any, name: str) -> Tensor | None:
    """The real tensor of this name among the inputs of a batch."""
    found = dict(named_inputs(batch)).get(name)
    return found if found is not None and found.is_floating_point() and found.ndim else None


def _with_input(batch: Any, name: str, change: Callable[[Tensor], Tensor]) -> Any:
    own = _input(batch, name)
    return batches.map_tensors(lambda tensor: change(tensor) if tensor is own else tensor, batch)


def to_targets(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """Targets standardized where they are real; else the output's bias at what their frequencies ask."""
    kind = found.targets.kind if found.targets is not None else "none"
    if kind == "real":
        return [*_standard_targets(setup), *output_bias(found, setup, kind)]
    return output_bias(found, setup, kind)


def small_targets(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """Targets standardized where they are real and so small that losses and gradients are tiny."""
    targets = found.targets
    small = targets is not None and targets.kind == "real" and targets.stdev is not None and targets.stdev < SMALL
    return _standard_targets(setup) if small else []


def _targets(setup: Setup) -> list[Tensor]:
    try:
        found = [batches.split(batch)[1] for batch in setup.data]
    except LoadError:
        return []
    return found if all(isinstance(target, Tensor) for target in found) else []


def _standard_targets(setup: Setup) -> list[Cure]:
    targets = _targets(setup)
    if not targets:
        return []
    whole = torch.cat([target.detach().double().flatten() for target in targets])
    mean, std = float(whole.mean()), float(whole.std(correction=0))
    if not (math.isfinite(mean) and std > 0):
        return []

    def apply(setup: Setup) -> Setup:
        data = tuple(with_target(batch, lambda target: (target - mean) / std) for batch in setup.data)
        original = setup.objective

        def judge(model: Any, batch: Any) -> Tensor:
            """The loss in the targets' own units."""
            back = with_target(batch, lambda target: target * std + mean)
            return original(Mapped(model, lambda output: output * std + mean), back)

        return replace(setup, data=data, judge=judge)

    code = f"y = (y - {mean:.4g}) / {std:.4g}  # and predictions are model(x) * {std:.4g} + {mean:.4g}"
    says = f"Standardizes the targets, whose mean is {number(mean)} and standard deviation {number(std)}."
    return [Cure("targets standardized", says, code, apply)]


def with_target(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same batch with a function applied to its target."""
    own = batches.split(batch)[1]
    return batches.map_tensors(lambda tensor: change(tensor) if tensor is own else tensor, batch)


class Mapped(nn.Module):
    """A model whose output goes through a function."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, *args: Any, **keywords: Any) -> Tensor:
        """The function of the tensor that a loss takes."""
        return self.change(batches.output_tensor(self.model(*args, **keywords)))


def targets_in_range(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """Binary targets of another size, 0 and 255, divided by it; others are wrong in the user's own data."""
    targets = found.targets
    high, low = (targets.high, targets.low) if targets is not None else (None, None)
    if targets is None or targets.kind != "binary" or high is None or low is None or low < 0 or high <= 1:
        return []

    def change(target: Tensor) -> Tensor:
        return (target / high).to(target.dtype)

    def apply(setup: Setup) -> Setup:
        return replace(setup, data=tuple(with_target(batch, change) for batch in setup.data))

    def judged(setup: Setup) -> Setup:
        original = setup.objective
        return replace(setup, judge=lambda model, batch: original(model, with_target(batch, change)))

    says = f"Divides the targets by {number(high)}, so that they are from 0 to 1."
    return [Cure("targets from 0 to 1", says, f"y = y / {high:g}", apply, judged=judged)]


def output_bias(found: Check, setup: Setup, kind: str) -> list[Cure]:
    """The bias of the last layer at what the mean of the targets asks."""
    names = [one.layer for one in found.layers if one.fan_in is not None]
    modules = matrices(setup.model)
    name = names[-1] if names and names[-1] in modules else next(reversed(modules), None)
    targets = _targets(setup)
    bias = getattr(modules.get(name or ""), "bias", None)
    if name is None or not targets or not isinstance(bias, Tensor):
        return []
    rows = [target.flatten() if kind != "real" else target.reshape(len(target), -1) for target in targets]
    wanted = _wanted(torch.cat(rows), kind, bias.numel())
    if wanted is None:
        return []

    def apply(setup: Setup) -> Setup:
        with torch.no_grad():
            bias = setup.model.get_submodule(name).bias
            assert isinstance(bias, Tensor)
            bias.copy_(wanted)
        return replace(setup)

    what = {"classes": "the logarithms of the class frequencies", "binary": "the log-odds of the targets"}
    own = f'model.get_submodule("{name}").bias'
    values = [float(f"{value:.4g}") for value in wanted[:SPELLED].tolist()]
    change = "zero_()" if bias.numel() > SPELLED else f"copy_(torch.tensor({values}))"
    code = f"with torch.no_grad():\n    {own}.{change}"
    says = f"Sets the bias of layer {name} to {what.get(kind, 'the mean of the targets')}."
    return [Cure("output bias from the targets", says, code, apply, weights=True)]


def _wanted(targets: Tensor, kind: str, units: int) -> Tensor | None:
    if kind == "classes":
        kept = targets[(targets >= 0) & (targets < units)].long()
        if units > SPELLED:
            return torch.zeros(units)
        counts = torch.bincount(kept, minlength=units).double() + 1
        return (counts / counts.sum()).log().to(torch.float32)
    mean = targets.double().mean(0) if kind == "real" else targets.double().mean()
    if kind == "binary":
        share = mean.clamp(0.01, 0.99)
        mean = (share / (1 - share)).log()
    return mean.expand(units).to(torch.float32) if mean.numel() in (1, units) else None
