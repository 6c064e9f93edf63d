"""A deep narrow ReLU network on its plateau, with data of a teacher: task M of the reference in any size."""

import math
from itertools import pairwise

import torch
from torch import nn

VARIANCE = {"he": 2.0, "xavier": 1.0, "default": 1 / 3}  # of weights, times fan-in


def plateau(seed, init, *, depth=32, width=16, samples=512, dtype=torch.float64):
    """The network, its inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    x, hidden, last = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((samples, 16), (16, 16), (16, 1))
    )
    y = torch.relu(x @ hidden) @ last
    y = (y - y.mean()) / y.std()
    sizes = [16, *[width] * depth, 1]
    linear = [nn.Linear(a, b, bias=False, dtype=dtype) for a, b in pairwise(sizes)]
    for layer in linear:
        bound = math.sqrt(3 * VARIANCE[init] / layer.in_features)
        draws = torch.rand(layer.weight.shape, generator=generator, dtype=torch.float64)
        layer.weight.data.copy_((2 * draws - 1) * bound)
    layers = [part for layer in linear[:-1] for part in (layer, nn.ReLU())]
    return nn.Sequential(*layers, linear[-1]), x.to(dtype), y.to(dtype)


def half_squares(model, x, y):
    """A closure: the loss and the output."""

    def closure():
        output = model(x)
        return (output - y).square().mean() / 2, output

    return closure


def backpropagations_to(share, optimizer, closure, most):
    """How many it takes until the loss is at most a share of what it is now; infinite if more than so many."""
    spent, start = 0, None
    while spent <= most:
        loss = optimizer.step(closure)
        start = start or loss
        if loss <= share * start:
            return spent
        spent += optimizer.last.backpropagations
    return math.inf
