"""What an evaluation must leave as it was: the parameters themselves, and graphs that can be differentiated again."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem.replaced import replaced


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters, trained or not."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def restore(model: nn.Module, kept: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Put parameters back that have changed since the snapshot, and name them."""
    with torch.no_grad():
        pairs = {
            name: (parameter, kept[name])
            for name, parameter in model.named_parameters()
            if name in kept and kept[name].shape == parameter.shape
        }
        # On a CPU nearly always at one look each; a GPU would be waited for.
        pairs = {name: pair for name, pair in pairs.items() if pair[0].device.type != "cpu" or not torch.equal(*pair)}
        if not pairs:
            return ()
        same = [((now == before) | (before != before)).all() for now, before in pairs.values()]  # NaN equals nothing
        told = torch.stack([flag.to(same[0].device) for flag in same]).cpu().tolist()  # a GPU is waited for once
        changed = tuple(name for name, unchanged in zip(pairs, told, strict=True) if not unchanged)
        for name in changed:
            now, before = pairs[name]
            now.copy_(before)
    return changed


def idle_renorm() -> AbstractContextManager[None]:
    """Let embeddings with `max_norm` write only where a row is too long: each write makes earlier graphs useless."""
    home: Any = nn.functional
    write = home._no_grad_embedding_renorm_

    def renorm(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> Any:
        sizes = weight.detach()[input.flatten()].norm(norm_type, dim=-1)
        if bool((sizes > max_norm * (1 + 1e-5)).any()):
            return write(weight, input, max_norm, norm_type)
        return weight, input

    return replaced(home, _no_grad_embedding_renorm_=renorm)


def plain_checkpoints() -> AbstractContextManager[None]:
    """Run reentrant activation checkpoints as the other kind: their backward pass refuses `torch.autograd.grad`.

    The reentrant kind looks its function up when it is called, wherever `checkpoint` itself was imported to.
    """
    home: Any = sys.modules.get("torch.utils.checkpoint")
    if home is None:  # nobody can have called it
        return nullcontext()

    class Plain:
        @staticmethod
        def apply(function: Any, preserve: bool, *args: Any) -> Any:
            return home.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve)

    return replaced(home, CheckpointFunction=Plain)


def idle_checkpoints() -> AbstractContextManager[None]:
    """Run what is checkpointed as it is: of what runs again by itself, a checkpoint would do so once more, too late."""
    home: Any = sys.modules.get("torch.utils.checkpoint")
    if home is None:  # nobody can have called it
        return nullcontext()

    class Idle:
        @staticmethod
        def apply(function: Any, preserve: bool, *args: Any) -> Any:
            return function(*args)

    def around(*args: Any, **kwargs: Any) -> Iterator[None]:
        yield

    return replaced(home, CheckpointFunction=Idle, _checkpoint_without_reentrant_generator=around)
