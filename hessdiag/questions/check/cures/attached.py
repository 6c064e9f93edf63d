"""Cures of what is not trained: frozen parameters, and parts that the user's code cuts off."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hessdiag.problem.losses.loss import Objective
from hessdiag.questions.check.cures.cure import Cure, Setup
from hessdiag.questions.check.result import Cause, Check


def trained(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """Frozen parameters trained; else what cuts a part off in the user's code, left out."""
    frozen = [name for name, parameter in setup.model.named_parameters() if not parameter.requires_grad]
    own = [name for name in frozen if cause.layer is not None and name.rpartition(".")[0] == cause.layer]
    if own:
        return [_unfrozen(own, cause.layer), *([_unfrozen(frozen, None)] if len(own) < len(frozen) else [])]
    if frozen and cause.layer is None:
        return [_unfrozen(frozen, None)]
    return [_attached(cause.layer)] if _reached(setup, cause.layer) else []


def _unfrozen(names: list[str], layer: str | None) -> Cure:
    def apply(setup: Setup) -> Setup:
        for name, parameter in setup.model.named_parameters():
            if name in names:
                parameter.requires_grad_(True)
        return setup

    where = "model" if layer is None else f'model.get_submodule("{layer}")'
    says = f"Trains layer {layer}, which is frozen." if layer else "Trains all layers, some of which are frozen."
    return Cure("unfrozen", says, f"{where}.requires_grad_(True)  # before the optimizer is made", apply)


def _attached(layer: str | None) -> Cure:
    def apply(setup: Setup) -> Setup:
        return replace(setup, objective=_through(setup.objective))

    whom = f"layer {layer}" if layer else "the layers that get no gradient"
    says = f"Lets the gradient through to {whom}: without .detach(), .data and torch.no_grad() in forward."
    code = f"# in forward, between {whom} and the loss: no .detach(), no .data, no torch.no_grad()"
    return Cure("nothing detached", says, code, apply)


def _reached(setup: Setup, layer: str | None) -> bool:
    """Whether a gradient arrives once nothing is detached."""
    named = [
        parameter
        for name, parameter in setup.model.named_parameters()
        if parameter.requires_grad and layer in (None, name.rpartition(".")[0])
    ]
    loss = _through(setup.objective)(setup.model, setup.data[0])
    if not named or not loss.requires_grad:
        return False
    gradients = torch.autograd.grad(loss, named, allow_unused=True)
    return all(gradient is not None for gradient in gradients)


def _through(objective: Objective) -> Objective:
    return lambda model, batch: objective(_Attached(model), batch)


class _Attached(nn.Module):
    """A model in whose forward pass nothing is detached."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **keywords: Any) -> Any:
        with _Attaching():
            return self.model(*args, **keywords)


class _Attaching(TorchFunctionMode):
    """Leaves out what cuts a graph."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.detach, torch.detach, Tensor.data.__get__):  # type: ignore[attr-defined]
            return args[0]
        if func is torch._C._set_grad_enabled and not args[0]:
            return None
        return func(*args, **(kwargs or {}))
