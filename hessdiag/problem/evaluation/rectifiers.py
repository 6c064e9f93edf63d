"""ReLUs whose second derivative does without tensors of zeros."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from hessdiag.problem.replaced import replaced


def plain_rectifiers() -> AbstractContextManager[None]:
    """ReLUs that keep where their inputs are positive, and not their outputs.

    To torch the gradient of a ReLU depends on its output, by a derivative of zero: each product makes a tensor of
    zeros for each layer, adds it, and goes through the network once more for its sake.
    """
    return replaced(torch, relu=_rectified(torch.relu))


def _rectified(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function of torch, as what is linear in the input where its sign is held."""

    def relu(input: Tensor) -> Tensor:
        if type(input) is not Tensor or not input.requires_grad or torch._C._len_torch_function_stack():
            return run(input)
        found: Tensor = torch.ops.aten.threshold_backward(input, input.detach(), 0)
        return found

    return relu
