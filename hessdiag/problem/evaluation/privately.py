"""What an evaluation may write to and is put back: buffers, and torch's random numbers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hessdiag.problem.seeds import sow


@contextmanager
def private_buffers(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let the forward pass write to copies of the buffers, so that running statistics stay as they were."""
    kept = [
        (module, name, buffer) for module in modules for name, buffer in module._buffers.items() if buffer is not None
    ]
    copies = copied({id(buffer): buffer for _, _, buffer in kept})
    try:
        for module, name, buffer in kept:
            module._buffers[name] = copies[id(buffer)]
        yield
    finally:
        for module, name, buffer in kept:
            module._buffers[name] = buffer


def copied(buffers: dict[int, Tensor]) -> dict[int, Tensor]:
    """Copies of tensors by the same keys; on a GPU those of one kind at once, for each would be a launch of its own."""
    copies = {key: buffer.clone() for key, buffer in buffers.items() if buffer.device.type == "cpu"}
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for key in buffers.keys() - copies.keys():
        kinds[buffers[key].device, buffers[key].dtype].append(key)
    for keys in kinds.values():
        alike = [torch.empty_like(buffers[key]) for key in keys]
        torch._foreach_copy_(alike, [buffers[key] for key in keys])
        copies.update(zip(keys, alike, strict=True))
    return copies


@contextmanager
def own_draws(device: torch.device, seed: int) -> Iterator[None]:
    """Start torch's random numbers from a seed, and go on afterwards where they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        sow(seed, device)
        yield


def draws_taken(device: torch.device) -> tuple[Tensor, ...]:
    """How far torch's random numbers have come, on the host and on a GPU, which has to be waited for."""
    host = torch.random.get_rng_state()
    return (host, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (host,)
