"""Trace of an operator from a few products, with its error: Hutchinson's estimator, after a sketch of what is large."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg import intervals
from hessdiag.linalg.lanczos import safe_norm
from hessdiag.linalg.operator import SymmetricOperator


@dataclass(frozen=True)
class Estimate:
    """An estimated number.

    Attributes:
        value: The estimate.
        stderr: Its standard error.
        interval: At 95 %.
        products: Products with vectors spent on it.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    products: int

    def shifted(self, by: float) -> "Estimate":
        """The same with a known number added."""
        low, high = self.interval
        return Estimate(self.value + by, self.stderr, (low + by, high + by), self.products)


class Deflated:
    """An operator restricted to the orthogonal complement of known eigenvectors: P A P with P = I - U U'.

    Args:
        operator: Symmetric, (n, n).
        vectors: Orthonormal columns U, shape (n, r).
    """

    def __init__(self, operator: SymmetricOperator, vectors: Tensor) -> None:
        self.operator = operator
        self.vectors = vectors.to(operator.device, operator.dtype)
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device

    def project(self, vectors: Tensor) -> Tensor:
        """What is orthogonal to the known eigenvectors."""
        return vectors - self.vectors @ (self.vectors.T @ vectors)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """P A P v."""
        return self.project(self.operator @ self.project(vectors))


def probes(operator: SymmetricOperator, count: int, seed: int | None, *, signs: bool = False) -> Tensor:
    """Random vectors as columns, shape (n, count): standard normal, or of random signs.

    Args:
        operator: Gives shape, dtype and device.
        count: How many.
        seed: `None` for fresh randomness in each call.
        signs: Entries +1 and -1 (Rademacher) instead of normal ones.
    """
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    shape = (operator.shape[0], count)
    if signs:
        drawn = torch.randint(0, 2, shape, generator=generator).double() * 2 - 1
    else:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    return drawn.to(operator.device, operator.dtype)


def trace(operator: SymmetricOperator, count: int, seed: int | None = None, *, sketch: int = 0) -> Estimate:
    """Trace by random signs, exactly on the range of a sketch and by chance on the rest.

    Without a sketch, Hutchinson's estimator (1990); with one, Hutch++ (Meyer, Musco, Musco and Woodruff 2021). Its
    variance is 2 (|B|^2 - sum B_ii^2) over the number of signs, B the rest. Both sums are estimated from the same
    products: the second from pairs of them, where the error of one does not square.

    Args:
        operator: Symmetric, (n, n).
        count: Products to spend, at least 2 `sketch` + 2. With n or more, the diagonal is computed instead.
        seed: `None` for fresh randomness.
        sketch: Random vectors for the range; each costs two products. Worth it where eigenvalues decay.

    Returns:
        An unbiased estimate with its standard error and interval.

    >>> A = torch.outer(torch.arange(5.0), torch.arange(5.0)).double()
    >>> round(trace(A, 4, seed=0, sketch=1).value, 9)
    30.0
    """
    n = operator.shape[0]
    if count >= n:
        diagonal = (operator @ torch.eye(n, dtype=operator.dtype, device=operator.device)).diagonal()
        value = float(diagonal.double().sum())
        return Estimate(value, 0.0, (value, value), n)
    seeds: list[int | None] = [None, None] if seed is None else [seed, seed + 1_000_003]
    known, rest = 0.0, Deflated(operator, torch.zeros(n, 0, dtype=operator.dtype))
    if sketch:
        Q = torch.linalg.qr((operator @ probes(operator, sketch, seeds[1])).double())[0].to(operator.dtype)
        known = float((Q * (operator @ Q)).double().sum())
        rest = Deflated(operator, Q)
    h = max(count - 2 * sketch, 2)
    signs = probes(operator, h, seeds[0], signs=True)
    B = (rest @ signs).double()
    W = signs.double()
    samples = (W * B).sum(0)
    largest = float(B.abs().max()) or 1.0
    spread, pairs = B / largest, W * B / largest
    norm = float(spread.square().sum()) / h
    diagonal_norm = (float(pairs.sum(1).square().sum()) - float(pairs.square().sum())) / (h * (h - 1))
    plugged = largest * math.sqrt(max(2 * (norm - diagonal_norm) / h, 0.0))
    sampled = safe_norm(samples - samples.mean()) / math.sqrt(h * (h - 1))
    value, stderr = known + float(samples.mean()), max(plugged, sampled)
    return Estimate(value, stderr, intervals.normal(value, stderr), 2 * sketch + h)
