"""Cures of how a network is trained: modes, dtype, what is trained, and the optimizer's settings."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from hessdiag.numbers import number
from hessdiag.problem.batches import batch as batches
from hessdiag.questions.check.cures.cure import Cure, Setup
from hessdiag.questions.check.cures.data import Mapped, small_targets, with_target
from hessdiag.questions.check.result import Cause, Check

DROP = 0.1
PLAIN_EPS = 1e-8
BELOW_GRADIENTS = 100  # times that an epsilon is to be smaller than the median gradient
UPDATE = 1e-3  # of the weights, in one step
REPLACED, USUAL = 0.5, 0.02  # of the weights in one step: from the first on, the other is tried first
PLAIN_DECAY = 1e-4
DECAY_SHARE = 0.01  # of a step, that weight decay may take

_NORMS = nn.modules.batchnorm._BatchNorm


def training_mode(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """`model.train()`, and running statistics of the data in what is saved."""
    if all(module.training for module in setup.model.modules()):
        return []

    def apply(setup: Setup) -> Setup:
        setup.model.train()
        return setup

    says = "Trains in training mode: normalization by the statistics of each batch."
    tracked = any(isinstance(module, _NORMS) and module.track_running_stats for module in setup.model.modules())
    code = "model.train()  # before the training loop, and after every evaluation"
    return [Cure("training mode", says, code, apply, weights=tracked, settle=calibrate)]


@torch.no_grad()
def calibrate(setup: Setup) -> None:
    """Running statistics of normalizations: plain averages over the batches."""
    norms = [module for module in setup.model.modules() if isinstance(module, _NORMS) and module.track_running_stats]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        for batch in setup.data:
            setup.objective(setup.model, batch)
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum


def less_dropout(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """A smaller probability of dropping."""
    names = [
        name
        for name, module in setup.model.named_modules()
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > DROP
    ]
    if not names:
        return []

    def apply(setup: Setup) -> Setup:
        for name in names:
            setup.model.get_submodule(name).p = DROP  # type: ignore[assignment]
        return setup

    code = "for module in model.modules():\n    if isinstance(module, torch.nn.Dropout):\n"
    code += f"        module.p = min(module.p, {DROP})"
    return [Cure("less dropout", f"Drops {number(DROP)} of the units instead of more.", code, apply)]


def wider_numbers(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """The next wider dtype."""
    parameter = batches.real_parameter(setup.model)
    if parameter is None or parameter.dtype == torch.float64:
        return []
    dtype = torch.float64 if parameter.dtype == torch.float32 else torch.float32

    def wide(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    def apply(setup: Setup) -> Setup:
        setup.model.to(dtype)
        return replace(setup, data=tuple(batches.map_tensors(wide, batch) for batch in setup.data))

    def judged(setup: Setup) -> Setup:
        """In the narrow dtype a loss may be rounded to zero."""
        original = setup.objective
        return replace(setup, judge=lambda model, batch: original(Mapped(model, wide), with_target(batch, wide)))

    name = str(dtype).removeprefix("torch.")
    says = f"Trains in {name}, whose range is wider than that of {str(parameter.dtype).removeprefix('torch.')}."
    wider = Cure(name, says, f"model.to(torch.{name})  # and x.to(torch.{name})", apply, weights=True, judged=judged)
    return [wider, *(wider.then(one) for one in small_targets(found, cause, setup))]


def _optimizer(name: str, says: str, **settings: float) -> Cure:
    """Other settings of the optimizer."""
    code = ", ".join(f"{key}={value:g}" for key, value in settings.items())
    return Cure(
        name,
        says,
        f"{code}  # of the optimizer",
        lambda setup: replace(setup, recipe=setup.recipe.with_settings(**settings)),
    )


def smaller_steps(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """A learning rate at half of what the curvature allows, or of usual updates; a tenth, a hundredth."""
    step = found.step
    if step is None or not step.lr:
        return []
    factors = [0.1, 0.01, 0.001]
    sharp = step.lambda_max if step.lambda_max is not None else step.curvature
    if step.lambda_threshold and sharp and sharp > 0 and step.lambda_threshold / sharp < 0.6:
        factors.insert(0, 0.5 * step.lambda_threshold / sharp)
    if step.update_ratio and step.update_ratio > REPLACED:
        factors.insert(0, USUAL / step.update_ratio)
    return [learning_rate(step.lr, factor) for factor in factors[:3]]


def larger_steps(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """A learning rate at which a step changes the weights by a thousandth; less, where that is too much."""
    step = found.step
    if step is None or not step.lr or not step.update_ratio:
        return []
    factor = UPDATE / step.update_ratio
    return [learning_rate(step.lr, one) for one in (factor, 10 * factor, factor / 10) if one > 1]


def learning_rate(lr: float, factor: float) -> Cure:
    """Another learning rate, of the same ratios between groups."""
    new = float(f"{lr * factor:.2g}")
    says = f"Trains with a learning rate of {number(new, 2)} instead of {number(lr, 2)}."
    return _optimizer(f"learning rate {number(new, 2)}", says, lr=new)


def smaller_epsilon(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """An epsilon far below the gradients."""
    settings = found.step.settings if found.step is not None else {}
    now = settings.get("eps")
    if not now:
        return []
    sizes = sorted(one.gradient_rms for one in found.layers if one.gradient_rms)
    typical = sizes[len(sizes) // 2] if sizes else None
    new = min(PLAIN_EPS, typical / BELOW_GRADIENTS) if typical else PLAIN_EPS
    new = float(f"{new:.1g}")
    if new >= now:
        return small_targets(found, cause, setup)
    says = f"Trains with an epsilon of {number(new, 2)} instead of {number(now, 2)}, far below the gradients."
    return [
        _optimizer(f"epsilon {number(new, 2)}", says, eps=new),
        *small_targets(found, cause, setup),
    ]


def less_decay(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """Weight decay that takes no more than a hundredth of a step."""
    step = found.step
    now = step.settings.get("weight_decay") if step is not None else None
    if step is None or not now:
        return []
    balanced = now * DECAY_SHARE / step.decay_ratio if step.decay_ratio else PLAIN_DECAY
    values = [float(f"{value:.1g}") for value in (balanced, PLAIN_DECAY, 0.0) if value < now]
    return [
        _optimizer(
            f"weight decay {number(value, 1)}",
            f"Trains with a weight decay of {number(value, 1)} instead of {number(now, 2)}.",
            weight_decay=value,
        )
        for value in dict.fromkeys(values)
    ]
