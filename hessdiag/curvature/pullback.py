"""Vector-Jacobian products as torch.autograd.grad has them, without its import of sympy: 0.3 s of every short run."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import graph

from hessdiag.problem.layers import Layer


class Graph(Protocol):
    """One batch's part of a matrix, with whatever graph it keeps between products."""

    def products(self, vectors: Tensor, layer: Layer | None) -> list[Tensor | None]:
        """Rows of `vectors` (k, N) times the matrix: columns of each parameter (of the layer), or `None` for zeros."""


def pullback(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, create_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """What cotangents of the outputs pull back to, for each input; `None` where no output depends on it.

    `torch.autograd.grad` compares shapes by way of symbolic sizes, of which there are none here. The graph is kept.

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> pullback([x.square()], [x], [torch.tensor([1.0, 10.0])])
    (tensor([ 2., 40.]),)
    """
    backward = getattr(graph, "_engine_run_backward", None)
    if backward is None:  # what lies below autograd.grad since torch 2.2 has gone
        return torch.autograd.grad(
            outputs, inputs, cotangents, retain_graph=True, create_graph=create_graph, allow_unused=True
        )
    found: tuple[Tensor | None, ...] = backward(
        tuple(outputs), tuple(cotangents), True, create_graph, tuple(inputs), True, accumulate_grad=False
    )
    return found


def batched_grad(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor | None]:
    """Vector-Jacobian products with each of k cotangents, in one pass; the graph is kept.

    Args:
        outputs: What is differentiated.
        inputs: With respect to what.
        cotangents: For each output, (k, *output.shape).

    Returns:
        For each input, (k, *input.shape), or `None` where no output depends on it.

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> batched_grad([x.square()], [x], [torch.eye(2)])[0]
    tensor([[2., 0.],
            [0., 4.]])
    """
    depends: list[bool] = []

    def pull(*one: Tensor) -> tuple[Tensor, ...]:
        found = pullback(outputs, inputs, one)
        depends[:] = [part is not None for part in found]
        return tuple(part for part in found if part is not None)

    if len(cotangents[0]) == 1:
        parts = iter([part[None] for part in pull(*(cotangent[0] for cotangent in cotangents))])
    else:
        # Twice as fast on convolutions as is_grads_batched, whose rules know fewer operations.
        parts = iter(torch.func.vmap(pull, randomness="same")(*cotangents))
    return [next(parts) if present else None for present in depends]
