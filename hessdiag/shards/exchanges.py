"""Pieces that become whole tensors in every process, and whole ones whose sums become pieces, in small parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.errors import ComputeError
from hessdiag.machine.collectives import gathered, scattered
from hessdiag.machine.processes import together
from hessdiag.machine.ranks import ranks
from hessdiag.shards.layout import share
from hessdiag.shards.placeholder import Placeholder

END = -1  # of the model, where units have numbers from 0 on
AT_ONCE = 2**20  # numbers of all processes that are exchanged at a time: beside a large unit few


@dataclass(frozen=True)
class _Run:
    """Some numbers that every process has of one tensor.

    Attributes:
        number: Of the tensor.
        start: Where they begin in each process's piece.
        stop: Where they end.
        at: Where they begin in what is exchanged.
    """

    number: int
    start: int
    stop: int
    at: int

    @property
    def inside(self) -> slice:
        """Where they lie in what is exchanged."""
        return slice(self.at, self.at + self.stop - self.start)


def _exchanges(shares: Sequence[int], most: int) -> Iterator[list[_Run]]:
    """Pieces of so many numbers in exchanges of about at most so many: few for small pieces, several for a large one.

    >>> [[(run.number, run.start, run.stop) for run in runs] for runs in _exchanges([2, 5, 1], 3)]
    [[(0, 0, 2), (1, 0, 1)], [(1, 1, 4)], [(1, 4, 5), (2, 0, 1)]]
    """
    runs, room = list[_Run](), most
    for number, own in enumerate(shares):
        start = 0
        while start < own:
            stop = min(start + room, own)
            runs.append(_Run(number, start, stop, most - room))
            room, start = room - (stop - start), stop
            if not room:
                yield runs
                runs, room = [], most
    if runs:
        yield runs


def wholes_of(
    rows: list[list[Tensor]], parameters: Sequence[Placeholder], number: int, path: str
) -> list[list[Tensor]]:
    """Whole tensors of pieces of one dtype. What is sent begins with the unit's number, so that none is mistaken.

    Args:
        rows: Of pieces, one for each parameter.
        parameters: Whose shapes the tensors have.
        number: Of the unit in the model.
        path: Where it is, for messages.

    Raises:
        ComputeError: if another process is at another unit.
    """
    _, size = ranks()
    if size == 1:
        return [[_even(piece).view(own.shape) for piece, own in zip(row, parameters, strict=True)] for row in rows]
    pieces = [piece for row in rows for piece in row]
    wholes = [piece.new_empty(size, piece.numel()) for piece in pieces]
    mark = torch.full((1,), float(number % 251), dtype=pieces[0].dtype, device=pieces[0].device)
    for runs in _exchanges([piece.numel() for piece in pieces], max(AT_ONCE // size, 1)):
        found = gathered(torch.cat([mark, *(pieces[r.number][r.start : r.stop] for r in runs)])).view(size, -1)
        wrong = (found[:, 0] != mark).any()
        if wrong.is_cuda:  # to ask is to wait for it: let what comes out be no number, which is asked at the end
            found[:, 1:2].masked_fill_(wrong, torch.nan)
        elif bool(wrong):
            raise _elsewhere(path)
        for run in runs:
            wholes[run.number][:, run.start : run.stop] = found[:, 1:][:, run.inside]
        del found  # before the next ones come
    each = iter(wholes)
    return [[next(each).view(-1)[: item.numel()].view(item.shape) for item in parameters] for _ in rows]


def _even(piece: Tensor) -> Tensor:
    """A piece, part of a vector or not, at an even place in memory: `torch.view_as_complex` takes no others."""
    return piece.clone() if piece.storage_offset() % 2 else piece


def meet_at(number: int, path: str) -> None:
    """Make sure that all processes are at the same place of the model, in an exchange that fits whatever the place.

    Args:
        number: Of the place: of a unit, or `END`.
        path: Where it is, for messages.

    Raises:
        ComputeError: if another process is elsewhere.
    """
    if together() and bool((gathered(torch.tensor([number])) != number).any()):
        raise _elsewhere(path)


def _elsewhere(path: str) -> ComputeError:
    return ComputeError(
        f"the ranks are at different modules: this one is at {path or 'the model'}.",
        "a model that runs the same modules in the same order for all samples; or without --shard",
    )


def sums_of(rows: list[list[Tensor]]) -> list[list[Tensor]]:
    """Pieces of sums over all processes of whole tensors of one dtype."""
    _, size = ranks()
    if size == 1:
        return [[whole.reshape(-1) for whole in row] for row in rows]
    flats = [whole.reshape(-1) for row in rows for whole in row]
    shares = [share(flat.numel(), size) for flat in flats]
    pieces = [flat.new_empty(own) for flat, own in zip(flats, shares, strict=True)]
    for runs in _exchanges(shares, max(AT_ONCE // size, 1)):
        sent = flats[0].new_zeros(size, runs[-1].inside.stop)
        for run in runs:
            flat, own = flats[run.number], shares[run.number]
            for rank in range(size):
                part = flat[rank * own + run.start : min(rank * own + run.stop, flat.numel())]
                sent[rank, run.at : run.at + len(part)] = part
        found = scattered(sent.flatten())
        for run in runs:
            pieces[run.number][run.start : run.stop] = found[run.inside]
    each = iter(pieces)
    return [[next(each) for _ in row] for row in rows]
