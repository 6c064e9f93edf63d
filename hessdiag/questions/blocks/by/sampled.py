"""A partition of a Hessian that is known by its products: norms, rows, both ends, and the spectra of some blocks.

Stage by stage, each kept in pieces: what an interrupt leaves is all stages that were complete, and what the one that it
met can say.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from hessdiag.linalg.eigensolver import extreme_eigenpairs
from hessdiag.machine import processes
from hessdiag.questions.blocks.by import block_ends, ends, norms, row_shares
from hessdiag.questions.blocks.by.asked import Asked
from hessdiag.questions.blocks.by.block_ends import HIGHEST, TOLERANCE
from hessdiag.questions.blocks.by.ends import Ends
from hessdiag.questions.blocks.by.layout import Layout
from hessdiag.questions.blocks.by.result import Block, BlocksBy, Extreme
from hessdiag.questions.blocks.by.spectra import Spectrum
from hessdiag.questions.blocks.by.together import coupled, extremes, spread, with_spectra
from hessdiag.questions.common.row_sizes import SKETCHES
from hessdiag.questions.common.runs.outlay import Basis
from hessdiag.statistics.intervals import Estimated, EstimatedNumber
from hessdiag.statistics.sampling import Ratio

MEASURED = 12  # blocks whose spectra are measured
SURE = 1e-12  # relative error that is rounding: signs on a diagonal block tell its norm for sure
MOST_PRODUCTS = 400  # for both ends of the whole matrix


def planned(layout: Layout, size: int, probes: int) -> int:
    """Products that all stages take at most, of a matrix of so many rows."""
    blocks = sorted((block_ends.most(len(rows)) for rows in layout.rows), reverse=True)[:MEASURED]
    return probes * norms.colours_of(layout.count) + SKETCHES + row_shares.wanted(size) + MOST_PRODUCTS + sum(blocks)


def sampled(asked: Asked, space: Basis, result: BlocksBy) -> BlocksBy:
    """Fill in a result as far as an interrupt lets it.

    Args:
        asked: What is measured.
        space: The vectors that the search for both ends of the whole matrix holds.
        result: With nothing but names in it.

    Raises:
        KeyboardInterrupt: if it comes before anything is known.
    """
    result = replace(result, method="sampled")
    found, stopped = _norms(asked, result)
    if stopped:
        return _ended(asked, found, stopped=True)
    stages: list[Callable[[Asked, Basis, BlocksBy], tuple[BlocksBy, bool]]] = [_rows, _blocks]
    for stage in stages:
        try:
            found, stopped = stage(asked, space, found)
        except KeyboardInterrupt:
            if processes.together():
                raise
            stopped = True
        if stopped:
            break
    return _ended(asked, found, stopped=stopped)


def _ended(asked: Asked, result: BlocksBy, *, stopped: bool) -> BlocksBy:
    return replace(result, status="interrupted" if stopped else "ok", hvps=asked.meter.spent)


def _norms(asked: Asked, result: BlocksBy) -> tuple[BlocksBy, bool]:
    """The blocks' norms, and what they hold of the whole one."""
    found, stopped = norms.sampled(asked)
    whole = float(found.whole.mean(0).sum())
    share = _share(found, whole)
    rest = _rest(share)
    own, norm = found.frobenius, found.norm
    errors = np.where(own.stderr > SURE * own.value, own.stderr, 0.0)
    inside, rows = np.maximum(found.inside.mean(0), 0.0), found.whole.mean(0)
    blocks = tuple(
        replace(
            block,
            frobenius=float(own.value[number]),
            frobenius_stderr=float(errors[number]),
            share=float(inside[number]) / whole if whole > 0 else None,
            row_share=min(float(inside[number] / rows[number]), 1.0) if rows[number] > 0 else None,
        )
        for number, block in enumerate(result.blocks)
    )
    result = replace(
        result,
        blocks=blocks,
        frobenius_share=share.value,
        frobenius_share_stderr=share.stderr,
        frobenius_share_interval=share.interval,
        relative_error=rest.value,
        relative_error_stderr=rest.stderr,
        relative_error_interval=rest.interval,
        norm=float(norm.value),
        norm_stderr=float(norm.stderr),
        probes=len(found.whole),
        colours=norms.colours_of(asked.layout.count),
    )
    if found.between is not None:
        between = found.between.mean(0)
        np.fill_diagonal(between, inside)
        names, matrix = coupled(asked.layout, np.sqrt((between + between.T) / 2))
        result = replace(result, coupled=names, coupling=matrix)
    return result, stopped


def _share(found: norms.Norms, whole: float) -> EstimatedNumber:
    """Of |H|^2 inside blocks."""
    if not whole > 0:
        return Estimated(None)
    value, error, interval = found.share
    return Estimated(value, error, interval)


def _rest(share: EstimatedNumber) -> EstimatedNumber:
    """The relative error of the block diagonal: the root of what is not inside."""
    if share.value is None or share.stderr is None or share.interval is None:
        return Estimated(None)
    (low, high), rest = share.interval, max(1 - share.value, 0.0) ** 0.5
    return Estimated(rest, share.stderr / (2 * rest) if rest else 0.0, ((1 - high) ** 0.5, (1 - low) ** 0.5))


def _rows(asked: Asked, space: Basis, result: BlocksBy) -> tuple[BlocksBy, bool]:
    """Shares of absolute mass."""
    del space
    found, stopped = row_shares.sampled(asked)
    absolute, diagonal, squares = (
        _of_rows(ratio, exact=found.complete) for ratio in (found.absolute, found.diagonal, found.diagonal_squares)
    )
    result = replace(
        result,
        absolute_share=absolute.value,
        absolute_share_stderr=absolute.stderr,
        absolute_share_interval=absolute.interval,
        diagonal_absolute_share=diagonal.value,
        diagonal_absolute_share_stderr=diagonal.stderr,
        diagonal_frobenius_share=squares.value,
        diagonal_frobenius_share_stderr=squares.stderr,
        rows=found.rows,
    )
    return result, stopped


def _of_rows(ratio: Ratio | None, *, exact: bool) -> EstimatedNumber:
    """A ratio as results hold it; nothing where rows do not tell it."""
    if ratio is None or math.isnan(ratio.value):
        return Estimated(None)
    return Estimated(ratio.value) if exact else Estimated(ratio.value, ratio.stderr, ratio.interval)


def _blocks(asked: Asked, space: Basis, result: BlocksBy) -> tuple[BlocksBy, bool]:
    """Both ends of the whole matrix, and the spectra of some blocks, the largest first."""
    whole, stopped = _whole(asked, space)
    zeros = [0.0] * min(asked.part.zeros, 1)
    result = replace(
        result,
        lambda_max=Extreme(hessian=max([whole.highest, *zeros]), hessian_is_bound=not whole.converged[1]),
        lambda_min=Extreme(hessian=min([whole.lowest, *zeros]), hessian_is_bound=not whole.converged[0]),
        rounding=whole.rounding,
    )
    if stopped:
        return result, True
    blocks = [
        _vanishing(block) if not len(rows) else block
        for block, rows in zip(result.blocks, asked.layout.rows, strict=True)
    ]
    sizes = np.array([block.frobenius or 0.0 for block in blocks])
    chosen = [place for place in spread(sizes, MEASURED) if len(asked.layout.rows[place])]
    done: list[int] = []
    spectra: list[Spectrum] = []
    tops: list[tuple[Tensor, Ends]] = []
    try:
        for place in sorted(chosen, key=lambda place: -sizes[place]):
            found = block_ends.measured(asked, place)
            blocks[place] = _with_ends(blocks[place], found, asked.layout.zeros(place))
            done.append(place)
            spectra.append(found.spectrum)
            best = max([found.ends.highest, *(one.highest for _, one in tops)])
            tops = [
                (rows, one)
                for rows, one in (*tops, (asked.layout.rows[place], found.ends))
                if one.highest >= best * (1 - ends.ALIKE)
            ]
    except KeyboardInterrupt:
        if processes.together():
            raise
        stopped = True
    result = replace(result, blocks=tuple(blocks))
    if done:
        highest, lowest = extremes(blocks, whole, zeros=asked.part.zeros, certain=False)
        certain = not highest.blocks_is_bound and not highest.hessian_is_bound
        cosine = ends.cosine(whole, tops) if certain else None
        result = replace(result, lambda_max=highest, lambda_min=lowest, top_cosine=cosine)
    return with_spectra(result, done, spectra), stopped


def _whole(asked: Asked, space: Basis) -> tuple[Ends, bool]:
    """Both ends of the whole matrix, and whether an interrupt came before they were found."""
    meter, before = asked.meter, asked.meter.spent

    def told(products: int, converged: int) -> None:
        del converged
        meter.add(products - (meter.spent - before))

    pairs = extreme_eigenpairs(
        asked.matrix,
        lowest=1,
        highest=HIGHEST,
        tol=TOLERANCE,
        max_basis=space.size,
        images=space.images,
        max_products=MOST_PRODUCTS,
        seed=asked.seed,
        precision=asked.matrix.precision,
        kept=asked.pieces.state("krylov") if asked.pieces.kept else None,
        progress=told,
    )
    if pairs.interrupted and processes.together():
        raise KeyboardInterrupt
    meter.add(pairs.products - (meter.spent - before))
    meter.add(0, MOST_PRODUCTS - (meter.spent - before))
    return Ends.of(pairs), pairs.interrupted


def _vanishing(block: Block) -> Block:
    return replace(block, lambda_max=0.0, lambda_min=0.0)


def _with_ends(block: Block, found: block_ends.Measured, zeros: int) -> Block:
    none = [0.0] * min(zeros, 1)
    return replace(
        block,
        lambda_max=max([found.ends.highest, *none]),
        lambda_min=min([found.ends.lowest, *none]),
        lambda_max_is_bound=not found.ends.converged[1],
        lambda_min_is_bound=not found.ends.converged[0],
        eigenvalues=tuple(found.spectrum.known.tolist()) if found.exact else None,
    )
