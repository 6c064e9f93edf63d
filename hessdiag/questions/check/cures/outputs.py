"""Cures of what the loss receives: probabilities made logits again."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem.batches import batch as batches
from hessdiag.problem.losses.loss import Objective
from hessdiag.questions.check.cures.cure import Apply, Cure, Setup
from hessdiag.questions.check.cures.data import Mapped, to_targets
from hessdiag.questions.check.result import Cause, Check

Change = Callable[[Tensor], Tensor]

_BOUNDED = (nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Softsign, nn.ReLU, nn.ReLU6, nn.Softplus, nn.Softmax)
_MODULES = {"softmax": (nn.Softmax, nn.Softmax2d), "sigmoid": (nn.Sigmoid,), "log_softmax": (nn.LogSoftmax,)}


def logits(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """The softmax or sigmoid taken out, or its inverse put before the loss."""
    kind = found.output.probabilities if found.output is not None else None
    if kind not in ("softmax", "sigmoid"):
        return []
    if setup.kind == "nll":
        return [_logarithm()] if kind == "softmax" else []
    name = _last(setup, _MODULES[kind])
    return [_without_module(name, kind) if name is not None else _inverted(kind)]


def aligned(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """The output in the targets' shape, where they differ by a last dimension of 1."""
    inputs, target = batches.split(setup.data[0])
    output = batches.output_tensor(batches.forward(setup.model, inputs))
    for name, changed in (("squeeze", output[..., :1].squeeze(-1)), ("unsqueeze", output.unsqueeze(-1))):
        if isinstance(target, Tensor) and changed.shape == target.shape:
            change = partial(getattr(torch, name), dim=-1)
            says = f"Gives the output the targets' shape, {tuple(target.shape)} instead of {tuple(output.shape)}."
            code = f"loss = criterion(model(x).{name}(-1), y)"
            return [Cure("output in the targets' shape", says, code, received(change), judged=_measured(change))]
    return []


def unbounded(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """The nonlinearity at the end taken out, with targets of size 1 where they are real; else those alone."""
    real = found.targets is not None and found.targets.kind == "real"
    targets = to_targets(found, cause, setup)[:1] if real else []
    name = _last(setup, _BOUNDED)
    if name is None:
        return targets
    kind = type(setup.model.get_submodule(name)).__name__

    def apply(other: Setup) -> Setup:
        _remove(other, name)
        return other

    says = f"Removes the {kind} at the end ({name}), which bounds what the network can put out."
    plain = Cure(f"{kind} removed", says, _removal(name), apply)
    return [plain.then(targets[0]), *targets] if targets else [plain]


def _last(setup: Setup, kinds: tuple[type[nn.Module], ...]) -> str | None:
    """The module of these kinds whose output is the model's, where it is called once."""
    calls: dict[str, list[Any]] = {}
    hooks = [
        module.register_forward_hook(lambda m, i, output, name=name: calls.setdefault(name, []).append(output))
        for name, module in setup.model.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        output = batches.output_tensor(batches.forward(setup.model, batches.split(setup.data[0])[0]))
    finally:
        for hook in hooks:
            hook.remove()
    for name, made in calls.items():
        if len(made) == 1 and made[0].numel() == output.numel() and bool((made[0].flatten() == output.flatten()).all()):
            return name
    return None


def _without_module(name: str, kind: str) -> Cure:
    def apply(setup: Setup) -> Setup:
        _remove(setup, name)
        return setup

    says = f"Removes the {kind} at the end ({name}): the loss applies its own to logits."
    code = f"{_removal(name)}  # probabilities, where needed: torch.{kind}(model(x)"
    code += ", -1)" if kind == "softmax" else ")"
    return Cure(f"{kind} removed", says, code, apply, judged=_measured(_INVERSES[kind]))


def _remove(setup: Setup, name: str) -> None:
    parent, _, own = name.rpartition(".")
    setattr(setup.model.get_submodule(parent), own, nn.Identity())


def _removal(name: str) -> str:
    parent, _, own = name.rpartition(".")
    owner = f'model.get_submodule("{parent}")' if parent else "model"
    return f'setattr({owner}, "{own}", torch.nn.Identity())'


def _logarithm() -> Cure:
    apply = received(_log)
    says = "Gives the loss logarithms of the softmax's probabilities, which it takes."
    code = "torch.log_softmax(x, -1)  # instead of torch.softmax(x, -1)"
    return Cure("logarithms of the probabilities", says, code, apply, judged=_measured(_log))


def received(change: Change) -> Apply:
    """The loss receives a function of the output."""
    return lambda setup: replace(setup, objective=_of(setup, change))


def _measured(change: Change) -> Apply:
    """Training is as it was, but the network is judged by the loss of a function of the output."""
    return lambda setup: replace(setup, judge=_of(setup, change))


def _of(setup: Setup, change: Change) -> Objective:
    original = setup.objective
    return lambda model, batch: original(Mapped(model, change), batch)


def _inverted(kind: str) -> Cure:
    apply = received(_INVERSES[kind])
    inverse = "log(p)" if kind == "softmax" else "log(p / (1 - p))"
    code = {
        "softmax": "return x  # at the end of forward, instead of torch.softmax(x, -1)",
        "sigmoid": "return x  # at the end of forward, instead of torch.sigmoid(x)",
    }[kind]
    says = f"Gives the loss logits instead of the {kind}'s probabilities (tried as {inverse} before the loss)."
    return Cure(f"{kind} removed", says, code, apply, judged=_measured(_INVERSES[kind]))


def _log(p: Tensor) -> Tensor:
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def _logit(p: Tensor) -> Tensor:
    return torch.logit(p, eps=torch.finfo(p.dtype).eps)


_INVERSES: dict[str, Change] = {"softmax": _log, "sigmoid": _logit}
