"""Quadratics in the plane, well or badly conditioned, along the axes or across (Adaptive norms, Figure 1)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import SpecError
from hessdiag.nets.network import Network, uninitialized
from hessdiag.nets.tasks.losses import HalfMSE
from hessdiag.nets.tasks.task import setup

KINDS = {"well": (1.5, 0.0), "ill": (100.0, 0.0), "rotated": (100.0, math.pi / 4)}  # condition number, angle
START = (-2.0, 1.5)
CONTENDERS = ("sgd", "adagrad", "tr-uniform", "tr-rmsprop", "tr-adagrad")
SMALL = 1e-6  # of the loss at the start


def quadratic(kind: str = "ill", seed: int = 0, dtype: torch.dtype = torch.float64) -> Mapping[str, Any]:
    """f(w) = w'Hw / 2 from (-2, 1.5), as the least squares of two samples, so that every command takes it.

    The numbers of the paper's three problems are lost. Ours are H = diag(1, 1.5), diag(1, 100), and the latter rotated
    by 45 degrees.

    Args:
        kind: "well", "ill" or "rotated".
        seed: Of nothing: there is no chance in it.
        dtype: Of the parameters.

    Returns:
        `{"model", "data", "loss"}`; the weights are (1, 2).

    Raises:
        SpecError: if the kind is another.

    >>> task = quadratic("ill")
    >>> x, y = task["data"]
    >>> round(float(task["loss"](task["model"](x), y).detach()), 9)  # (2^2 + 100 * 1.5^2) / 2
    114.5
    """
    if kind not in KINDS:
        raise SpecError(f"there is no quadratic {kind!r}; there are {', '.join(KINDS)}.", "kind='ill'")
    layer = uninitialized(2, 1, bias=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([START]))
    return setup(
        model=Network(layer),
        data=(math.sqrt(2) * root(*KINDS[kind]), torch.zeros(2, 1, dtype=torch.float64)),  # a mean over two samples
        loss=HalfMSE(),
        contenders=CONTENDERS,
        order="whole",
        level=SMALL,
    )


def root(condition: float, angle: float) -> Tensor:
    """R of (2, 2) with R'R = H, the eigenvalues 1 and `condition`, the first one's eigenvector at `angle` to the axis.

    >>> half = root(100.0, math.pi / 4)
    >>> half.T @ half
    tensor([[ 50.5000, -49.5000],
            [-49.5000,  50.5000]], dtype=torch.float64)
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    vectors = torch.tensor([[cosine, sine], [-sine, cosine]], dtype=torch.float64)
    return torch.tensor([1.0, condition], dtype=torch.float64).sqrt()[:, None] * vectors
