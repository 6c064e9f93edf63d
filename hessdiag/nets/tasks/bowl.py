"""A quadratic whose centre wanders (I. Liao et al., *Learning to Optimize Quasi-Newton Methods*, section 5.1)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import source
from hessdiag.nets.tasks.task import setup
from hessdiag.suggest import meant

LOWEST, HIGHEST = 1e-3, 1.0  # eigenvalues, with a geometric sequence between them
COVARIANCES = ("isotropic", "hessian", "inverse")
# Tuned by the paper (Table 6), on isotropic noise of variance 1. Momentum is that of torch.optim.SGD: without damping.
TUNED = (
    "lodo(alpha=0.27, meta_lr=0.00096, beta=0.195)",
    "adam(lr=1.164, betas=(0.465, 0.9884))",
    "sgd(lr=1.394, momentum=0.529)",
    "rmsprop(lr=0.449, alpha=0.04943, momentum=0.595)",
)


class Bowl(nn.Module):
    """`sqrt(dim / 2) H^(1/2) (x - c)` for centres c (k, dim): its mean square is `(x - c)'H(x - c) / 2`.

    Attributes:
        position: x, (dim,); starts at the origin.
        hessian: H, (dim, dim), a buffer.

    >>> bowl = Bowl(dim=3, seed=0)
    >>> c = torch.ones(1, 3, dtype=torch.float64)
    >>> torch.allclose(bowl(c).square().mean(), c[0] @ bowl.hessian @ c[0] / 2)
    True
    """

    hessian: Tensor
    root: Tensor

    def __init__(self, dim: int = 100, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        if dim < 1:
            raise SpecError(f"a bowl has at least one dimension, not {dim}.", "dim=100")
        Q = rotation(dim, seed)
        self.position = nn.Parameter(torch.zeros(dim, dtype=dtype))
        self.register_buffer("hessian", ((Q * eigenvalues(dim)) @ Q.T).to(dtype))
        self.register_buffer("root", ((Q * (eigenvalues(dim) * dim / 2).sqrt()) @ Q.T).to(dtype))

    def forward(self, centres: Tensor) -> Tensor:
        """Of centres (k, dim), (k, dim)."""
        return (self.position - centres) @ self.root


def bowl(
    dim: int = 100,
    steps: int = 5000,
    noise: float = 1.0,
    covariance: str = "isotropic",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Mapping[str, Any]:
    """A noisy quadratic bowl: an optimizer is as good as it tracks the centre.

    Before every evaluation the centre moves by Gaussian noise, a random walk from the origin, where the parameters
    start. Each batch of the data is one centre; they are meant to be gone through once, in order, with one step for
    each. No step can foresee the next move s, so the mean loss is at least that of s'Hs / 2, half the trace of H times
    the covariance: what Newton's method reaches.

    Args:
        dim: Parameters. Eigenvalues of H are a geometric sequence from 0.001 to 1, in a random orthogonal basis.
        steps: How many centres.
        noise: Standard deviation of each move, in each direction.
        covariance: "isotropic"; "hessian", proportional to H; "inverse", to its inverse. All are scaled so that
            Newton's method has the same mean loss, 7.41 in 100 dimensions with `noise` 1.
        seed: Of basis and noise.
        dtype: Of the parameters.

    Returns:
        `{"model", "data", "loss"}`; the data are `steps` batches of a centre (1, dim) and zeros as its target.

    Raises:
        SpecError: if a size is below 1, the noise is no positive number, or the covariance is unknown.

    >>> task = bowl(dim=100, steps=3)
    >>> len(task["data"]), task["model"].task.said[0]
    (3, "no step foresees the centre's next move: the mean loss of Newton's method, 7.412, is the least there is")
    """
    if steps < 1:
        raise SpecError(f"a stream has at least one centre, not {steps}.", "steps=5000")
    if not 0 < noise < float("inf"):
        raise SpecError(f"noise is a positive standard deviation, not {noise}.", "noise=1.0")
    model = Bowl(dim, seed, dtype)
    walk, target = centres(dim, steps, noise, covariance, seed).to(dtype), torch.zeros(1, dim, dtype=dtype)
    least = noise**2 * float(eigenvalues(dim).sum()) / 2
    return setup(
        model=model,
        data=[(centre, target) for centre in torch.split(walk, 1)],
        loss="mse",
        contenders=TUNED,
        order="stream",
        samples=1,
        steps=steps,
        score=(0.9, 1.0),
        said=(
            f"no step foresees the centre's next move: the mean loss of Newton's method, {least:.4g}, is the least "
            "there is",
            "those that run unless others are named have the settings that the paper tuned, for isotropic noise of "
            "variance 1 in 100 dimensions",
        ),
    )


def centres(dim: int, steps: int, noise: float, covariance: str, seed: int) -> Tensor:
    """A random walk from the origin, (steps, dim), after its first move.

    >>> walk = centres(4, 20_000, 0.5, "isotropic", seed=0)
    >>> walk.shape, walk.diff(dim=0).std(0).round(decimals=2).tolist()
    (torch.Size([20000, 4]), [0.5, 0.5, 0.5, 0.5])
    """
    if covariance not in COVARIANCES:
        near = meant(str(covariance), COVARIANCES) or "isotropic"
        raise SpecError(
            f"unknown covariance {covariance!r}: not one of {', '.join(COVARIANCES)}.", f"covariance={near!r}"
        )
    values = eigenvalues(dim)
    variances = {"isotropic": torch.ones_like(values), "hessian": values, "inverse": 1 / values}[covariance]
    variances = variances * values.sum() / (values @ variances)  # the trace of H times the covariance stays
    moves = torch.randn(steps, dim, generator=source(seed, dim, 1), dtype=torch.float64)
    return noise * (moves * variances.sqrt() @ rotation(dim, seed).T).cumsum(0)


def eigenvalues(dim: int) -> Tensor:
    """Of the Hessian, (dim,), ascending.

    >>> eigenvalues(4)
    tensor([0.0010, 0.0100, 0.1000, 1.0000], dtype=torch.float64)
    """
    share = torch.linspace(0.0, 1.0, dim, dtype=torch.float64) if dim > 1 else torch.ones(1, dtype=torch.float64)
    return LOWEST * (HIGHEST / LOWEST) ** share


def rotation(dim: int, seed: int) -> Tensor:
    """A random orthogonal matrix (dim, dim), uniformly distributed: the Hessian's eigenvectors are its columns."""
    Q, R = torch.linalg.qr(torch.randn(dim, dim, generator=source(seed, dim), dtype=torch.float64))
    found: Tensor = Q * R.diagonal().sign()
    return found
