"""Metrics in which steps are measured: diagonals of mean 1, from the gradients of the batches."""

from collections.abc import Iterable

import torch
from torch import Tensor

BETA = 0.8  # of RMSprop's average, which follows the batches in their order
FLOOR = 1e-3  # of a gradient's root mean square: what is below counts as that


def metric(norm: str, gradients: Iterable[Tensor]) -> Tensor | None:
    """The diagonal M (n,) of a metric ||s||_M^2 = s'Ms; `None` for the uniform one.

    M = sqrt(v + (1e-3)^2 mean(v)), divided by its mean. For "adagrad" v is the sum of the batches' squared gradients,
    for "rmsprop" their exponential average; with one batch both are its squared gradient, and the metrics the same.

    Args:
        norm: "uniform", "rmsprop" or "adagrad".
        gradients: Of each batch, (n,). Where all are zero the metric is uniform.

    >>> metric("adagrad", [torch.tensor([1.0, 3.0]), torch.tensor([0.0, 4.0])])
    tensor([0.3333, 1.6667])
    """
    if norm == "uniform":
        return None
    seen = list(gradients)
    largest = max(float(gradient.abs().max()) for gradient in seen)
    if not largest:
        return None
    squares = torch.zeros_like(seen[0])
    for gradient in seen:
        squares.mul_(BETA if norm == "rmsprop" else 1.0).add_((gradient / largest).square())
    found = squares.add_(FLOOR**2 * float(squares.mean())).sqrt_()
    return found.div_(float(found.mean()))
