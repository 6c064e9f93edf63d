"""This process's samples of a batch, and what their objective weighs in the whole: parts that make the whole, or none.

The objective of a batch is a mean over what its loss averages over, or a sum. Then each process evaluates its own
samples, weighted by what they count for. Of other objectives (samples that see each other, statistics of the batch,
graphs) each process evaluates the whole batch, and a W-th of it counts. Which it is tells a trial with few samples.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hessdiag.errors import ComputeError, HessdiagError, LoadError
from hessdiag.machine.collectives import gathered, summed
from hessdiag.machine.ranks import ranks
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.loading.cutting import COARSE, CUTS, Cut

FEW = 2**18  # numbers of a process whose slopes are compared
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5}  # of a value; inside, many cast to float32
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}  # by the coarsest dtype inside; COARSE of others
_IMPOSSIBLE = (HessdiagError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)

Count = Callable[[Any], float]


@dataclass(frozen=True)
class Part:
    """What one process evaluates of a batch.

    Attributes:
        batch: Its samples.
        weight: What their objective weighs in that of the batch. At 0 the samples are another process's, so that all
            run the same modules.
    """

    batch: Any
    weight: float


def span(n: int, rank: int, size: int) -> slice:
    """Which of n samples a process has: as many as the others, or one less.

    >>> [span(3, rank, 2) for rank in range(2)]
    [slice(0, 1, None), slice(1, 3, None)]
    """
    return slice(rank * n // size, (rank + 1) * n // size)


def parts(batch: Any, size: int, count: Count, *, sums: bool, cut: Cut = CUTS[0]) -> list[Part]:
    """What each of several processes evaluates of a batch whose parts make the whole.

    Args:
        batch: The whole.
        size: How many processes there are.
        count: What a mean over some samples is divided by: those with a target, elements of the output.
        sums: Whether the objective is a sum, and no mean.
        cut: Which dimensions run over samples.

    Returns:
        One for each process; where it has no sample with a target, the first one that has.

    Raises:
        LoadError: if no sample has a target.

    >>> batch = (torch.zeros(3, 1), torch.tensor([0, -100, 1]))
    >>> count = lambda part: float((part[1] != -100).sum())
    >>> [(len(part.batch[1]), part.weight) for part in parts(batch, 2, count, sums=False)]
    [(1, 0.5), (2, 0.5)]
    """
    n = cut.length(batch)
    spans = [span(n, rank, size) for rank in range(size)]
    counts = [count(cut.rows(batch, own)) if own.stop > own.start else 0.0 for own in spans]
    total = sum(counts)
    if not total:
        raise LoadError("every target is ignored (-100): the loss is a mean over nothing.")
    stand_in = _counted(batch, cut, count, spans[next(rank for rank in range(size) if counts[rank])])
    return [
        Part(cut.rows(batch, own), 1.0 if sums else counted / total) if counted else Part(stand_in, 0.0)
        for own, counted in zip(spans, counts, strict=True)
    ]


def _counted(batch: Any, cut: Cut, count: Count, among: slice) -> Any:
    """The first sample that counts."""
    each = (cut.rows(batch, slice(index, index + 1)) for index in range(among.start, among.stop))
    return next(one for one in each if count(one))


def proven(
    batch: Any, alone: Callable[[Any], Tensor], pieces: Sequence[Tensor], count: Count, sums: bool
) -> Cut | None:
    """The cut of batches whose parts make the whole, told by value and gradient of a few samples; `None` if none does.

    Called by all processes, with the same batch.

    Args:
        batch: With more than one sample.
        alone: The objective of a batch in this process, with a graph that leads to the pieces. Its derivatives with
            respect to these are those of the sum over all processes.
        pieces: This process's, of each parameter.
        count: See `parts`.
        sums: See `parts`.
    """
    rank, size = ranks()
    for cut in CUTS:
        if cut.length(batch) < 2:
            continue
        try:
            few = _two(batch, cut, count)
            own = parts(few, size, count, sums=sums, cut=cut)[rank]
            sign = -1.0 if rank % 2 else 1.0
            tries = [(few, 1 / size), (own.batch, own.weight), (own.batch, sign * own.weight)]
            with _Casts({piece.dtype for piece in pieces}) as seen:
                found = [_value_and_own_slopes(partial(_share, alone, *one), pieces) for one in tries]
            tolerance = float(gathered(torch.tensor([seen.tolerance], device=pieces[0].device)).max())
        except _IMPOSSIBLE as error:
            if ran_out(error):
                raise
            continue
        # The signs keep what cancels, as the slopes of samples do at the end of training.
        values, (whole, split, signed) = zip(*found, strict=True)
        if all(
            difference <= tolerance * max(size, scale)
            for difference, size, scale in (
                [abs(float(number)) for number in (values[0] - values[1], values[0], values[2])],
                _norms(whole - split, whole, signed),
            )
        ):
            return cut
    return None


def adds_up(batch: Any, own: Part, alone: Callable[[Any], Tensor], dtype: torch.dtype) -> bool:
    """Whether the parts of all processes make a whole batch, told by its value; the same answer in all of them.

    What an objective of the user's own averages over may not be what is counted: it may leave out some targets.

    Args:
        batch: The whole.
        own: This process's part.
        alone: The objective of a batch in this process.
        dtype: Of the parameters.
    """
    found = torch.stack([_number(alone, batch) / ranks()[1], _number(alone, own.batch) * own.weight]).double()
    whole, parts = summed(found).tolist()
    tolerance = ROUNDING.get(dtype, COARSE)
    return bool(abs(whole - parts) <= tolerance * abs(whole))  # not of NaN


def _number(alone: Callable[[Any], Tensor], batch: Any) -> Tensor:
    """The objective of a batch, without a graph where it can be had so: of some that take slopes it cannot."""
    try:
        with torch.no_grad():
            return alone(batch)
    except ComputeError:
        return alone(batch).detach()


class _Casts(TorchFunctionMode):
    """Notes the coarsest dtype that anything is rounded to: models of float64 compute parts in float32, or their loss.

    Args:
        dtypes: Of the parameters.
    """

    def __init__(self, dtypes: set[torch.dtype]) -> None:
        super().__init__()
        self._seen = set(dtypes)

    @property
    def tolerance(self) -> float:
        """Relative difference of numbers that are the same but for rounding."""
        return max(TOLERANCES.get(dtype, COARSE) for dtype in self._seen)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.is_floating_point() and output.dtype not in self._seen:
            given = (item for item in args if isinstance(item, Tensor) and item.is_floating_point())
            if any(item.dtype.itemsize > output.dtype.itemsize for item in given):
                self._seen.add(output.dtype)
        return output


def _two(batch: Any, cut: Cut, count: Count) -> Any:
    """The first sample that counts and the next one: a trial takes no more memory where there are many ranks."""
    n = cut.length(batch)
    first = next((index for index in range(n) if count(cut.rows(batch, slice(index, index + 1)))), 0)
    start = min(first, max(n - 2, 0))
    return cut.rows(batch, slice(start, min(start + 2, n)))


def _share(alone: Callable[[Any], Tensor], batch: Any, weight: float) -> Tensor:
    return alone(batch) * weight


def value_and_slopes(share: Callable[[], Tensor], pieces: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The sum of all processes' shares, and its slopes along the smallest of all parameters, whole.

    Args:
        share: Evaluates this process's; large parameters are constants then, whose derivatives nobody would look at.
        pieces: Of each parameter.
    """
    value, own = _value_and_own_slopes(share, pieces)
    return value.reshape(()), gathered(own.double())


def _value_and_own_slopes(share: Callable[[], Tensor], pieces: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The same, with this process's pieces of the slopes alone."""
    few: list[Tensor] = []
    for piece in sorted(pieces, key=Tensor.numel):
        if not few or sum(map(Tensor.numel, few)) + piece.numel() <= FEW:
            few.append(piece)
    with _alone_differentiated(few, pieces):
        value = share()
        slopes = torch.autograd.grad(value, few, materialize_grads=True, allow_unused=True)
    return summed(value.detach().double().reshape(1)), torch.cat([slope.reshape(-1) for slope in slopes])


def _norms(*pieces: Tensor) -> list[float]:
    """Of vectors of which each process has a piece."""
    return summed(torch.stack([piece.double().square().sum() for piece in pieces])).sqrt().tolist()


@contextmanager
def _alone_differentiated(few: Sequence[Tensor], pieces: Sequence[Tensor]) -> Iterator[None]:
    """Within, no other pieces require gradients."""
    kept = set(map(id, few))
    others = [piece for piece in pieces if id(piece) not in kept and piece.requires_grad]
    try:
        for piece in others:
            piece.requires_grad_(False)
        yield
    finally:
        for piece in others:
            piece.requires_grad_(True)
