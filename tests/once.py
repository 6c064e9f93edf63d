"""Functions whose authors stopped at gradients, as those of fused kernels do: autograd differentiates them once."""

import types

import torch
from torch import nn


def once_differentiable(name, function, derivative, dtypes=(torch.float32, torch.float64)):
    """A function of a real tensor, and perhaps of others that have no gradient, compiled for some dtypes.

    `derivative` is the scalar's gradient or the elementwise derivative in the first argument.
    """

    def forward(ctx, x, *others):
        if x.dtype not in dtypes:
            raise RuntimeError("expected Float")
        ctx.save_for_backward(x, *others)
        return function(x, *others)

    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, *others = ctx.saved_tensors
        return gradient * derivative(x, *others), *(None for _ in others)

    body = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return types.new_class(name, (torch.autograd.Function,), exec_body=lambda namespace: namespace.update(body))


Sine = once_differentiable("Sine", torch.sin, torch.cos)


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
