"""Problems whose Hessian is a random matrix: least squares on Gaussian data, and a Wigner matrix.

    python examples/random_hessians.py
    hessdiag diag-share 'examples/random_hessians.py:least_squares(n=8, d=64)'

Run as a script, it measures the diagonal share of many of each and holds it against the formulas.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import hessdiag
from hessdiag.theory.wigner_ols import ols_share_clt, ols_share_gaussian, wigner_share

DRAWS = 30


def least_squares(n: int = 32, d: int = 64, seed: int = 0) -> hessdiag.Problem:
    """A linear layer with one output and mean squared error: its Hessian is (2 / n) X^T X, whatever the targets."""
    x = torch.from_numpy(np.random.default_rng([n, d, seed]).normal(size=(n, d)))
    model = nn.Linear(d, 1, bias=False).double()
    return hessdiag.Problem(model, data=[(x, x[:, :1])], loss="mse")


class Quadratic(nn.Module):
    """f(w) = w^T H w / 2."""

    def __init__(self, H: Tensor) -> None:
        super().__init__()
        self.register_buffer("H", H)
        self.w = nn.Parameter(torch.ones(len(H), dtype=H.dtype))

    def forward(self, _: Tensor) -> Tensor:
        """The value; the batch does not matter."""
        return self.w @ self.H @ self.w / 2


def wigner(d: int = 64, seed: int = 0) -> hessdiag.Problem:
    """A quadratic function with a symmetric matrix of independent standard normal entries."""
    upper = torch.from_numpy(np.random.default_rng([d, seed]).normal(size=(d, d))).triu()
    model = Quadratic(upper + upper.triu(1).T)
    return hessdiag.Problem(model, data=[torch.zeros(1)], objective=lambda model, batch: model(batch))


def measured(draw: Callable[[int], hessdiag.Problem]) -> tuple[float, float]:
    """Share of the expected absolute Hessian, and its standard error: a ratio of two means over draws."""
    shares = [hessdiag.diag_share(draw(seed)) for seed in range(DRAWS)]
    diagonal, total = np.array([[share.abs_diag_sum, share.abs_sum] for share in shares]).T
    ratio = diagonal.sum() / total.sum()
    return float(ratio), float((diagonal - ratio * total).std(ddof=1) / total.mean() / DRAWS**0.5)


def main() -> None:
    d = 32
    print(f"{'least squares':<16} {'measured':>8} {'+-':>8} {'exact':>8} {'z':>5} {'for large n':>11} {'z':>6}")
    for n in (1, 2, 4, 8, 32, 128):
        share, error = measured(lambda seed, n=n: least_squares(n, d, seed))
        exact, clt = ols_share_gaussian(n, d), ols_share_clt(n, d)
        z = [(share - value) / error for value in (exact, clt)]
        print(f"n={n:<4} d={d:<9} {share:8.5f} {error:8.5f} {exact:8.5f} {z[0]:5.1f} {clt:11.5f} {z[1]:6.1f}")
    print(f"\n{'Wigner':<16} {'measured':>8} {'+-':>8} {'1/d':>8} {'z':>5}")
    for d in (4, 8, 16, 32):
        share, error = measured(lambda seed, d=d: wigner(d, seed))
        exact = wigner_share(d)
        print(f"       d={d:<8} {share:8.5f} {error:8.5f} {exact:8.5f} {(share - exact) / error:5.1f}")


if __name__ == "__main__":
    main()
