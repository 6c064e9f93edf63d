"""All about a partition of a Hessian that is at hand: sums of its entries, and LAPACK's eigenvalues of every block."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.support import Support
from hessdiag.linalg.eigenpairs import in_float64
from hessdiag.questions.blocks.by import ends
from hessdiag.questions.blocks.by.layout import Layout
from hessdiag.questions.blocks.by.result import Block, BlocksBy
from hessdiag.questions.blocks.by.spectra import Spectrum
from hessdiag.questions.blocks.by.together import coupled, extremes, with_spectra
from hessdiag.questions.common.runs.progress import Progress

Floats = NDArray[np.float64]


def exact(part: Support, layout: Layout, result: BlocksBy, operator: HessianOperator, report: Progress) -> BlocksBy:
    """Fill in a result from the whole matrix.

    Args:
        part: Its rows that need not be zero.
        layout: Where blocks are among them.
        result: With nothing but names in it.
        operator: The Hessian of what the batches touch.
        report: Told how far it is.
    """
    n = part.whole.n_parameters
    report(
        0, layout.count, f"{n:,} parameters in {layout.count:,} blocks: the whole matrix, and all blocks' eigenvalues"
    )
    H = in_float64(part.dense(operator))
    H = (H + H.T) / 2
    squares, masses = (_between(layout, numbers) for numbers in (H.square(), H.abs()))
    whole, mass = float(squares.sum()), float(masses.sum())
    diagonal = H.diagonal().cpu()
    blocks, spectra, tops = list(result.blocks), [], []
    for number, rows in enumerate(layout.rows):
        own = H[rows.to(H.device)][:, rows.to(H.device)]
        values = torch.linalg.eigvalsh(own).cpu().numpy() if len(rows) else np.zeros(0)
        spectra.append(Spectrum(layout.sizes[number], values, layout.zeros(number)))
        blocks[number] = _block(blocks[number], spectra[-1], squares[number], masses[number], number, whole)
        report(number + 1, layout.count, "blocks")
    best = max(range(layout.count), key=lambda number: blocks[number].lambda_max or 0.0)
    limit = (blocks[best].lambda_max or 0.0) * (1 - ends.ALIKE)
    for number, block in enumerate(blocks):
        if block.lambda_max is not None and block.lambda_max >= limit > 0 and len(layout.rows[number]):
            rows = layout.rows[number].to(H.device)
            tops.append((layout.rows[number], ends.of_matrix(H[rows][:, rows], operator.precision)))
    both = ends.of_matrix(H, operator.precision)
    highest, lowest = extremes(blocks, both, zeros=part.zeros, certain=True)
    named, norms = coupled(layout, np.sqrt(squares))
    found = replace(
        result,
        blocks=tuple(blocks),
        frobenius_share=_over(float(np.trace(squares)), whole),
        absolute_share=_over(float(np.trace(masses)), mass),
        relative_error=_over(float(np.sqrt(max(whole - np.trace(squares), 0.0))), float(np.sqrt(whole))),
        diagonal_frobenius_share=_over(float(diagonal.square().sum()), whole),
        diagonal_absolute_share=_over(float(diagonal.abs().sum()), mass),
        norm=float(np.sqrt(whole)),
        lambda_max=highest,
        lambda_min=lowest,
        rounding=both.rounding,
        top_cosine=ends.cosine(both, tops),
        coupled=named,
        coupling=norms,
        rows=len(H),
        hvps=len(H),
    )
    return with_spectra(found, list(range(layout.count)), spectra)


def _between(layout: Layout, numbers: Tensor) -> Floats:
    """Sums of entries between every two blocks, (blocks, blocks)."""
    found: Floats = layout.sums(layout.sums(numbers).T.contiguous()).cpu().numpy()
    return found


def _block(named: Block, spectrum: Spectrum, squares: Floats, masses: Floats, number: int, whole: float) -> Block:
    """One block's numbers, from the sums of its rows' entries by the blocks of their columns."""
    values = [*spectrum.known.tolist(), *[0.0] * min(spectrum.zeros, 1)]
    own = float(squares[number])
    return replace(
        named,
        frobenius=float(np.sqrt(own)),
        share=_over(own, whole),
        row_share=_over(own, float(squares.sum())),
        row_absolute_share=_over(float(masses[number]), float(masses.sum())),
        lambda_max=max(values),
        lambda_min=min(values),
        eigenvalues=tuple(spectrum.known.tolist()),
    )


def _over(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
