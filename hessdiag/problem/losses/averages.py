"""What a loss averages over, and so what a batch counts for in the average over batches."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import HessdiagError
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.batches import indices
from hessdiag.problem.losses.loss import IGNORED, Loss

CLASSES = ("ce", "nll")


@dataclass(frozen=True)
class Terms:
    """What the loss of one batch is a mean of.

    Attributes:
        count: What the sum is divided by: how many they are, or the sum of their weights.
        what: Their name in the plural.
        positions: Targets, those that are ignored included: the n of a least-squares problem of this size.
    """

    count: float
    what: str
    positions: int


def may_broadcast(loss: Loss) -> bool:
    """Whether the terms of a loss depend on the output's shape: torch broadcasts it against the target."""
    return loss.kind is not None and loss.kind not in CLASSES and not loss.of_tensor


def of_loss(loss: Loss, batch: Any, output: Any = None) -> Terms:
    """The terms of a loss of (output, target), as torch's own count them.

    Cross-entropy divides by the targets that it does not ignore, or by the sum of their class weights; with
    probabilities for targets, by their number. Squared error and its like divide by the elements of the output. Of
    other losses it is not known: the length of the target stands in.

    Args:
        loss: The loss.
        batch: `(inputs, target)` or a mapping with a target.
        output: What the model puts out for it, where `may_broadcast`; without it, of the target's shape.

    >>> from hessdiag.problem.losses.loss import resolve
    >>> of_loss(resolve("ce"), (None, torch.tensor([[3, -100], [1, 2]])))
    Terms(count=3.0, what='targets', positions=4)
    """
    n = batches.samples(batch)
    _, target = batches.split(batch)
    if loss.kind is None or not isinstance(target, Tensor):
        return Terms(n, "samples by the target's length", n)
    if loss.kind not in CLASSES:
        if loss.options.get("reduction") == "batchmean":
            return Terms(n, "samples", n)
        return Terms(_elements(target, output), "elements of the output", n)
    if target.is_floating_point():  # probabilities, (N, classes, ...)
        classes = target.shape[min(1, target.ndim - 1)]
        positions = target.numel() // max(classes, 1)
        return Terms(positions, "targets", positions)
    return _classes(target, loss.options.get("weight"), loss.options.get("ignore_index", IGNORED))


def _elements(target: Tensor, output: Any) -> int:
    """Elements of the difference of an output and a target, which torch may broadcast."""
    if not isinstance(output, Tensor):
        return target.numel()
    return math.prod(np.broadcast_shapes(output.shape, target.shape))


def _classes(target: Tensor, weight: Tensor | None, ignored: int) -> Terms:
    counted = target[target != ignored]
    if weight is None:
        return Terms(float(counted.numel()), "targets", target.numel())
    indices.check_classes(counted, len(weight))
    return Terms(float(weight[counted.to(weight.device)].sum()), "targets, by class weight", target.numel())


def of_labels(batch: Any, value: Callable[[Any], Tensor]) -> Terms:
    """The terms of a loss that the model computes from labels in the batch.

    Labels of classes count where they are not ignored, real ones each. A model that predicts the next token never looks
    at the first label of a sequence; whether it does is asked of the model.

    Args:
        batch: A mapping with labels, or anything.
        value: The loss of a batch.
    """
    return of_counted_labels(batch, skips_first(batch, value))


def of_counted_labels(batch: Any, skips: bool) -> Terms:
    """The same, where it is known whether the model looks at the first label of a sequence."""
    n = batches.samples(batch)
    _, labels = _labels(batch)
    if labels is None:
        return Terms(n, "samples by the length of most tensors", n)
    if labels.is_floating_point():
        return Terms(labels.numel(), "labels", n)
    counted = labels[:, 1:] if skips and labels.ndim > 1 else labels
    return Terms(float((counted != IGNORED).sum()), "labels", labels.numel())


def skips_first(batch: Any, value: Callable[[Any], Tensor]) -> bool:
    """Whether a model never looks at the first label of a sequence, as those do not that predict the next token."""
    key, labels = _labels(batch)
    classes = labels is not None and not labels.is_floating_point() and labels.ndim > 1
    return classes and not _looks_at_first(batch, key, value)


def _labels(batch: Any) -> tuple[Any, Tensor | None]:
    """The labels in a mapping, and what they are called there."""
    key = next((key for key in batches.TARGET_KEYS if key in batch), None) if isinstance(batch, Mapping) else None
    labels = batch[key] if key is not None else None
    return key, labels if isinstance(labels, Tensor) else None


def _looks_at_first(batch: Any, key: Any, value: Callable[[Any], Tensor]) -> bool:
    """Whether the loss changes when the first label of a sequence is ignored: of that with the most labels."""
    labels = batch[key]
    many = ((labels != IGNORED).flatten(1).sum(1) * (labels[:, 0] != IGNORED).reshape(len(labels), -1).any(1)).argmax()
    own = slice(int(many), int(many) + 1)
    one = {
        name: batches.rows(own, len(labels), item) if isinstance(item, Tensor) else item for name, item in batch.items()
    }
    without = one[key].clone()
    without[:, 0] = IGNORED
    if torch.equal(without, one[key]):
        return True
    try:
        return not torch.equal(value(one), value({**one, key: without}))
    except HessdiagError:  # nothing is left to average over
        return True


def of_batch(batch: Any) -> Terms:
    """The terms of an objective, of which nothing is known but the batch."""
    n = batches.samples(batch)
    try:
        target = batches.split(batch)[1]
    except HessdiagError:
        target = None
    by = "length of most tensors" if target is None else "target's length"
    return Terms(n, f"samples by the {by}", n)


def joined(terms: Iterable[Terms]) -> Terms:
    """All batches' terms as one's."""
    each = list(terms)
    return Terms(sum(part.count for part in each), each[0].what, sum(part.positions for part in each))
