"""Shares of absolute mass, from a sample of exact rows: magnitudes of estimated entries would be too large.

Rows are drawn as for `diag-share`: without replacement, in strata by parameter tensor, those that are guessed to be
large first; see `hessdiag.statistics.sampling`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.machine import processes
from hessdiag.questions.blocks.by.asked import Asked
from hessdiag.questions.common.row_sizes import SKETCHES, row_scales
from hessdiag.questions.common.runs.pieces import Arrays
from hessdiag.statistics import sampling
from hessdiag.statistics.sampling import Draw, Ratio

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

ROWS = 400


@dataclass(frozen=True)
class RowShares:
    """What a sample of rows tells; `None` where it does not tell anything.

    Attributes:
        absolute: Share of the sum of |H_ij| inside blocks.
        diagonal: On the diagonal.
        diagonal_squares: Share of the sum of H_ij^2 on the diagonal.
        rows: How many were computed.
        complete: Whether all others are zero.
    """

    absolute: Ratio | None
    diagonal: Ratio | None
    diagonal_squares: Ratio | None
    rows: int
    complete: bool


def wanted(size: int) -> int:
    """How many rows are computed of so many."""
    return min(ROWS, size)


def sampled(asked: Asked) -> tuple[RowShares, bool]:
    """The shares, and whether an interrupt left rows out. Every beginning of the sample is a sample."""
    meter, n = asked.meter, asked.size
    guesses = asked.pieces.arrays("row sizes", lambda: {"guesses": row_scales(asked.matrix, asked.seed)})["guesses"]
    meter.add(SKETCHES)
    tensors = _tensors(asked)
    draw = Draw.by_guess(guesses, [rows for _, rows in tensors], np.random.default_rng(asked.seed))
    joined = sampling.joined_groups(
        [rows for _, rows in tensors], [layer for layer, _ in tensors], draw.sizes, wanted(n)
    )
    strata = [np.concatenate([tensors[index][1] for index in group]) for group in joined]
    strata = [alive for rows in strata if len(alive := rows[draw.sizes[rows] > 0])]
    order = draw.order(strata, sampling.LEAST_DRAWN)[: wanted(n)]
    state = asked.pieces.state("rows")
    parts: list[Floats] = [state.arrays["numbers"]] if state.units else []
    done, interrupted = sum(map(len, parts)), False
    meter.add(done)

    def arrays() -> Arrays:
        return {"numbers": np.concatenate(parts)}

    try:
        for some in torch.split(torch.from_numpy(order)[done:], asked.width):
            parts.append(_numbers(asked, some))
            done += len(some)
            meter.add(len(some))
            state.save(done, arrays, last=done == len(order))
    except KeyboardInterrupt:
        if processes.together():
            raise
        interrupted = True
    meter.add(0, wanted(n) - len(order))
    numbers = np.concatenate(parts) if parts else np.zeros((0, 6))
    return _shares(numbers, order[: len(numbers)], strata, draw), interrupted


def _tensors(asked: Asked) -> list[tuple[int, Indices]]:
    """The rows of each parameter tensor, with its layer: those of weights and biases are of different sizes."""
    problem = asked.part.whole
    starts = [layer.start for layer in problem.layer_slices]
    kept = asked.part.kept.numpy()
    found = []
    for place in problem.places():
        first, last = np.searchsorted(kept, [place.start, place.stop])
        if last > first:
            found.append((int(np.searchsorted(starts, place.start, side="right")), np.arange(first, last)))
    return found


def _numbers(asked: Asked, indices: Tensor) -> Floats:
    """Of each row: its diagonal entry, the entries inside its block, and all; magnitudes, and squares, (rows, 6)."""
    block = asked.rows(indices).double()
    diagonal = block.gather(1, indices.to(block.device)[:, None])
    inside = (asked.layout.owner[indices][:, None] == asked.layout.owner).to(block)
    columns = []
    for numbers, own in ((block.abs_(), diagonal.abs()), (block.square(), diagonal.square())):
        columns += [own, (numbers * inside).sum(1, keepdim=True), numbers.sum(1, keepdim=True)]
    return torch.cat(columns, dim=1).cpu().numpy()


def _shares(numbers: Floats, drawn: Indices, strata: list[Indices], draw: Draw) -> RowShares:
    places = np.full(len(draw.sizes), -1)
    places[drawn] = np.arange(len(drawn))
    kinds = [draw.stratum(rows, places[rows]) for rows in strata]
    diagonal, inside, whole, diagonal_squares, _, squares = numbers.T
    return RowShares(
        absolute=sampling.ratio(inside, whole, kinds),
        diagonal=sampling.ratio(diagonal, whole, kinds),
        diagonal_squares=sampling.ratio(diagonal_squares, squares, kinds),
        rows=len(numbers),
        complete=all(len(kind.drawn) == kind.size for kind in kinds),
    )
