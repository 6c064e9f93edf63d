"""Both ends and the spectrum of single blocks: from all their rows where they are small, else by Lanczos."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from hessdiag.curvature.support import Restricted
from hessdiag.linalg.eigenpairs import Eigenpairs, dense_eigenpairs
from hessdiag.linalg.eigensolver import extreme_eigenpairs
from hessdiag.linalg.quadrature import spectral_density
from hessdiag.questions.blocks.by.asked import Asked
from hessdiag.questions.blocks.by.ends import Ends
from hessdiag.questions.blocks.by.spectra import Spectrum
from hessdiag.questions.common.runs.pieces import Arrays

PROBES, STEPS = 6, 60  # of quadrature; see `spectra` for how fine it has to be
ROWS = PROBES * STEPS  # of a block: up to so many, all of them cost less
MOST_PRODUCTS = 100  # for both ends of one block
TOLERANCE = 1e-3
HIGHEST = 2  # pairs on top, which tell whether the largest eigenvalue is repeated


@dataclass(frozen=True)
class Measured:
    """What is known of one block.

    Attributes:
        ends: Of its spectrum.
        spectrum: All of it.
        exact: Whether that is exact.
    """

    ends: Ends
    spectrum: Spectrum
    exact: bool


def most(size: int) -> int:
    """Products for one block of so many rows, at most."""
    return size if size <= ROWS else ROWS + MOST_PRODUCTS


def measured(asked: Asked, block: int) -> Measured:
    """One block, kept as a piece."""
    rows, before = asked.layout.rows[block], asked.meter.spent
    small = len(rows) <= ROWS
    found = asked.pieces.get(f"block-{block}", lambda: _by_rows(asked, block) if small else _by_lanczos(asked, block))
    taken = int(found["products"])
    asked.meter.add(taken - (asked.meter.spent - before))  # where an earlier run did it
    asked.meter.add(0, most(len(rows)) - taken)
    ends = Ends(
        float(found["ends"][0]),
        float(found["ends"][1]),
        (bool(found["converged"][0]), bool(found["converged"][1])),
        torch.from_numpy(found["top"]),
        bool(found["complete"]),
    )
    size, zeros = asked.layout.sizes[block], asked.layout.zeros(block)
    if small:
        return Measured(ends, Spectrum(size, found["known"], zeros), exact=True)
    anti = found["anti nodes"], found["anti weights"]
    return Measured(ends, Spectrum(size, found["known"], zeros, found["nodes"], found["weights"], anti), exact=False)


def _by_rows(asked: Asked, block: int) -> Arrays:
    """All eigenvalues."""
    rows, parts = asked.layout.rows[block], []
    for some in torch.split(rows, asked.width):
        parts.append(asked.rows(some)[:, rows.to(asked.matrix.device)])
        asked.meter.add(len(some))
    pairs = dense_eigenpairs(torch.cat(parts), lowest=1, highest=len(rows))
    assert pairs.spectrum is not None
    return {**_arrays(pairs, complete=True, products=len(rows)), "known": pairs.spectrum.numpy()}


def _by_lanczos(asked: Asked, block: int) -> Arrays:
    """Both ends to their residuals, and the rest by quadrature from random vectors."""
    own = Restricted(asked.matrix, asked.layout.rows[block], asked.width)
    pairs = extreme_eigenpairs(
        own,
        lowest=1,
        highest=HIGHEST,
        tol=TOLERANCE,
        max_products=MOST_PRODUCTS,
        seed=asked.seed + block,
        precision=own.precision,
    )
    asked.meter.add(pairs.products)
    if pairs.interrupted:
        raise KeyboardInterrupt
    known = pairs.converged
    density = spectral_density(
        own,
        probes=PROBES,
        steps=STEPS,
        seed=asked.seed + block + 1,
        deflate=(pairs.values[known], pairs.vectors[:, known.to(pairs.vectors.device)]),
        zeros=asked.layout.zeros(block),
        at_once=min(asked.width, PROBES),
        stepped=lambda vectors, step: asked.meter.add(vectors),
    )
    if len(density.nodes) < PROBES:
        raise KeyboardInterrupt
    assert density.anti is not None
    least = min(pairs.ritz_range[0], float(np.nanmin(density.nodes, initial=math.inf)))  # a bound, if not converged
    return {
        **_arrays(pairs, complete=None, products=pairs.products + density.products),
        "ends": np.array([least, float(pairs.values[-1])]),
        "known": density.outliers,
        "nodes": density.nodes,
        "weights": density.weights,
        "anti nodes": density.anti[0],
        "anti weights": density.anti[1],
    }


def _arrays(pairs: Eigenpairs, *, complete: bool | None, products: int) -> Arrays:
    ends = Ends.of(pairs)
    return {
        "ends": np.array([ends.lowest, ends.highest]),
        "converged": np.array(ends.converged),
        "top": ends.top.numpy(),
        "complete": np.array(ends.complete if complete is None else complete),
        "products": np.array(products),
    }
