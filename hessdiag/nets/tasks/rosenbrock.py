"""Rosenbrock's valley, rescaled (I. Liao et al., *Learning to Optimize Quasi-Newton Methods*, section 5.2)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.nets.tasks.task import setup

START = (-0.5, 2.0)
STEPS = 200
# Tuned by the paper (Table 6). Its Adam adds 1e-7 to the root of the second moment, torch 1e-8: no difference here. Its
# RMSprop adds that within the root, torch outside; its momentum averages gradients, torch sums them: other numbers.
TUNED = (
    "lodo(alpha=0.2946, meta_lr=0.0001394, beta=0.897)",
    "adam(lr=0.9704, betas=(0.864, 0.99804))",
    "sgd(lr=0.0987, momentum=0.9359)",
    "rmsprop(lr=0.004318, alpha=0.02836, momentum=0.88)",
)
TRUST_REGIONS = ("tr-uniform", "tr-rmsprop", "tr-adagrad")


class Rosenbrock(nn.Module):
    """`sqrt(2) (0.1 (x - 1), y - x^2)`: its mean square is `0.01 (x - 1)^2 + (y - x^2)^2`, 0 at (1, 1).

    Attributes:
        position: (x, y); starts at (-0.5, 2).

    >>> valley = Rosenbrock()
    >>> f"{valley(torch.zeros(1, 1)).square().mean().item():.4f}"
    '3.0850'
    """

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.tensor(START, dtype=dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        """The same for all inputs, (len(inputs), 2)."""
        x, y = self.position
        return (math.sqrt(2) * torch.stack((0.1 * (x - 1), y - x**2))).expand(len(inputs), 2)


def rosenbrock(seed: int = 0, dtype: torch.dtype = torch.float64) -> Mapping[str, Any]:
    """Rosenbrock's function, 200 steps from (-0.5, 2), compared by the mean loss of steps 180 to 200.

    Args:
        seed: Taken as every task takes one: nothing of this one is drawn.
        dtype: Of the two parameters.

    Returns:
        `{"model", "data", "loss"}`; the data are one sample that the model does not look at.

    >>> task = rosenbrock()
    >>> x, y = task["data"]
    >>> f"{torch.nn.functional.mse_loss(task['model'](x), y).item():.4f}"
    '3.0850'
    """
    return setup(
        model=Rosenbrock(dtype),
        data=(torch.ones(1, 1, dtype=dtype), torch.zeros(1, 2, dtype=dtype)),
        loss="mse",
        contenders=(*TUNED, *TRUST_REGIONS),
        order="whole",
        steps=STEPS,
        score=(0.9, 1.0),
        said=(
            "first-order methods that run unless others are named have the settings that the paper tuned; its momentum "
            "averages gradients, as lodo(alpha=0.0987, meta_lr=0, beta=0.9359), and torch's sums them",
        ),
    )
