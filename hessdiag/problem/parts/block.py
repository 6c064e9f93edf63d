"""One set of entries of the parameter vector, and where those of a parameter tensor lie."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.problem.problem import Problem


@dataclass(frozen=True, eq=False)
class Block:
    """Entries of the parameter vector that belong together.

    Attributes:
        name: For people.
        kind: What it is: the class of a module, "neuron", "Q", "class", ...
        indices: Where its entries lie in the parameter vector, int64, ascending.
    """

    name: str
    kind: str
    indices: Tensor


@dataclass(frozen=True, eq=False)
class Found:
    """Blocks of some kind in a model.

    Attributes:
        blocks: They may leave entries of the parameter vector out.
        notes: What a reader must know of how they were found.
    """

    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()


def starts(problem: Problem) -> dict[Tensor, int]:
    """The first entry of each parameter tensor in the parameter vector; frozen ones are not there."""
    return {parameter: place.start for parameter, place in zip(problem.parameters, problem.places(), strict=True)}


def entries(parameter: Tensor, start: int) -> Tensor:
    """The places of a tensor's entries in the parameter vector, in the tensor's shape.

    >>> entries(torch.zeros(2, 3), 10)
    tensor([[10, 11, 12],
            [13, 14, 15]])
    """
    return torch.arange(start, start + parameter.numel()).reshape(parameter.shape)


def merged(name: str, kind: str, parts: list[Tensor]) -> Block:
    """A block of several sets of entries."""
    return Block(name, kind, torch.cat([part.reshape(-1) for part in parts]).sort().values)


def aliases(problem: Problem) -> dict[Tensor, list[str]]:
    """All names that each parameter has in the model: several, where layers share it."""
    names: dict[Tensor, list[str]] = {}
    for name, parameter in problem.model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names
