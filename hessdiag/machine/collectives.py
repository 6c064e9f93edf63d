"""What processes say to each other about tensors that are spread over them. With one process, nothing."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hessdiag.machine.others import finish
from hessdiag.machine.processes import (
    backend_for,
    between_gpus,
    between_hosts,
    is_small,
    join,
    of_each,
    parted,
    peers,
    together,
    total,
)
from hessdiag.machine.ranks import ranks


def gathered(piece: Tensor) -> Tensor:
    """The pieces of all processes, one after the other by rank: (m, ...) becomes (size * m, ...) on each.

    Args:
        piece: Of the same shape in every process; without a graph.

    Returns:
        With one process, the piece itself.

    Raises:
        LostRankError: if a process was lost.

    >>> gathered(torch.arange(3))
    tensor([0, 1, 2])
    """
    if not together():
        return piece
    _, size = ranks()
    return _exchanged(_gather, piece, (size * piece.shape[0], *piece.shape[1:]))


def scattered(whole: Tensor) -> Tensor:
    """This process's part of the sum over all processes: (size * m, ...) becomes (m, ...).

    Args:
        whole: Of the same shape in every process; without a graph.

    Returns:
        With one process, the tensor itself.

    Raises:
        LostRankError: if a process was lost.
    """
    if not together():
        return whole
    _, size = ranks()
    return _exchanged(_reduce_scatter, whole, (whole.shape[0] // size, *whole.shape[1:]))


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, the same in each; the tensor that was given stays as it is.

    Raises:
        LostRankError: if a process was lost.
    """
    return total(tensor.clone()) if together() else tensor


def _gather(out: Tensor, own: Tensor, group: Any) -> None:
    if group is not None:
        _gather_around(out, own, group=group)
    elif is_small(own):
        out.copy_(of_each(own).view_as(out))
    else:
        finish(_gather_around(out, own, group=between_hosts(), async_op=True))


def _reduce_scatter(out: Tensor, own: Tensor, group: Any) -> None:
    if group is None:  # gloo would sum the whole on each
        rows = own.view(ranks()[1], *out.shape)
        torch.sum(parted(rows), 0, dtype=out.dtype, out=out)
    else:
        _reduce_scatter_on_gpus(out, own, group=group)


# Newer torch renames both, and warns of the old names.
_gather_around: Any = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_reduce_scatter_on_gpus: Any = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


def _exchanged(collective: Any, given: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What a collective makes of a tensor: between GPUs where each process has its own, else by way of the host."""
    join(given.device)
    by_gpu = backend_for(given.device) == "nccl"
    own = given.contiguous() if by_gpu else given.cpu().contiguous()
    with peers():
        if by_gpu:
            finish(dist.barrier(between_hosts(), async_op=True))  # of gloo, which sees who is lost; nccl would wait
        out = torch.empty(shape, dtype=own.dtype, device=own.device)
        collective(out, own, between_gpus() if by_gpu else None)
    return out.to(given.device)
