"""Vectors that are spread over processes, played by threads of one: pieces are uneven, and each sum is counted."""

import threading
from dataclasses import dataclass, field

import torch

from hessdiag.linalg.spread import Alone, spread_of

PATIENCE = 60  # seconds, after which a thread that waits for the others fails
PARAMETERS = (7, 1, 130, 2, 33)  # how a whole vector begins that is spread: what is left of it comes last


@dataclass
class Meeting:
    """Where threads put what is to be summed."""

    size: int
    given: list = field(default_factory=list)

    def __post_init__(self):
        self.given = [None] * self.size
        self.barrier = threading.Barrier(self.size, timeout=PATIENCE)

    def summed(self, rank, numbers):
        self.given[rank] = numbers
        self.barrier.wait()
        found = torch.stack(self.given).sum(0)
        self.barrier.wait()
        return found


@dataclass
class Pieces:
    """A spread whose parameters are each cut into pieces of one length, of which the last are filled up with zeros.

    Attributes:
        parameters: Numbers of each.
        rank: Of this piece.
        meeting: Of all.
        sums: How many numbers were summed, in each sum; those of products are not among them.
    """

    parameters: tuple
    rank: int
    meeting: Meeting

    def __post_init__(self):
        self.sums = []
        size = self.meeting.size
        starts = [sum(self.parameters[:index]) for index in range(len(self.parameters))]
        self.where = []  # of each parameter: its first number here, and how many are here and are filled up
        for start, count in zip(starts, self.parameters, strict=True):
            most = -(-count // size)
            first = min(self.rank * most, count)
            self.where.append((start + first, min(most, count - first), most))
        self.n, self.own = sum(self.parameters), sum(most for *_, most in self.where)

    def summed(self, numbers):
        self.sums.append(numbers.numel())
        return self.meeting.summed(self.rank, numbers)

    def kept(self, draw):
        block = 48
        counts = [block] * (self.n // block - 1)
        whole = torch.cat([draw(count) for count in (*counts, self.n - sum(counts))])
        return torch.cat([_filled(whole[start : start + here], most) for start, here, most in self.where])

    def within(self, start, stop):
        ends = [sum(self.parameters[:index]) for index in range(len(self.parameters) + 1)]
        first, last = ends.index(start), ends.index(stop)
        before, through = (sum(most for *_, most in self.where[:index]) for index in (first, last))
        return slice(before, through), Pieces(self.parameters[first:last], self.rank, self.meeting)


def _filled(rows, most):
    return torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])


class Forgetful(Pieces):
    """A spread that forgets the last process."""

    def summed(self, numbers):
        return super().summed(numbers * (self.rank < self.meeting.size - 1))


def parameters(n):
    """Sizes that sum to n: uneven ones, and the rest."""
    first = [count for index, count in enumerate(PARAMETERS) if sum(PARAMETERS[: index + 1]) < n]
    return (*first, n - sum(first))


def together(size, n, function, kind=Pieces):
    """What a function of its spread gives on each of several threads; the first error of any is raised."""
    meeting, found, errors = Meeting(size), [None] * size, []

    def run(rank):
        try:
            found[rank] = function(kind(parameters(n), rank, meeting))
        except BaseException as error:
            if not isinstance(error, threading.BrokenBarrierError):
                errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert all(result is not None for result in found), "a thread waited for others that did not come"
    return found


class Reflected:
    """H D H with a diagonal D and a Householder reflection H: a full matrix of known eigenvalues.

    Args:
        values: D.
        spread: Of its vectors; without one they are whole.
        dtype: Of its products.
    """

    device = torch.device("cpu")

    def __init__(self, values, spread=None, dtype=torch.float64):
        self.shape, self.dtype, self.products = (len(values),) * 2, dtype, 0
        if spread is not None:
            self.spread = spread
        values = values.double()
        across = torch.randn(len(values), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        across /= across.norm()
        self._meeting = getattr(spread, "meeting", None)
        of = spread_of(self)
        self.values, self._across = (of.kept(in_order(whole)).to(dtype)[:, None] for whole in (values, across))

    def __matmul__(self, vectors):
        rows = vectors if vectors.ndim > 1 else vectors[:, None]
        self.products += rows.shape[1]
        found = self._reflected(self.values * self._reflected(rows))
        return found if vectors.ndim > 1 else found[:, 0]

    def _reflected(self, rows):
        along = self._across.T @ rows
        spread = spread_of(self)
        if not isinstance(spread, Alone):  # products sum for themselves
            along = self._summed(spread, along)
        return rows - 2 * self._across * along

    def _summed(self, spread, along):
        return spread.meeting.summed(spread.rank, along)


def in_order(whole):
    """Gives the next so many rows."""
    done = [0]

    def following(count):
        done.append(done[-1] + count)
        return whole[done[-2] : done[-1]]

    return following


def gathered(spread, piece):
    """The whole vector of pieces (own, ...)."""
    whole = torch.zeros(spread.n, *piece.shape[1:], dtype=piece.dtype)
    at = 0
    for start, here, most in spread.where:
        whole[start : start + here] = piece[at : at + here]
        assert not piece[at + here : at + most].any(), "what fills a piece up is zero"
        at += most
    return spread.meeting.summed(spread.rank, whole)
