"""Squared norms of blocks from random signs that are on one block, or on one group of blocks, at a time.

Signs z on block c give E |(H z)_b|^2 = |H_bc|^2 (Hutchinson 1990). Where blocks are too many for a product each, they
share colours, drawn anew for each vector: then (H z)_b holds what other blocks of b's colour couple to it. As any pair
shares a colour with the same known chance, that part is known on average, and is taken out.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.machine import processes
from hessdiag.questions.blocks import estimates
from hessdiag.questions.blocks.by.asked import Asked
from hessdiag.questions.common.runs.pieces import Arrays
from hessdiag.statistics.intervals import Average, logistic

Floats = NDArray[np.float64]

MOST_COLOURS = 32


@dataclass(frozen=True)
class Norms:
    """Samples of squared norms, one for each random vector.

    Attributes:
        inside: Of |H_bb|^2, (samples, blocks).
        whole: Of the sum of |H_bc|^2 over all c, likewise.
        between: Of |H_cb|^2 in column b, (samples, blocks, blocks), where each block has a colour of its own; else
            `None`.
    """

    inside: Floats
    whole: Floats
    between: Floats | None

    @property
    def frobenius(self) -> Average:
        """|H_bb| of each block."""
        square = np.maximum(self.inside.mean(0), 0.0)
        return estimates.root(square, estimates.mean_variance(self.inside))

    @property
    def norm(self) -> Average:
        """|H|."""
        rows = self._independent(self.whole)
        return estimates.root(rows.mean(0).sum(), estimates.mean_variance(rows).sum())

    @property
    def share(self) -> tuple[float, float, tuple[float, float]]:
        """Share of |H|^2 inside blocks, its standard error, and its interval on the logistic scale."""
        value, error = estimates.share(self._independent(self.inside), self._independent(self.whole))
        return value, error, logistic(value, error)

    def _independent(self, samples: Floats) -> Floats:
        """Those of blocks with colours of their own are independent; of others only their sums over all are."""
        return samples if self.between is not None else samples.sum(1, keepdims=True)


def colours_of(blocks: int) -> int:
    """Groups of blocks that a random vector is on, one after the other: products that it takes."""
    return min(blocks, MOST_COLOURS)


def sampled(asked: Asked) -> tuple[Norms, bool]:
    """The norms of all blocks, and whether an interrupt left vectors out.

    Raises:
        KeyboardInterrupt: if it comes before two vectors are complete.
    """
    count, interrupted = asked.layout.count, False
    state = asked.pieces.state("norms")
    samples = _taken(state.arrays, state.units)
    asked.meter.add(len(samples) * colours_of(count))

    def arrays() -> Arrays:
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    try:
        for index in range(len(samples), asked.probes):
            samples.append(_sample(asked, index))
            state.save(len(samples), arrays, last=len(samples) == asked.probes)
    except KeyboardInterrupt:
        if len(samples) < 2 or processes.together():
            raise
        interrupted = True
    found = arrays()
    return Norms(found["inside"], found["whole"], found.get("between")), interrupted


def _taken(arrays: Arrays, units: int) -> list[dict[str, Floats]]:
    """So many samples of what was kept."""
    return [{name: held[index] for name, held in arrays.items()} for index in range(units)]


def _sample(asked: Asked, index: int) -> dict[str, Floats]:
    """What one random vector shows, on each colour by itself."""
    count = asked.layout.count
    words = np.random.SeedSequence((asked.seed, index)).generate_state(2, np.uint32)
    groups = np.arange(count) * colours_of(count) // count  # of nearly equal size
    colour = groups if count <= MOST_COLOURS else np.random.default_rng(int(words[1])).permutation(groups)
    squares = _squares(asked, int(words[0]), torch.from_numpy(colour))
    own = squares[np.arange(count), colour]
    if count <= MOST_COLOURS:
        return {"inside": own, "whole": squares.sum(0), "between": squares}
    whole, sizes = squares.sum(1), np.bincount(groups)
    chance = float((sizes * (sizes - 1)).sum() / (count * (count - 1)))  # that two blocks share a colour
    return {"inside": (own - chance * whole) / (1 - chance), "whole": whole}


def _squares(asked: Asked, seed: int, colour: Tensor) -> Floats:
    """|(H z)_b|^2 for the same random signs z on one colour at a time, (blocks, colours)."""
    matrix, layout = asked.matrix, asked.layout
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (asked.size,), generator=generator, dtype=torch.int8) * 2 - 1
    own = colour[layout.owner]
    found = []
    for some in torch.split(torch.arange(int(colour.max()) + 1), asked.width):
        vectors = (signs[:, None] * (own[:, None] == some)).to(matrix.device, matrix.dtype)
        found.append(layout.sums((matrix @ vectors).double().square()).cpu().numpy())
        asked.meter.add(len(some))
    return np.concatenate(found, axis=1)
