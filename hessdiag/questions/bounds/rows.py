"""Diagonal entries and radii of a Hessian's rows: all of them, streamed or whole, or from a sketch."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature import dense as whole
from hessdiag.curvature import exact
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.curvature.neuron_space import CERTIFIED
from hessdiag.linalg import diagonals, inclusion
from hessdiag.linalg.eigenpairs import ROUNDING
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import LONG
from hessdiag.machine import processes
from hessdiag.questions.common.runs.progress import Progress

Floats = NDArray[np.float64]

SKETCHES = 64  # Cauchy probes
REFINED = 128  # rows with the largest sketched sums, computed exactly
PART = 16  # of those rows, how many are held at a time
ROWS_TOGETHER = 64  # where rows come from products


@dataclass(frozen=True)
class Rows:
    """What is known of every row: diagonal entry, radius, and whether both are exact."""

    diagonal: Floats
    radii: Floats
    exact: NDArray[np.bool_]
    products: int
    stopped: bool = False  # by an interrupt, which may have left rows out: those that are exact still tell something


def dense(operator: HessianOperator, report: Progress) -> tuple[Tensor | None, Rows]:
    """The whole matrix with all diagonal entries and radii; after an interrupt, these of the rows that were done."""
    n, done = operator.shape[0], 0
    diagonal, sums, seen = torch.zeros(3, n, dtype=torch.float64)
    known = torch.zeros(n, dtype=torch.bool)
    v = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(operator.device)

    def finished(numbers: Tensor, rows: Tensor) -> None:
        nonlocal done
        place = numbers.cpu()
        diagonal[place], sums[place] = _entries_and_sums(rows, numbers)
        seen[place] = (rows.double() @ v).cpu()
        known[place] = True
        done = int(known.sum())
        report(done, n, "rows")

    try:
        matrix = whole.of(operator, finished)
    except KeyboardInterrupt:
        if processes.together() or not done:
            raise
        expected = (operator @ v.to(operator.dtype)).double().cpu()  # neuron space had not been held against products
        apart = float((seen - expected)[known].norm() / expected[known].norm())
        if not apart <= max(CERTIFIED.get(operator.problem.dtype, 0.0), ROUNDING * operator.precision):
            raise
        radii = (sums - diagonal.abs()).clamp(min=0).numpy()
        return None, Rows(diagonal.numpy(), radii, known.numpy(), done, stopped=True)
    return matrix, Rows(*inclusion.radii(matrix), np.ones(n, dtype=bool), n)


def streamed(operator: HessianOperator, report: Progress) -> Rows:
    """Diagonal and radius of every row, without holding the matrix."""
    n = operator.shape[0]
    report(0, n, f"{n:,} parameters: every Hessian row, streamed")
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(done, n, "rows")

    known, stopped = np.ones(n, dtype=bool), False
    try:
        statistics = exact.row_statistics(operator, exact.neuron_space(operator), advance)
        diagonal, sums, products = statistics.diagonal, statistics.sums.sum(1), statistics.products
        known[statistics.missing.numpy()] = False
        stopped = math.isnan(statistics.certificate)
    except NotInNeuronSpaceError:
        done, products = 0, n
        diagonal, sums = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
        try:
            for index, indices in enumerate(torch.split(torch.arange(n), ROWS_TOGETHER)):
                if processes.is_own(index):
                    diagonal[indices], sums[indices] = _entries_and_sums(operator.rows(indices), indices)
                advance(len(indices))
        except KeyboardInterrupt:
            if processes.together():
                raise
            known[done:], products, stopped = False, done, True
        processes.total(diagonal)
        processes.total(sums)
    radii = (sums - diagonal.abs()).clamp(min=0)
    return Rows(diagonal.numpy(), radii.numpy(), known, products, stopped)


def _entries_and_sums(rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows with these numbers: the diagonal entries and the absolute sums."""
    return diagonals.of_rows(rows, numbers).cpu(), rows.abs().sum(1, dtype=torch.float64).cpu()


def sketched(operator: SymmetricOperator, seed: int, report: Progress) -> Rows:
    """Every absolute row sum from a Cauchy sketch, and the rows with the largest ones exactly.

    A row of unknown diagonal gets the disc around 0 whose radius is its whole sum: it contains the row's own disc.
    """
    n = operator.shape[0]
    report(0, SKETCHES + REFINED, f"{n:,} parameters: {SKETCHES} + {REFINED} products for all radii, an estimate")
    sketch = inclusion.sketch_row_sums(operator, SKETCHES, seed)
    report(SKETCHES, SKETCHES + REFINED, "products")
    top = np.argsort(sketch.sums)[-REFINED:]
    diagonal, radii, known = np.zeros(n), sketch.sums.copy(), np.zeros(n, dtype=bool)
    stopped = False
    try:
        size = max(1, min(PART, LONG // n))
        for part in np.split(top, range(size, len(top), size)):
            units = torch.zeros(n, len(part), dtype=operator.dtype, device=operator.device)
            units[torch.from_numpy(part), torch.arange(len(part))] = 1.0
            columns = operator @ units
            diagonal[part] = (columns * units).sum(0).double().cpu().numpy()
            radii[part] = columns.abs().sum(0, dtype=torch.float64).cpu().numpy() - np.abs(diagonal[part])
            known[part] = True
            report(SKETCHES + int(known.sum()), SKETCHES + REFINED, "products")
    except KeyboardInterrupt:
        if processes.together():
            raise
        stopped = True
    return Rows(diagonal, radii.clip(min=0), known, SKETCHES + int(known.sum()), stopped)
