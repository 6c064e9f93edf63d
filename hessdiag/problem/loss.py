"""Losses: the named ones, the user's own, and the normal form `objective(model, batch) -> scalar`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.batch import forward, output_tensor, samples, split

Reduction = Literal["mean", "sum", "unknown"]
Objective = Callable[[torch.nn.Module, Any], Tensor]

IGNORED = -100  # torch's default ignore_index


@dataclass(frozen=True)
class Loss:
    """A loss of (output, target), with what is known of it.

    Attributes:
        name: How the user calls it.
        function: `(output, target) -> scalar`.
        reduction: How it joins samples. "unknown" is treated as a mean, and said.
        definition: One line for the report.
        counts_targets: Whether a batch weighs by its targets that are not ignored, not by its samples.
    """

    name: str
    function: Callable[[Any, Any], Tensor]
    reduction: Reduction
    definition: str
    counts_targets: bool = False


def _classes_second(output: Tensor, target: Tensor) -> Tensor:
    """Logits (batch, ..., classes) with targets (batch, ...) as torch wants them: (batch, classes, ...)."""
    if output.ndim > 2 and target.shape == output.shape[:-1] and target.shape[1:] != output.shape[2:]:
        return output.movedim(-1, 1)
    return output


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(_classes_second(output, target), target)


def _nll(output: Tensor, target: Tensor) -> Tensor:
    return F.nll_loss(_classes_second(output, target), target)


def _mse(output: Tensor, target: Tensor) -> Tensor:
    if output.shape != target.shape and output.numel() == target.numel():
        target = target.reshape(output.shape)  # (batch,) against (batch, 1) would broadcast to a square
    return F.mse_loss(output, target.to(output.dtype))


def _bce(output: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, target.reshape(output.shape).to(output.dtype))


NAMED = {
    "ce": Loss("ce", _cross_entropy, "mean", "cross-entropy of logits, mean over targets", counts_targets=True),
    "nll": Loss(
        "nll",
        _nll,
        "mean",
        "negative log-likelihood of log-probabilities, mean over targets",
        counts_targets=True,
    ),
    "mse": Loss("mse", _mse, "mean", "squared error, mean over samples and outputs (torch's MSELoss)"),
    "bce": Loss("bce", _bce, "mean", "binary cross-entropy of logits, mean over samples and outputs"),
}

NAMES = (*NAMED, "output")


def resolve(loss: Any) -> Loss:
    """Turn a loss name or a callable of (output, target) into a `Loss`.

    Args:
        loss: A key of `NAMED`, a criterion module or a function.

    Raises:
        SpecError: if the name is unknown, or the value is not callable.

    >>> resolve("ce").reduction, resolve(torch.nn.MSELoss(reduction="sum")).reduction
    ('mean', 'sum')
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        if loss in NAMED:
            return NAMED[loss]
        raise SpecError(
            f"unknown loss {loss!r}: not one of {', '.join(NAMES)}.",
            "--loss FILE.py:f, with f(output, target) -> scalar",
        )
    if not callable(loss):
        raise SpecError(f"a loss must be a name or a function of (output, target), not a {type(loss).__name__}.")
    name = getattr(loss, "__name__", type(loss).__name__)
    stated = getattr(loss, "reduction", None)
    if stated == "none":
        raise LoadError(f"the loss {name} has reduction='none': its value is not a scalar.", "reduction='mean'")
    reduction: Reduction = stated if stated in ("mean", "sum") else "unknown"
    counts_targets = isinstance(loss, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss)) and loss.ignore_index == IGNORED
    said = reduction if reduction != "unknown" else "reduction unknown, taken as a mean"
    return Loss(name, loss, reduction, f"{name} ({said})", counts_targets)


def objective(loss: Loss) -> Objective:
    """The normal form of a loss: a function of (model, batch)."""

    def call(model: torch.nn.Module, batch: Any) -> Tensor:
        inputs, target = split(batch)
        if target is None:
            raise LoadError(
                f"the batch has no target for the loss {loss.name}.",
                "--loss output, if the model returns its own loss",
            )
        output = forward(model, inputs)
        return loss.function(output if loss.name not in NAMED else output_tensor(output), target)

    return call


def output_loss(model: torch.nn.Module, batch: Any) -> Tensor:
    """The loss that the model itself returns, as Hugging Face models do: `model(**batch).loss`.

    Raises:
        LoadError: if the output has no `.loss`.
    """
    output = forward(model, batch)
    value = getattr(output, "loss", None)
    if value is None and isinstance(output, dict):
        value = output.get("loss")
    if not isinstance(value, Tensor):
        raise LoadError(
            "--loss output needs a model whose output has a .loss; this one's has none.",
            "--loss ce, mse, bce or nll",
        )
    return value


def batch_weight(loss: Loss | None, batch: Any) -> int:
    """What a batch counts for in the average over batches: its samples, or its targets that are not ignored."""
    if loss is not None and loss.counts_targets:
        _, target = split(batch)
        if isinstance(target, Tensor) and not target.is_floating_point():
            return int((target != IGNORED).sum())
    return samples(batch)
