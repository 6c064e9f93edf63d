"""The deep narrow ReLU network at the plateau of its initialization (Vanishing Curvature, Figure 5)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hessdiag.nets.initializers import source
from hessdiag.nets.mlp import MLP
from hessdiag.nets.tasks.losses import HalfMSE
from hessdiag.nets.tasks.task import setup

FEATURES = 16
BATCH = 128  # of first-order methods in the paper
CURVATURE_BATCH = 512  # of trust regions in Adaptive norms, Table 1


def deep_mlp(
    depth: int = 32,
    width: int = 16,
    init: str = "he_uniform",
    samples: int = 512,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Mapping[str, Any]:
    """A ReLU network far deeper than wide, without biases, that learns a teacher with one hidden layer.

    `depth=128, width=32` has the size of the paper's network, which it trains on Fashion-MNIST. Half the mean squared
    error of a zero output is (samples - 1) / (2 samples), for the targets have mean 0 and standard deviation 1.

    Args:
        depth: Hidden layers, so that there are `depth + 1` weight matrices.
        width: Units of each.
        init: A key of `hessdiag.nets.INITS`: `he_uniform`, `lecun_variance` (Xavier's in a square network) or `lecun`,
            which is torch's default, differ by factors of about 10^5 and 10^7 in the gradient.
        samples: How many.
        seed: Of weights and data.
        dtype: Of the parameters.

    Returns:
        `{"model", "data", "loss"}`; the data are one batch of inputs (samples, 16) and targets (samples, 1).

    Raises:
        SpecError: if the initialization is unknown or a size is below 1.

    >>> task = deep_mlp()
    >>> sum(parameter.numel() for parameter in task["model"].parameters())
    8208
    >>> x, y = task["data"]
    >>> f"{task['loss'](torch.zeros_like(y), y):.6f}"
    '0.499023'
    """
    model = MLP(depth=depth + 1, width=width, in_features=FEATURES, out_features=1, init=init, seed=seed, dtype=dtype)
    return setup(
        model=model,
        data=teacher(samples, seed),
        loss=HalfMSE(),
        samples=BATCH,
        curvature_samples=CURVATURE_BATCH,
    )


def teacher(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Gaussian inputs (samples, 16), and targets relu(x W) v (samples, 1) with mean 0 and standard deviation 1.

    >>> x, y = teacher(100, seed=0)
    >>> x.shape, bool(y.mean().abs() < 1e-13), f"{y.std():.6f}"
    (torch.Size([100, 16]), True, '1.000000')
    """
    generator = source(seed, FEATURES)
    shapes = (samples, FEATURES), (FEATURES, FEATURES), (FEATURES, 1)
    inputs, hidden, last = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    targets = (inputs @ hidden).clamp(min=0) @ last
    return inputs, (targets - targets.mean()) / targets.std()
