"""The largest part of an operator from a few products, and the Frobenius norm of it and of the rest.

Halko, Martinsson and Tropp (2011) for the range; Meyer, Musco, Musco and Woodruff (2021) for what is left to chance.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hessdiag.linalg import pairs
from hessdiag.linalg.estimators import Deflated, Estimate, columns_of, magnitude, probes, refuse_few, sketch_of
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import spread_of
from hessdiag.linalg.tridiagonal import LONG, row_norms, safe_norm
from hessdiag.machine.arithmetic import ieee
from hessdiag.statistics import intervals


@dataclass(frozen=True)
class Sketched:
    """A = Q Q'A + A Q Q' - Q Q'A Q Q' + P A P with P = I - Q Q', of which the last is left to random signs.

    Attributes:
        Q: Orthonormal columns, (n, r).
        AQ: Their images.
        rest: P A P.
        signs: How many vectors of random signs.
        seed: Of them.
    """

    Q: Tensor
    AQ: Tensor
    rest: Deflated
    signs: int
    seed: int | None

    def diagonal(self) -> Tensor:
        """That of the known part, (n,), float64."""
        core = self.rest.spread.summed(self.Q.T @ self.AQ)
        return (self.Q * (2 * self.AQ - self.Q @ core)).sum(1, dtype=torch.float64)

    def square(self, unit: float) -> float:
        """The squared Frobenius norm of the known part, in squares of a unit: they may vanish in others."""
        AQ = self.AQ / unit
        spread = self.rest.spread
        images, core = row_norms(AQ.T, spread), row_norms(spread.summed(self.Q.T @ AQ))
        return float(2 * images.square().sum() - core.square().sum())

    def signed(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Vectors of random signs as columns, with their products with the rest; some at a time."""
        signs = probes(self.rest, self.signs, self.seed, signs=True)
        for some in torch.split(signs, max(LONG // self.rest.spread.n, 1), dim=1):
            yield some, self.rest @ some


def sketched(operator: SymmetricOperator, count: int, size: int, seed: int | None) -> Sketched:
    """Spend two products on each of `size` random vectors, and plan the others."""
    Q = sketch_of(operator, size, seed)
    AQ = operator @ Q if Q.shape[1] else Q
    return Sketched(Q, AQ, Deflated(operator, Q), count - 2 * size, seed)


@ieee()
def frobenius(operator: SymmetricOperator, count: int, seed: int | None = None, *, sketch: int = 0) -> Estimate:
    """The Frobenius norm from |A v|^2 of random signs v, exactly on the range of a sketch and by chance on the rest.

    The variance of |B v|^2 is 2 (|B^2|_F^2 - sum (B^2)_ii^2), B the rest, estimated from pairs of the same products.

    Args:
        operator: Symmetric, (n, n).
        count: Products to spend, at least 2 `sketch` + 2. With n or more, all columns are computed instead.
        seed: `None` for fresh randomness.
        sketch: Random vectors for the range; each costs two products.

    Raises:
        ValueError: if fewer than two products are left beside the sketch.

    >>> frobenius(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), 2)
    Estimate(value=5.0, stderr=0.0, interval=(5.0, 5.0), products=2)
    """
    n, spread = operator.shape[0], spread_of(operator)
    refuse_few(count, sketch, n)
    if count >= n:
        norms = [safe_norm(columns) for _, columns in columns_of(operator)]
        value = safe_norm(torch.tensor(norms, dtype=torch.float64), spread)
        return Estimate(value, 0.0, (value, value), n)
    part = sketched(operator, count, sketch, seed)
    fold = pairs.fold_of(spread, operator.device)
    squares: list[float] = []
    samples = []
    scale = 0.0
    for signs, products in part.signed():
        scale = scale or magnitude(products, spread) or 1.0  # squares would vanish or overflow
        unit = products / scale
        squares += row_norms(unit.T, spread).square().tolist()
        samples += [pairs.folded(fold, v, y[None]) for v, y in zip(signs.T, unit.T, strict=True)]
    mean = float(np.mean(squares))
    variance = max(float(pairs.variances(fold, np.stack(samples))[0][0]), float(np.var(squares, ddof=1))) / len(squares)
    ends = intervals.chi_square(np.array(mean), np.array(variance))
    known = part.square(scale)
    value = math.sqrt(known + mean)
    low, high = (scale * math.sqrt(known + float(end)) for end in ends)
    stderr = math.sqrt(variance) / (2 * value) if value else 0.0  # the delta method
    return Estimate(scale * value, scale * stderr, (low, high), count)
