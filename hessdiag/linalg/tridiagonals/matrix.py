"""What Lanczos makes of an operator and start vectors."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tridiagonal:
    """A Q = Q T + beta_m q_(m+1) e_m' for each of k start vectors, T = tridiag(betas, alphas, betas).

    Attributes:
        alphas: Diagonals, float64 on the CPU, shape (k, m). Zero beyond a vector's last step.
        betas: beta_j couples step j with step j + 1, shape (k, m); the last belongs to the residual. Zero from the step
            at which a vector's Krylov space is exhausted.
        steps: How many steps each vector took, shape (k,): m, or the dimension of its Krylov space if that is smaller.
        basis: The Lanczos vectors, shape (k, n, m) in the operator's dtype; `None` unless asked for.
        products: How many were spent: those of the steps, twice if they had to be taken again.
    """

    alphas: Tensor
    betas: Tensor
    steps: Tensor
    basis: Tensor | None
    products: int

    @property
    def terminated(self) -> Tensor:
        """Whether each Krylov space was exhausted, so that its Ritz pairs are exact; shape (k,), bool."""
        last = (self.steps - 1).clamp(min=0)[:, None]
        return (self.steps == 0) | (self.betas.gather(1, last)[:, 0] == 0)

    def matrix(self, index: int = 0) -> Tensor:
        """T of one start vector, shape (steps, steps), float64."""
        m = int(self.steps[index])
        off = self.betas[index, : max(m - 1, 0)]
        return torch.diag(self.alphas[index, :m]) + torch.diag(off, 1) + torch.diag(off, -1)
