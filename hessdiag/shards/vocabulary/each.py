"""Functions of autograd under vmap, as products with several vectors call them: one vector after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import ComputeError


def rows(count: int, args: Sequence[Any], dims: Sequence[int | None]) -> list[list[Any]]:
    """For each vector its arguments, of such as hold those of all vectors in one dimension."""
    pairs = list(zip(args, dims, strict=True))
    return [[arg.select(dim, i) if isinstance(dim, int) else arg for arg, dim in pairs] for i in range(count)]


def stacked(found: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """What vmap takes: all vectors' results in one, and in which dimension they are."""
    columns = tuple(torch.stack(column) for column in zip(*found, strict=True))
    return columns, (0,) * len(columns)


def each(function: Callable[..., tuple[Tensor, ...]], info: Any, dims: Sequence[int | None], *args: Any) -> Any:
    """The rule of a function that serves each vector for itself."""
    return stacked([function(*row) for row in rows(info.batch_size, args, dims)])


def no_third() -> None:
    """Refuse to differentiate second derivatives.

    Raises:
        ComputeError: if a graph of them is wanted.
    """
    if torch.is_grad_enabled():
        raise ComputeError("sharded models have no third derivatives.", "without --shard")
