"""The vectors of an operator as its process holds them: whole ones, or of a sharded problem its pieces."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from hessdiag.linalg.spread import Alone, Spread
from hessdiag.machine.collectives import gathered
from hessdiag.machine.memory import chunk_size
from hessdiag.machine.processes import least
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.shards.layout import cut, share
from hessdiag.shards.problem import ShardedProblem
from hessdiag.shards.vocabulary.streamed import ways


class _Matrix(Protocol):
    matrix: str

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def spread(self) -> Spread: ...


def spread_over(problem: Problem) -> Spread:
    """How vectors of a problem's parameters are spread over processes."""
    return problem.layout if isinstance(problem, ShardedProblem) else Alone(problem.n_parameters)


def places(problem: Problem, layer: Layer | None = None) -> tuple[slice, ...]:
    """Where each parameter, or each of one layer, lies in a vector that is held here."""
    if not isinstance(problem, ShardedProblem):
        return problem.places(layer)
    pairs = zip(problem.places(), problem.layout.places, strict=True)
    return tuple(own for place, own in pairs if layer is None or layer.start <= place.start < layer.stop)


def tensor_of(problem: Problem, vector: Tensor, index: int) -> Tensor:
    """The numbers of one parameter in a vector that is held here, in its shape; gathered where they are spread.

    Args:
        problem: Whose vector it is.
        vector: (N,), or of a sharded problem (own,).
        index: Which of its parameters.
    """
    part, shape = vector[places(problem)[index]], problem.parameters[index].shape
    return whole_tensor(part, shape) if isinstance(problem, ShardedProblem) else part.view(shape)


def whole_tensor(piece: Tensor, shape: torch.Size) -> Tensor:
    """A tensor from everyone's piece of it."""
    return gathered(piece)[: shape.numel()].view(shape)


def put(problem: Problem, vector: Tensor, index: int, numbers: Tensor) -> None:
    """Write the numbers of one parameter, whole, into a vector that is held here."""
    part = numbers.reshape(-1)
    if isinstance(problem, ShardedProblem):
        part = cut(part, problem.layout.rank, problem.layout.size)
    vector[places(problem)[index]] = part.to(vector)


def width(slices: Sequence[slice]) -> int:
    """Numbers in several places."""
    return sum(place.stop - place.start for place in slices)


def unfit(operator: _Matrix, vectors: Tensor) -> str:
    """That a matrix cannot multiply a tensor, and what it could."""
    shape, own = operator.shape, operator.spread.own
    here = f", and this process holds {own:,} numbers of each vector" if own != shape[1] else ""
    return f"{operator.matrix} is {shape}{here}: it cannot multiply a tensor of shape {tuple(vectors.shape)}"


def not_finite(rows: Tensor, spread: Spread) -> bool:
    """Whether any process holds a number that is NaN or infinite; the same answer for all."""
    return bool(spread.summed((~rows.isfinite()).sum()))


def where_not_finite(problem: Problem, rows: Tensor, layer: Layer | None) -> str:
    """The first parameter whose columns are not finite, in words."""
    start = places(problem, layer)[0].start
    for (name, _), place in zip(problem.named_parameters, places(problem), strict=True):
        part = rows[:, max(place.start - start, 0) : max(place.stop - start, 0)]
        if not bool(part.isfinite().all()):
            return f", in {name} first"
    return ""


def versions(problem: Problem) -> tuple[int, ...]:
    """What changes when parameters are changed in place, by anything but `.data`; pieces are moved here alone."""
    leaves = () if isinstance(problem, ShardedProblem) else problem.parameters
    return tuple(leaf._version for leaf in leaves)


def joined(
    columns: list[Tensor | None], problem: Problem, layer: Layer | None, like: Tensor, out: Tensor | None
) -> Tensor:
    """Rows of the columns of each parameter (of the layer), in `out` if that is given.

    Args:
        columns: `None` for zeros. Of a sharded problem each is let go once it is copied.
        problem: Whose parameters they belong to.
        layer: The layer, or all.
        like: As many rows, of the dtype and on the device of vectors.
        out: Where they come.
    """
    slices = places(problem, layer)
    if not isinstance(problem, ShardedProblem):
        count, dtype = like.shape[0], like.dtype
        parts = [
            like.new_zeros(count, place.stop - place.start) if part is None else part.reshape(count, -1).to(dtype)
            for place, part in zip(slices, columns, strict=True)
        ]
        return torch.cat(parts, dim=1, out=out)
    rows = like.new_empty(len(like), width(slices)) if out is None else out
    for index, place in enumerate(slices):
        part, columns[index] = columns[index], None
        own = rows[:, place.start - slices[0].start : place.stop - slices[0].start]
        if part is None:
            own.zero_()
        else:
            own.copy_(part.reshape(len(like), -1))
    return rows


def at_once(problem: ShardedProblem, vector: int) -> int:
    """How many vectors share a pass: the same on all processes, though their memory is not.

    Args:
        problem: Of which each more of them takes the largest unit three times: it, its cotangent and its derivative.
        vector: Bytes of one that is held here.
    """
    assert problem.units is not None
    largest = problem.units.largest * problem.dtype.itemsize
    return least(chunk_size(largest, vector, problem.device), problem.device)


def heads(problem: Problem, *, asked: bool) -> list[str]:
    """What was done with the outputs of large heads, in words, if there are any; see `ways`."""
    said = ways(problem.model, asked=asked) if isinstance(problem, ShardedProblem) else None
    return [] if said is None else [said]


def unit_rows(problem: ShardedProblem, indices: Tensor, dtype: torch.dtype) -> Tensor:
    """This process's part of unit vectors, (k, own), by their numbers in a whole one."""
    layout = problem.layout
    rows = torch.zeros(len(indices), layout.own, dtype=dtype, device=problem.device)
    for row, index in enumerate(indices.tolist()):
        for place, own, count in zip(problem.places(), layout.places, layout.counts, strict=True):
            if place.start <= index < place.stop:
                rank, inside = divmod(index - place.start, share(count, layout.size))
                if rank == layout.rank:
                    rows[row, own.start + inside] = 1.0
    return rows
