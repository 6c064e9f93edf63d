"""The largest eigenvalue of a matrix that was asked for a little earlier, too: a few products from its last vector."""

from typing import NamedTuple

import torch
from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator

LEAST, MOST = 3, 10
TOLERANCE = 0.05  # of the residual, relative: values within 2 % typically, and at worst 5 % where they were tried
NOISE = 0.1  # that a warm start is given, for the leading vectors may have changed places


class Leading(NamedTuple):
    """The largest Ritz value, its vector (n,), and the products that it took."""

    value: float
    vector: Tensor
    products: int


def leading(operator: SymmetricOperator, start: Tensor | None = None, *, seed: int = 0) -> Leading:
    """The largest eigenvalue by a short Lanczos iteration, from the last one's vector where there is one.

    A lower bound. It ends once the residual |Av - theta v| is 5 % of theta; the basis is orthogonalized twice.

    Args:
        operator: Symmetric, (n, n).
        start: Vector of the same matrix a little earlier, (n,); `None` to start at random.
        seed: Of the start, or of the noise that is added to it.

    >>> round(leading(torch.diag(torch.tensor([5.0, 1.0, 0.5, 0.2, -3.0]))).value, 2)
    5.0
    """
    n = operator.shape[0]
    noise = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise = (noise / noise.norm()).to(operator.device, operator.dtype)
    first = noise if start is None else start / start.norm() + NOISE * noise
    basis = (first / first.norm())[None]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = operator @ basis[-1]
        diagonal.append(float(basis[-1] @ image))
        for _ in range(2):
            image = image - basis.T @ (basis @ image)
        left = float(image.norm())
        tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        if beside:
            off = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
            tridiagonal = tridiagonal + off + off.T
        if not bool(torch.isfinite(tridiagonal).all()):
            return Leading(float("nan"), basis[0], len(diagonal))
        values, vectors = torch.linalg.eigh(tridiagonal)
        top, weights = float(values[-1]), vectors[:, -1]
        settled = len(diagonal) >= min(LEAST, n) and left * abs(float(weights[-1])) <= TOLERANCE * abs(top)
        if settled or len(diagonal) >= min(MOST, n) or left <= torch.finfo(operator.dtype).eps * abs(top):
            return Leading(top, weights.to(basis) @ basis, len(diagonal))
        beside.append(left)
        basis = torch.cat([basis, (image / left)[None]])
