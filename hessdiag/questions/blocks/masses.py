"""The sum of |H_ii| over each layer, from a sample of rows."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.sharded.vectors import unit_rows
from hessdiag.linalg import diagonals
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import ShardedProblem
from hessdiag.statistics import sampling

Floats = NDArray[np.float64]


def most_rows(problem: Problem, rows: int) -> int:
    """Rows that `diagonal_masses` takes at most."""
    most = max(rows, sampling.BEGINNING * len(problem.parameters))
    return sum(min(layer.size, most) for layer in problem.executed_layers)


def diagonal_masses(operator: HessianOperator, rows: int, seed: int) -> tuple[Floats, Floats, int]:
    """Sum of |H_ii| of each layer from a sample of rows, stratified by tensor, with standard errors and products spent.

    Not from the probes: magnitudes of estimated diagonal entries would be too large by their noise.
    """
    problem = operator.problem
    rng = np.random.default_rng(seed)
    masses, variances, products = [], [], 0
    for layer in problem.executed_layers:
        strata = problem.places(layer)
        sizes = np.array([stratum.stop - stratum.start for stratum in strata])
        counts = sampling.allocate(sizes, max(rows, sampling.BEGINNING * len(strata)))
        mass = variance = 0.0
        for stratum, size, count in zip(strata, sizes.tolist(), counts, strict=True):
            drawn = torch.from_numpy(stratum.start + np.sort(rng.choice(size, count, replace=False)))
            entries = _diagonal(operator, drawn, layer)
            mass += size * float(entries.mean())
            if count < size:
                variance += size**2 * (1 / count - 1 / size) * float(entries.var(ddof=1))
            products += int(count)
        masses.append(mass)
        variances.append(variance)
    return np.array(masses), np.sqrt(variances), products


def _diagonal(operator: HessianOperator, indices: Tensor, layer: Layer) -> Floats:
    """|H_ii| for some rows of one layer."""
    problem = operator.problem
    if isinstance(problem, ShardedProblem):
        inside, _ = problem.layout.within(layer.start, layer.stop)
        few = [
            (unit_rows(problem, some, operator.dtype)[:, inside] * operator.rows(some, layer)).sum(
                1, dtype=torch.float64
            )
            for some in torch.split(indices, operator.chunk)
        ]
        return problem.layout.summed(torch.cat(few)).abs().cpu().numpy()
    return diagonals.of_rows(operator.rows(indices, layer), indices - layer.start).abs().cpu().numpy()
