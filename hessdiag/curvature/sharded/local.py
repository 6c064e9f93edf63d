"""Vectors of which each process holds a piece: random ones, and numbers of the whole from everyone's pieces."""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from hessdiag.linalg import tridiagonal
from hessdiag.machine.collectives import gathered, summed
from hessdiag.shards.layout import bounds
from hessdiag.shards.problem import ShardedProblem


def summed_numbers(numbers: Sequence[float]) -> list[float]:
    """Each number summed over all processes."""
    found: list[float] = summed(torch.tensor(numbers, dtype=torch.float64)).tolist()
    return found


def inner(*pairs: tuple[Tensor, Tensor]) -> list[float]:
    """Inner products of whole vectors, each from everyone's pieces (own,); one exchange for all."""
    return summed_numbers([tridiagonal.inner(a, b) for a, b in pairs])


def distance(a: Tensor, b: Tensor) -> float:
    """The norm of a difference of two whole vectors, with no room for it."""
    pairs = zip(tridiagonal.pieces(a), tridiagonal.pieces(b), strict=True)
    squares = reduce(torch.add, ((x.double() - y.double()).square().sum() for x, y in pairs))
    return math.sqrt(summed_numbers([float(squares)])[0])


def norm(vector: Tensor) -> float:
    """Of a whole vector."""
    return math.sqrt(inner((vector, vector))[0])


def largest(vector: Tensor) -> float:
    """The magnitude of the whole vector's largest number; infinite if any is not finite."""
    size = float(gathered(vector.abs().max().reshape(1)).max())
    return size if math.isfinite(size) else math.inf


def not_finite_in(problem: ShardedProblem, vector: Tensor) -> tuple[str, ...]:
    """Parameters in which a whole vector is not finite."""
    bad = summed_numbers([float(not bool(part.isfinite().all())) for part in problem.layout.pieces(vector)])
    return tuple(name for name, count in zip(problem.layout.names, bad, strict=True) if count)


def direction(problem: ShardedProblem, generator: torch.Generator) -> Tensor:
    """This process's piece (own,) of a random direction: the same one for any number of processes.

    It is zero in the rows of embeddings that padding freezes: their gradient is not the loss's.
    """
    dtype = torch.promote_types(problem.dtype, torch.float32)
    drawn = problem.layout.kept(lambda count: torch.randn(count, generator=generator).to(dtype))
    _leave_out_padding(problem, drawn)
    return drawn.to(problem.device)


def _leave_out_padding(problem: ShardedProblem, vector: Tensor) -> None:
    layout = problem.layout
    places = {id(parameter): index for index, parameter in enumerate(problem.parameters)}
    for module in problem.model.modules():
        if not isinstance(module, torch.nn.Embedding) or module.padding_idx is None or id(module.weight) not in places:
            continue
        index = places[id(module.weight)]
        start, stop = bounds(layout.counts[index], layout.rank, layout.size)
        width = module.weight.shape[1]
        first, last = (max(edge - start, 0) for edge in (module.padding_idx * width, (module.padding_idx + 1) * width))
        layout.pieces(vector)[index][first : min(last, stop - start)] = 0.0
