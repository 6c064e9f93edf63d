"""Losses: the named ones, the user's own, and the normal form `objective(model, batch) -> scalar`."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from hessdiag import suggest
from hessdiag.errors import LoadError, SpecError
from hessdiag.problem import structure
from hessdiag.problem.batches.batch import forward, output_tensor, split
from hessdiag.problem.losses import criteria

Reduction = Literal["mean", "sum", "unknown"]
Objective = Callable[[torch.nn.Module, Any], Tensor]

IGNORED = -100  # torch's default ignore_index


@dataclass(frozen=True)
class Loss:
    """A loss of (output, target), with what is known of it.

    Attributes:
        name: How the user calls it: for people, and never to tell losses apart.
        function: `(output, target) -> scalar`.
        reduction: How it joins samples. "unknown" is treated as a mean, and said.
        definition: One line for the report.
        kind: What it is, where it is one of ours or torch's own; `None` for a user's own function, whatever its name.
        options: The settings of a loss of torch's, by keyword, defaults included; empty otherwise.
        of_tensor: Whether it receives the one tensor of the output that matters (`batch.output_tensor`), as ours do.
            Any other loss receives the output as it is.
    """

    name: str
    function: Callable[[Any, Any], Tensor]
    reduction: Reduction
    definition: str
    kind: criteria.Kind | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    of_tensor: bool = False

    def received(self, output: Any) -> Any:
        """What of the model's output the loss receives.

        Raises:
            LoadError: if it wants one tensor, and the output holds none.
        """
        return output_tensor(output) if self.of_tensor else output

    def numbers(self, output: Any) -> int:
        """How many numbers of the model's output it receives; 0 where that cannot be told."""
        one = self.of_tensor or hasattr(output, "logits")  # beside logits, models return what they cached
        try:
            taken = (output_tensor(output),) if one else structure.flatten(output)[0]
        except LoadError:
            return 0
        return sum(tensor.numel() for tensor in taken)

    def parts(self, model: torch.nn.Module, batch: Any) -> tuple[Any, Any]:
        """What the loss receives of a batch: of the model's output, and the target, `None` where there is none."""
        inputs, target = split(batch)
        return self.received(forward(model, inputs)) if target is not None else None, target

    @property
    def is_convex(self) -> bool:
        """Whether it is known to be convex in what it receives."""
        return self.kind is not None and criteria.is_convex(self.options)

    @property
    def is_plain(self) -> bool:
        """Whether its value is that of its kind with these options, and no multiple of it."""
        return self.kind is not None

    @property
    def is_likelihood(self) -> bool:
        """Whether it is known to be a negative log-likelihood of an exponential family in natural parameters."""
        return self.kind is not None and criteria.is_likelihood(self.kind, self.options)


def _classes_second(output: Tensor, target: Tensor) -> Tensor:
    """Logits (batch, ..., classes) with targets (batch, ...) as torch wants them: (batch, classes, ...)."""
    if output.ndim <= 2 or target.shape != output.shape[:-1]:
        return output
    if target.shape[1:] == output.shape[2:]:
        raise ValueError(
            f"outputs {tuple(output.shape)} with targets {tuple(target.shape)} may hold their classes second or last; "
            "a function of (output, target) as the loss says which"
        )
    return output.movedim(-1, 1)


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(_classes_second(output, target), target)


def _nll(output: Tensor, target: Tensor) -> Tensor:
    return F.nll_loss(_classes_second(output, target), target)


def _like(output: Tensor, target: Tensor) -> Tensor:
    """The target in the output's shape and dtype: (batch,) against (batch, 1) would broadcast to a square."""
    if output.squeeze().shape != target.squeeze().shape:
        raise ValueError(f"outputs {tuple(output.shape)} and targets {tuple(target.shape)} differ in shape")
    return target.reshape(output.shape).to(output.dtype)


def _mse(output: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(output, _like(output, target))


def _bce(output: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, _like(output, target))


_OF_LOGITS = "its Gauss-Newton matrix is that of cross-entropy, with the log-probabilities for logits"

NAMED = {
    "ce": Loss(
        "ce",
        _cross_entropy,
        "mean",
        "cross-entropy of logits, mean over targets",
        kind="ce",
        of_tensor=True,
    ),
    "nll": Loss(
        "nll",
        _nll,
        "mean",
        f"negative log-likelihood of log-probabilities, mean over targets; {_OF_LOGITS}",
        kind="nll",
        of_tensor=True,
    ),
    "mse": Loss(
        "mse",
        _mse,
        "mean",
        "squared error, mean over samples and outputs (torch's MSELoss)",
        kind="mse",
        of_tensor=True,
    ),
    "bce": Loss(
        "bce",
        _bce,
        "mean",
        "binary cross-entropy of logits, mean over samples and outputs",
        kind="bce",
        of_tensor=True,
    ),
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
        near = suggest.meant(loss, NAMES, suggest.LOSSES)
        raise SpecError(
            f"unknown loss {loss!r}: not one of {', '.join(NAMES)}.",
            f"--loss {near}" if near else "--loss FILE.py:f, with f(output, target) -> scalar",
        )
    if not callable(loss):
        raise SpecError(f"a loss must be a name or a function of (output, target), not a {type(loss).__name__}.")
    known = criteria.recognised(loss)
    kind, options = known or (None, {})
    name = _name(loss)
    stated = options.get("reduction", getattr(loss, "reduction", None))
    if stated == "none":
        raise LoadError(f"the loss {name} has reduction='none': its value is not a scalar.", "reduction='mean'")
    reduction = _REDUCTIONS.get(stated, "unknown") if isinstance(stated, str) else "unknown"
    said = reduction if reduction != "unknown" else "reduction unknown, taken as a mean"
    whose = "torch's" if known else "your own"
    return Loss(name, loss, reduction, f"{whose} {name} ({said})", kind, options)


_REDUCTIONS: dict[str, Reduction] = {"mean": "mean", "batchmean": "mean", "sum": "sum"}


def _name(loss: Any) -> str:
    """What people call a function or a criterion; a `functools.partial` is called like its function."""
    named = loss.func if isinstance(loss, functools.partial) else loss
    return str(getattr(named, "__name__", type(named).__name__))


def objective(loss: Loss) -> Objective:
    """The normal form of a loss: a function of (model, batch)."""

    def call(model: torch.nn.Module, batch: Any) -> Tensor:
        received, target = loss.parts(model, batch)
        if target is None:
            raise LoadError(
                f"the batch has no target for the loss {loss.name}.",
                "--loss output, if the model returns its own loss",
            )
        return loss.function(received, target)

    return call


def attached(output: Any) -> Tensor | None:
    """The loss that a model's output bears as an attribute, as those of Hugging Face models do."""
    value = getattr(output, "loss", None)
    return value if isinstance(value, Tensor) else None


def computed(output: Any) -> Tensor | None:
    """The loss in what a model puts out, if it computed one: an attribute or an item."""
    found = attached(output)
    item = output.get("loss") if found is None and isinstance(output, dict) else found
    return item if isinstance(item, Tensor) else None


def output_loss(model: torch.nn.Module, batch: Any) -> Tensor:
    """The loss that the model itself returns, as Hugging Face models do: `model(**batch).loss`.

    Raises:
        LoadError: if the output has no `.loss`.
    """
    value = computed(forward(model, batch))
    if value is None:
        raise LoadError(
            "--loss output needs a model whose output has a .loss; this one's has none.",
            "--loss ce, mse, bce or nll",
        )
    return value
