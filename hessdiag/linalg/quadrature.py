"""Spectral density by stochastic Lanczos quadrature, with outliers kept exact.

Golub and Meurant, Matrices, Moments and Quadrature (2010); Ubaru, Chen and Saad (2017); Papyan (2019) on outliers.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.linalg import estimators
from hessdiag.linalg.densities import Density, default_width
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import interruptible, spread_of
from hessdiag.linalg.tridiagonal import Tridiagonal, tridiagonalize
from hessdiag.machine.arithmetic import ieee

Arrays = Mapping[str, NDArray[Any]]


@ieee()
def spectral_density(
    operator: SymmetricOperator,
    *,
    probes: int = 10,
    steps: int = 80,
    seed: int | None = None,
    deflate: tuple[Tensor, Tensor] | None = None,
    zeros: int = 0,
    width: float | None = None,
    at_once: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    stepped: Callable[[int, int], None] = lambda vectors, steps: None,
    keep: Callable[[str, Callable[[], Arrays]], Arrays] = lambda name, compute: compute(),
) -> Density:
    """Spectral density by Lanczos from random vectors, all of them in lockstep.

    Args:
        operator: Symmetric, (n, n). Where its vectors are spread over processes, eigenvectors are pieces.
        probes: k random vectors, uniform on the sphere.
        steps: m Lanczos steps from each.
        seed: `None` for fresh randomness.
        deflate: Converged eigenvalues (r,) and orthonormal eigenvectors (n, r). The probes are orthogonal to them, and
            they return as point masses 1 / n: nothing of an outlier depends on chance.
        zeros: Rows and columns of zeros that the operator leaves out: the density is that of n + zeros eigenvalues.
        width: Of the Gaussian that smooths. Default: the bulk's range over the steps, the distance of nodes.
        at_once: Probes per lockstep, where the bases of all do not fit: they hold k (m + 1) n numbers.
        progress: Called with the number of probes done. A keyboard interrupt after the second keeps what is there.
        stepped: Called after each step with how many probes took it, and which it was.
        keep: Gives what the function computes for the probes of a name, or what is there of it already.

    Returns:
        The quadratures, and all that follows from them.

    >>> A = torch.diag(torch.linspace(0, 1, 200, dtype=torch.float64))
    >>> density = spectral_density(A, probes=20, steps=30, seed=0)
    >>> density.moments(2).value.round(1)
    array([0.5, 0.3])
    """
    n, spread = operator.shape[0], spread_of(operator)
    vectors = deflate[1] if deflate is not None else torch.zeros(spread.own, 0, dtype=operator.dtype)
    outliers = deflate[0].double().cpu().numpy() if deflate is not None else np.zeros(0)
    free = estimators.Deflated(operator, vectors)
    starts = free.project(free.project(estimators.probes(operator, probes, seed)))
    bulk = 1.0 - (len(outliers) + zeros) / (n + zeros)
    steps = min(steps, n - len(outliers))
    rules = [(np.full((probes, steps), np.nan), np.zeros((probes, steps))) for _ in ("Gauss", "anti-Gauss")]
    products = done = 0
    try:
        for group in torch.split(starts, at_once or probes, dim=1) if steps else ():

            def computed(group: Tensor = group) -> Arrays:
                found = tridiagonalize(free if len(outliers) else operator, group, steps, progress=stepped)
                return {"alphas": found.alphas.numpy(), "betas": found.betas.numpy(), "steps": found.steps.numpy()}

            arrays = keep(f"probes {done + 1} to {done + group.shape[1]}", computed)
            alphas, betas, taken = (torch.from_numpy(arrays[name]) for name in ("alphas", "betas", "steps"))
            tridiagonals = Tridiagonal(alphas, betas, taken, None)
            products += int(tridiagonals.steps.sum())
            for index in range(group.shape[1]):
                T = tridiagonals.matrix(index)
                ended = len(T) in (1, n - len(outliers)) or len(T) < steps
                for (nodes, weights), matrix in zip(rules, (T, T if ended else _anti_gauss(T)), strict=True):
                    theta, vectors = torch.linalg.eigh(matrix)
                    nodes[done, : len(theta)] = theta.numpy()
                    weights[done, : len(theta)] = bulk * vectors[0].square().numpy()
                done += 1
            progress(done)
    except KeyboardInterrupt:
        if done < 2 or not interruptible(spread):
            raise
        rules = [(nodes[:done], weights[:done]) for nodes, weights in rules]
    (nodes, weights), anti = rules
    width = width or default_width(nodes, outliers, steps)
    return Density(nodes, weights, outliers, n + zeros, width, products, zeros, anti)


def _anti_gauss(T: Tensor) -> Tensor:
    """The tridiagonal matrix of the anti-Gauss rule (Laurie 1996), of two rows or more: its last coupling is larger."""
    matrix = T.clone()
    matrix[[-1, -2], [-2, -1]] *= math.sqrt(2)
    return matrix
