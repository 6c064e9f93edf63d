"""Trace and Frobenius norm of an operator from a few products, each with its standard error."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.lanczos import safe_norm
from hessdiag.linalg.operator import SymmetricOperator


@dataclass(frozen=True)
class Estimate:
    """An estimated number.

    Attributes:
        value: The estimate.
        stderr: Its standard error.
        products: Products with vectors spent on it.
    """

    value: float
    stderr: float
    products: int


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


def trace(operator: SymmetricOperator, count: int, seed: int | None = None) -> Estimate:
    """Trace by XTrace: each probe corrects the trace on the range that the other probes see.

    Epperly, Tropp and Webber, "XTrace: making the most of every sample in stochastic trace estimation" (2024),
    Algorithm 2.1, with the leave-one-out error of their section 2.4. Exact where the rank is below the probes.

    Args:
        operator: Symmetric, (n, n).
        count: Probes, at least 2; each costs two products. With n or more, the diagonal is computed instead.
        seed: `None` for fresh randomness.

    Returns:
        An unbiased estimate with its standard error.

    >>> A = torch.outer(torch.arange(5.0), torch.arange(5.0)).double()
    >>> round(trace(A, 3, seed=0).value, 9)
    30.0
    """
    k, n = max(count, 2), operator.shape[0]
    if k >= n:
        diagonal = (operator @ torch.eye(n, dtype=operator.dtype, device=operator.device)).diagonal()
        return Estimate(float(diagonal.double().sum()), 0.0, n)
    omega = probes(operator, k, seed, signs=True)
    Y = (operator @ omega).double()
    Q, R = torch.linalg.qr(Y)
    Z = (operator @ Q.to(omega.dtype)).double()
    omega = omega.double()
    # The range of the other probes is that of Q without s_i, the i-th column of R^-T made a unit vector. A rank below
    # k makes R singular; the added rounding error sends s_i into the part of Q that the operator does not see.
    floor = torch.finfo(operator.dtype).eps * (float(R.abs().max()) or 1.0)
    S = torch.linalg.solve_triangular(
        (R + floor * torch.eye(k, dtype=R.dtype, device=R.device)).T, torch.eye(k, dtype=R.dtype, device=R.device),
        upper=False,
    )  # fmt: skip
    S = S / S.norm(dim=0)
    H, W = Q.T @ Z, Q.T @ omega
    X = W - S * (S * W).sum(0)
    rest = ((omega - Q @ X) * (Y - Z @ X)).sum(0)
    return _mean(H.trace() - (S * (H @ S)).sum(0) + rest, 2 * k)


def frobenius_squared(operator: SymmetricOperator, count: int, seed: int | None = None) -> Estimate:
    """Square of the Frobenius norm as the mean of |A v|^2 over normal v: unbiased, of variance 2 tr A^4 per probe.

    Args:
        operator: Symmetric, (n, n).
        count: Probes, at least 2; each costs one product.
        seed: `None` for fresh randomness.
    """
    products = operator @ probes(operator, max(count, 2), seed)
    return _mean(products.double().square().sum(0), products.shape[1])


def frobenius(operator: SymmetricOperator, count: int, seed: int | None = None) -> Estimate:
    """Frobenius norm: the root of `frobenius_squared`, with its error by the delta method.

    >>> abs(frobenius(torch.eye(400).double(), 100, seed=0).value - 20) < 0.2
    True
    """
    return root(frobenius_squared(operator, count, seed))


def root(square: Estimate) -> Estimate:
    """The root of an estimated square: its error is that of the square over twice the root (delta method)."""
    value = math.sqrt(max(square.value, 0.0))
    return Estimate(value, square.stderr / (2 * value) if value else 0.0, square.products)


def _mean(samples: Tensor, products: int) -> Estimate:
    mean, k = samples.mean(), len(samples)
    stderr = safe_norm(samples - mean) / math.sqrt(k * (k - 1))
    return Estimate(float(mean), stderr, products)
