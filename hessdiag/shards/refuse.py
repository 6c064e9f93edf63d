"""Models whose sharded derivatives would be wrong, or another model's: refused, each with what works."""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from hessdiag.errors import LoadError
from hessdiag.problem.evaluation import privately
from hessdiag.problem.problem import Problem
from hessdiag.problem.wrappers import refuse_spread
from hessdiag.shards.graphs import nodes
from hessdiag.shards.placeholder import Placeholder
from hessdiag.shards.trees import flattened
from hessdiag.shards.units import Unit

UNSHARDED = "without --shard"
_LOOKUPS = (nn.Embedding, nn.EmbeddingBag)
_BYTES = (torch.int8, torch.uint8)
Found = weakref.ref[nn.Parameter]
_QUANTIZED = ("torch.ao.nn.", "torch.nn.quantized", "torchao.", "bitsandbytes.")


def model(found: nn.Module, *, train_mode: bool) -> None:
    """Refuse a model before anything is read or cut, by what its modules and parameters are.

    Args:
        found: The model.
        train_mode: Whether it will be evaluated in training mode.

    Raises:
        LoadError: saying which module or parameter it is, and what works.

    >>> model(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.1)), train_mode=False)
    >>> model(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.1)), train_mode=True)
    Traceback (most recent call last):
        ...
    hessdiag.errors.LoadError: 1 (Dropout, p = 0.1) drops in training mode, and each unit of a sharded model ...
    """
    refuse_spread(found)
    for name, module in found.named_modules():
        what = f"{name or 'the model'} ({type(module).__name__}"
        if isinstance(module, torch.jit.ScriptModule):
            raise LoadError(
                f"{what}) is compiled by torch.jit, and its parameters cannot be taken out of it.",
                f"the model from before torch.jit.script or torch.jit.trace; or {UNSHARDED}",
            )
        if type(module).__module__.startswith(_QUANTIZED):
            raise LoadError(
                f"{what}) is quantized: its steps have no second derivative.", "the weights from before quantization"
            )
        if isinstance(module, _LOOKUPS) and module.max_norm is not None:
            raise LoadError(
                f"{what}, max_norm = {module.max_norm:g}) rewrites its weight in the forward pass, and a sharded "
                "one is gathered anew for each.",
                f"{UNSHARDED}, or max_norm=None once its rows are short",
            )
        if isinstance(module, _LOOKUPS) and module.scale_grad_by_freq:
            raise LoadError(
                f"{what}, scale_grad_by_freq) divides the gradient of each row by how often a batch looks it up, of "
                "which each process has some samples.",
                f"scale_grad_by_freq=False, with which gradients are those of the loss; or {UNSHARDED}",
            )
        if train_mode and isinstance(module, _DropoutNd) and module.p > 0:
            raise LoadError(
                f"{what}, p = {module.p:g}) drops in training mode, and each unit of a sharded model runs several "
                "times, with another mask each.",
                f"no --train-mode, p = 0, or {UNSHARDED}",
            )
        if train_mode and isinstance(module, _BatchNorm):
            raise LoadError(
                f"{what}) takes the statistics of the batch in training mode, and each process has some of "
                "its samples.",
                f"no --train-mode, or {UNSHARDED}",
            )
    for name, parameter in found.named_parameters():
        _parameter(name, parameter)


def _parameter(name: str, parameter: nn.Parameter) -> None:
    if parameter.is_quantized or parameter.dtype in _BYTES:
        kind = str(parameter.dtype).removeprefix("torch.")
        raise LoadError(
            f"the parameter {name} is quantized ({kind}): its steps have no second derivative.",
            "the weights from before quantization",
        )
    hooks = getattr(parameter, "_backward_hooks", None) or getattr(parameter, "_post_accumulate_grad_hooks", None)
    if hooks:
        raise LoadError(
            f"the parameter {name} has a hook on its gradient, which would not see the pieces of a sharded one.",
            f"the model without register_hook on parameters, or {UNSHARDED}",
        )


def numberless(found: nn.Module, where: str) -> None:
    """Refuse parameters and buffers on the device meta, which nothing has filled.

    Raises:
        LoadError: naming the first.
    """
    for name, item in (*found.named_parameters(), *found.named_buffers()):
        if item.is_meta:
            raise LoadError(
                f"{name} of {where} is on the device meta: it has a shape, and no numbers.", "--weights FILE"
            )


def evaluated(problem: Problem, units: Iterable[Unit], batch: Any, before: Iterable[Found] = ()) -> None:
    """Refuse what one evaluation shows: random numbers, parameters that are not the model's, and rewritten ones.

    Called by all processes.

    Args:
        problem: Evaluated before, so that all that it needs is known.
        units: Of its model.
        batch: This process's samples of one batch, of as many as a trial should see.
        before: Parameters that the model had before it was sharded, of which some may still be somewhere.

    Raises:
        LoadError: saying which, and what works.
    """
    known = [parameter for one in before if (parameter := one()) is not None]
    with problem.evaluation(), _watched(units, known):
        states = privately.draws_taken(problem.device)
        value = problem.objective_function(problem.model, batch)
        draws(states, privately.draws_taken(problem.device))
    strangers([value], known)


@contextlib.contextmanager
def _watched(units: Iterable[Unit], known: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within, refuse units that change their parameters, which are gathered anew each time, or compute with others."""
    kept = [(unit, unit.forward) for unit in units]
    try:
        for unit, forward in kept:
            unit.forward = partial(_compared, unit, forward, known)
        yield
    finally:
        for unit, forward in kept:
            unit.forward = forward


def _compared(unit: Unit, forward: Callable[..., Any], known: Sequence[nn.Parameter], *args: Any, **kwargs: Any) -> Any:
    sums = _sums_of(unit.module)
    result = forward(*args, **kwargs)
    strangers((item for item in flattened(result)[0] if isinstance(item, Tensor)), known)
    for name, after in _sums_of(unit.module).items():
        if not torch.equal(sums[name], after):
            raise LoadError(
                f"{'.'.join(filter(None, (unit.path, name)))} is rewritten in the forward pass, and a sharded "
                "parameter is gathered anew for each.",
                f"a model that leaves its parameters as they are, or {UNSHARDED}",
            )
    return result


def _sums_of(module: nn.Module) -> dict[str, Tensor]:
    """By which parameters that are there are compared."""
    with torch.no_grad():
        return {
            name: torch.stack([item.sum(), torch.dot(item.flatten(), item.flatten())])
            for name, item in module.named_parameters()
            if not isinstance(item, Placeholder)
        }


def strangers(values: Iterable[Tensor], own: Iterable[nn.Parameter]) -> None:
    """Refuse an objective that depends on whole parameters that a model had before it was sharded.

    A loss that holds the model itself, to penalize its weights, would be differentiated only in part.

    Args:
        values: Of the objective, or what a unit computed on the way, with their graphs.
        own: Parameters of the model before.

    Raises:
        LoadError: with the shape of one of them.
    """
    known = {id(parameter) for parameter in own}
    for node in nodes(values):
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) in known:
            raise LoadError(
                f"the loss depends on a parameter of shape {tuple(leaf.shape)} that the model was built with, and not "
                "by the model that it is given: of a sharded one it would be left out.",
                f"--objective FILE.py:f, where f(model, batch) takes parameters from its model, or {UNSHARDED}",
            )


def draws(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    """Refuse a forward pass that draws random numbers, told by the states of torch's generators before and after it.

    Raises:
        LoadError: if it has drawn.
    """
    if not all(map(torch.equal, before, after)):
        raise LoadError(
            "the forward pass draws random numbers, and each unit of a sharded model runs several times, with others "
            "each.",
            f"p = 0 where it drops, no --train-mode, no noise in the model; or {UNSHARDED}",
        )
