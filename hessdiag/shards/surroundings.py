"""What a module finds beside its arguments, and has to find again, buffers and random numbers; and what it leaves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem.evaluation.privately import draws_taken


@dataclass
class Surroundings:
    """What a module found that it changed.

    Attributes:
        buffers: Those that it wrote to, as they were: of which module, by which name.
        states: Of torch's random numbers on the host and on a GPU, if it drew some.
    """

    buffers: tuple[tuple[nn.Module, str, Tensor], ...] = ()
    states: tuple[Tensor, ...] = ()

    @contextmanager
    def put(self, device: torch.device) -> Iterator[None]:
        """Within, the module finds the same; what it changes is forgotten.

        >>> norm = nn.BatchNorm1d(1)
        >>> with watched(norm, torch.device("cpu")) as found:
        ...     _ = norm.num_batches_tracked.add_(1)
        >>> with found.put(torch.device("cpu")):
        ...     int(norm.num_batches_tracked)
        0
        >>> int(norm.num_batches_tracked)
        1
        """
        buffers = [(owner, name, owner._buffers[name]) for owner, name, _ in self.buffers]
        states = draws_taken(device) if self.states else ()
        try:
            for owner, name, held in self.buffers:
                owner._buffers[name] = held.clone()
            _go_on_from(self.states, device)
            yield
        finally:
            _go_on_from(states, device)
            for owner, name, current in buffers:
                owner._buffers[name] = current


@contextmanager
def watched(module: nn.Module, device: torch.device) -> Iterator[Surroundings]:
    """What a module finds that it changes within: it is there when this is left."""
    found, states = Surroundings(), draws_taken(device)
    before = [
        (owner, name, item, item.clone(), item._version)
        for owner in module.modules()
        for name, item in owner._buffers.items()
        if item is not None
    ]
    yield found
    found.buffers = tuple(
        (owner, name, held)
        for owner, name, item, held, version in before
        if owner._buffers[name] is not item or item._version != version
    )
    if not all(map(torch.equal, states, draws_taken(device))):
        found.states = states


Home = tuple[dict[str, Any], str]  # where a module keeps a tensor: among its attributes or its buffers, by which name


def with_graphs(module: nn.Module) -> list[tuple[Home, Tensor]]:
    """The tensors with a graph in attributes and buffers of a module and those below it.

    >>> layer = nn.Linear(1, 1)
    >>> layer.last = layer(torch.ones(1, 1))
    >>> [name for (_, name), _ in with_graphs(layer)]
    ['last']
    """
    return [
        ((home, name), item)
        for owner in module.modules()
        for home in (vars(owner), owner._buffers)
        for name, item in home.items()
        if isinstance(item, Tensor) and item.requires_grad and not item.is_leaf
    ]


def _go_on_from(states: tuple[Tensor, ...], device: torch.device) -> None:
    if states:
        torch.random.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
