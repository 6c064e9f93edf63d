"""From what is known of single blocks to what they say together: extremes, norms between them, distances of spectra."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hessdiag.fields import Matrix
from hessdiag.questions.blocks.by.ends import Ends
from hessdiag.questions.blocks.by.layout import Layout
from hessdiag.questions.blocks.by.result import Block, BlocksBy, BlockSpectra, Extreme
from hessdiag.questions.blocks.by.spectra import MOST_COMPARED, WIDTH, Axis, Spectrum, compare

Floats = NDArray[np.float64]

MOST_COUPLED = 32  # blocks in the matrix of norms
MOST_DRAWN = 16  # densities that are kept


def extremes(blocks: Sequence[Block], whole: Ends, *, zeros: int, certain: bool) -> tuple[Extreme, Extreme]:
    """The largest and the smallest eigenvalue of a matrix and of its block diagonal.

    Args:
        blocks: With their eigenvalues, as far as they were looked at.
        whole: Of the matrix without rows of zeros.
        zeros: How many of these it has.
        certain: Whether no other block can go beyond.
    """
    none = [0.0] * min(zeros, 1)
    found = []
    for side, best in ((1, max), (-1, min)):
        own = whole.highest if side > 0 else whole.lowest
        known = [
            (value, block)
            for block in blocks
            if (value := block.lambda_max if side > 0 else block.lambda_min) is not None
        ]
        value, block = best(known, key=lambda pair: pair[0])
        own_is_bound = block.lambda_max_is_bound if side > 0 else block.lambda_min_is_bound
        bound = own_is_bound or not (certain or _ruled_out(blocks, abs(value)))
        found.append(
            Extreme(
                hessian=best([own, *none]),
                hessian_is_bound=not whole.converged[side > 0],
                blocks=value,
                blocks_is_bound=bound,
                block=block.name,
            )
        )
    return found[0], found[1]


def _ruled_out(blocks: Sequence[Block], value: float) -> bool:
    """Whether blocks that were not looked at are too small to hold an eigenvalue of such a magnitude."""
    return all(
        block.lambda_max is not None
        or (block.frobenius is not None and block.frobenius + 3 * (block.frobenius_stderr or 0.0) < value)
        for block in blocks
    )


def coupled(layout: Layout, norms: Floats) -> tuple[tuple[str, ...], Matrix]:
    """Norms between all blocks, or between the largest of many, in the order of the partition."""
    places = largest(norms.diagonal(), MOST_COUPLED)
    names = tuple(layout.partition.names[place] for place in places)
    return names, tuple(map(tuple, norms[np.ix_(places, places)].tolist()))


def largest(sizes: Floats, most: int) -> list[int]:
    """Places of the largest numbers, ascending."""
    return sorted(np.argsort(-sizes, kind="stable")[:most].tolist())


def spread(sizes: Floats, most: int) -> list[int]:
    """Places of so many numbers: half of them the largest, the others evenly among the ranks that are left.

    >>> spread(np.arange(10.0), 4)
    [0, 3, 8, 9]
    """
    ranked = np.argsort(-sizes, kind="stable")
    if len(ranked) <= most:
        return list(range(len(ranked)))
    first = most // 2
    rest = np.linspace(first, len(ranked) - 1, most - first + 1)[1:].round().astype(int)
    return sorted({*ranked[:first].tolist(), *ranked[rest].tolist()})


def with_spectra(result: BlocksBy, places: Sequence[int], spectra: Sequence[Spectrum]) -> BlocksBy:
    """A result with the distances between the spectra of some of its blocks, where there are two or more.

    Args:
        result: With the norms of its blocks.
        places: Which blocks the spectra are of.
        spectra: In that order.
    """
    most = max((spectrum.largest for spectrum in spectra), default=0.0)
    if len(spectra) < 2 or not most > 0:
        return result
    blocks = list(result.blocks)
    sizes = np.array([blocks[place].frobenius or 0.0 for place in places])
    chosen = spread(sizes, MOST_COMPARED)
    axis = Axis.of(most)
    found = compare([spectra[index] for index in chosen], axis)
    for index, distance in zip(chosen, found.distances.tolist(), strict=True):
        blocks[places[index]] = replace(blocks[places[index]], distance=distance)
    drawn = largest(sizes[chosen], MOST_DRAWN)
    return replace(
        result,
        blocks=tuple(blocks),
        heterogeneity=found.heterogeneity,
        heterogeneity_stderr=found.stderr,
        spectra=BlockSpectra(
            grid=tuple(axis.grid.tolist()),
            eigenvalues=tuple(axis.eigenvalues.tolist()),
            linear_below=axis.linear_below,
            width=WIDTH,
            names=tuple(blocks[places[chosen[index]]].name for index in drawn),
            densities=tuple(tuple(found.densities[index].tolist()) for index in drawn),
            compared=len(chosen),
        ),
    )
