"""The chain of scalars from a flat start, with and without noise (Vanishing Curvature, section 3 and C.2)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.nets.chain import Chain
from hessdiag.nets.initializers import source
from hessdiag.nets.tasks.losses import HalfMSE
from hessdiag.nets.tasks.task import setup

HALF = 0.5  # of the loss at the start: how far the counts of steps that are known in closed form go
CONTENDERS = ("sgd(lr=0.1)", "rmsprop(lr=0.001)", "tr-uniform", "tr-rmsprop")
STEP_SIZES = ("sgd(lr=0.01)", "sgd(lr=0.1)", "sgd(lr=1)", "rmsprop(lr=0.001)")


def neural_chain(
    length: int = 10, start: float = 0.5, spread: float = 0.0, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Mapping[str, Any]:
    """L(w) = (1 - w_1 ... w_n)^2 / 2 from w_i = start: one sample, x = y = 1.

    Gradient flow reaches half of the initial loss just before start^(2-n) / (n - 2).

    Args:
        length: Number n of scalars.
        start: Where each of them starts.
        spread: Their standard deviation there, as a share of `start`; at 0 all of them stay equal.
        seed: Of what the spread draws.
        dtype: Of the parameters.

    Returns:
        `{"model", "data", "loss"}`.

    Raises:
        SpecError: if the length is below 1.

    >>> task = neural_chain(length=3)
    >>> x, y = task["data"]
    >>> float(task["loss"](task["model"](x), y).detach()) == (1 - 0.5**3) ** 2 / 2
    True
    """
    one = torch.ones(1, 1, dtype=torch.float64)
    return setup(
        model=_chain(length, start, spread, seed, dtype),
        data=(one, one.clone()),
        loss=HalfMSE(),
        contenders=CONTENDERS,
        order="whole",
        level=HALF,
    )


def noisy_chain(
    length: int = 10,
    start: float = 0.5,
    noise: float = 0.01,
    samples: int = 1000,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Mapping[str, Any]:
    """The same loss with a random slope for each sample: gradient descent on single samples is that with noise.

    Slopes are Gaussian and sum to zero, so that the loss of all samples is that without noise. The paper shows three
    levels and three step sizes, whose values are lost; ours are noise of 0.001, 0.01 and 0.1, steps of 0.01, 0.1 and 1.

    Args:
        length: Number of scalars.
        start: Where each of them starts.
        noise: Standard deviation of each entry of a gradient.
        samples: How many there are.
        seed: Of the noise.
        dtype: Of the parameters.

    Returns:
        `{"model", "data", "objective"}`; the data are slopes (samples, length).

    Raises:
        SpecError: if the length is below 1.

    >>> task = noisy_chain(length=3)
    >>> float(task["objective"](task["model"], task["data"]).detach()).__round__(12) == (1 - 0.5**3) ** 2 / 2
    True
    """
    slopes = noise * torch.randn(samples, length, dtype=torch.float64, generator=source(seed, length))
    return setup(
        model=_chain(length, start, 0.0, seed, dtype),
        data=slopes - slopes.mean(0),
        objective=noisy_loss,
        contenders=STEP_SIZES,
        samples=1,
        level=HALF,
    )


def noisy_loss(model: nn.Module, slopes: Tensor) -> Tensor:
    """(1 - product)^2 / 2 and the mean slope along the weights.

    Args:
        model: The chain.
        slopes: (samples, length).
    """
    weights = torch.cat([parameter.reshape(-1) for parameter in model.parameters()])
    product = model(torch.ones_like(slopes[:1, :1]))
    loss: Tensor = (1 - product).square().sum() / 2 + (slopes @ weights).mean()
    return loss


def _chain(length: int, start: float, spread: float, seed: int, dtype: torch.dtype) -> Chain:
    model = Chain(length, seed=seed, dtype=dtype)
    drawn = torch.randn(length, dtype=torch.float64, generator=source(seed))
    with torch.no_grad():
        for parameter, deviation in zip(model.parameters(), drawn, strict=True):
            parameter.fill_(start * (1 + spread * float(deviation)))
    return model
