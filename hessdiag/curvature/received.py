"""What a loss receives of one batch: the tensors of the model's output, apart and with their graph."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.differences import reason
from hessdiag.errors import ComputeError, LoadError
from hessdiag.machine.shortage import ran_out
from hessdiag.problem import structure
from hessdiag.problem.problem import Problem
from hessdiag.shards.vocabulary.streamed import all_logits

Function = Callable[[Any, Any], Tensor]

LEAST = 1e-3  # size per number received below which the loss's own scale is taken for 1


class NoGaussNewtonError(ComputeError):
    """There is no Gauss-Newton matrix, though there may be a Hessian."""


@dataclass(frozen=True)
class Received:
    """What the loss receives of one batch.

    Attributes:
        output: As the loss receives it.
        tensors: All in it that depends on parameters, with the graph that leads there.
        build: From as many other tensors to the form in which the loss receives them.
        target: Of the batch.
    """

    output: Any
    tensors: tuple[Tensor, ...]
    build: Callable[[Sequence[Tensor]], Any]
    target: Any


def scalar(function: Function, z: Received, tensors: Sequence[Tensor]) -> Tensor:
    """The loss of other tensors in the place of those that were received; the loss may write to them."""
    return function(z.build([tensor.clone() for tensor in tensors]), z.target)


def loss_and_slopes(function: Function, z: Received, leaves: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The loss of leaves in the place of what was received, and its gradient there; to be called in `evaluated`."""
    value = scalar(function, z, leaves)
    if not value.requires_grad:
        return value, [torch.zeros_like(leaf) for leaf in leaves]
    return value.detach(), list(torch.autograd.grad(value, leaves, materialize_grads=True))


def length(tensors: Sequence[Tensor], least: float = 0.0) -> float:
    """The Euclidean norm of all, but at least `least` for each number."""
    numbers = sum(tensor.numel() for tensor in tensors)
    return max(math.hypot(*(float(tensor.norm()) for tensor in tensors)), least * math.sqrt(numbers))


@contextmanager
def evaluated(problem: Problem) -> Iterator[None]:
    """An evaluation of model and loss, from whose errors one sentence is made.

    Raises:
        ComputeError: if model, batch and loss do not fit.
    """
    try:
        with problem.evaluation(), all_logits():
            yield
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError) as error:
        if ran_out(error):
            raise
        hint = "batches in the dtype of the model: x.float(), or model.double()" if "same dtype" in str(error) else None
        raise ComputeError(f"model, batch and loss do not fit: {reason(error)}", hint) from error


def output_of(problem: Problem, batch: Any) -> Received:
    """What the loss receives of the model's output, with its graph; to be called in `evaluated`.

    Raises:
        NoGaussNewtonError: if nothing in the output depends on a parameter.
        LoadError: if the batch has no target, or the loss wants one tensor and the output holds none.
    """
    assert problem.loss_of_output is not None
    output, target = problem.loss_of_output.parts(problem.model, batch)
    if target is None:
        raise LoadError("the batch has no target: Gauss-Newton and Fisher matrices need one.", "--operator hessian")
    tensors, build = structure.flatten(output)
    if not tensors:
        raise NoGaussNewtonError(
            f"no tensor that depends on a trainable parameter was found in the output, a {type(output).__name__}.",
            "--operator hessian, or a model that returns tensors in tuples, lists, mappings or attributes",
        )
    return Received(output, tensors, build, target)
