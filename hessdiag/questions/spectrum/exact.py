"""A spectrum whole: all eigenvalues by LAPACK, in float64."""

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.support import Support
from hessdiag.linalg import densities
from hessdiag.linalg.densities import Density
from hessdiag.linalg.eigenpairs import in_float64
from hessdiag.questions.common.certificate import OF_ALL, Witness
from hessdiag.questions.common.inertia import inertia
from hessdiag.questions.common.operators import Operator
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.spectrum import curves
from hessdiag.questions.spectrum.curves import NEAR_ZERO
from hessdiag.questions.spectrum.found import End, Found, zero
from hessdiag.questions.spectrum.result import Outlier
from hessdiag.statistics.intervals import Estimated

Floats = NDArray[np.float64]


def exact(part: Support, matrix: Operator, *, ends: int, steps: int, report: Progress) -> Found:
    """All eigenvalues, with the rows that are zero.

    Args:
        part: The rows that need not be zero.
        matrix: Of the parameters that the batches touch.
        ends: Eigenvalues at each end that are drawn by themselves.
        steps: Whose resolution the density is smoothed to.
        report: Told how far it is.
    """
    m, n = part.size, part.whole.n_parameters
    report(0, 1, f"{m:,} parameters: the whole matrix and all its eigenvalues")
    values = _eigenvalues(part, matrix)
    report(1, 1, "")
    ends = min(ends, (m - 1) // 2)
    outliers, bulk = np.concatenate([values[:ends], values[m - ends :]]), values[ends : m - ends]
    width = densities.default_width(bulk, outliers, steps)
    density = Density(bulk[None], np.full((1, len(bulk)), 1 / n), outliers, n, width, m, part.zeros)
    low, high = density.support
    rounding = zero(matrix, density.scale)
    signs = inertia(values.tolist(), rounding, part.zeros)
    return Found(
        method="exact",
        lowest=End(low, is_bound=False),
        highest=End(high, is_bound=False),
        witness=Witness(float(values[0]), OF_ALL, rounding),
        outliers=tuple(Outlier(float(value), None, True, None) for value in outliers),
        hvps=m,
        status="ok",
        density=density,
        trace=Estimated(float(values.sum())),
        frobenius=Estimated(float(np.sqrt((values**2).sum()))),
        negative_fraction=Estimated(signs.negative / n),
        negative_mass=curves.estimated(density.negative_mass()),
        near_zero_fraction=Estimated(float((np.abs(values) <= NEAR_ZERO * density.scale).sum() + part.zeros) / n),
        inertia=signs,
        condition=_condition(np.abs(values), rounding),
        eigenvalues=tuple(values.tolist()),
    )


def _eigenvalues(part: Support, matrix: Operator) -> Floats:
    """Those of the rows that need not be zero, ascending."""
    if isinstance(matrix, HessianOperator):
        dense = part.dense(matrix)
    else:
        dense = matrix @ torch.eye(part.size, dtype=matrix.dtype, device=matrix.device)
    wide = in_float64(dense)
    values: Floats = torch.linalg.eigvalsh((wide + wide.T) / 2).cpu().numpy()
    return values


def _condition(magnitudes: Floats, rounding: float) -> float | None:
    beyond = magnitudes[magnitudes > rounding]
    return float(beyond.max() / beyond.min()) if len(beyond) else None
