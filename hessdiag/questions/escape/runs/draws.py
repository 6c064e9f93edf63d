"""What each step of a run is given: minibatches, all samples, or a stream of batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hessdiag.problem.batches import batch as batches
from hessdiag.problem.batches.minibatches import Minibatches, divisible
from hessdiag.problem.problem import Problem

Order = Literal["shuffled", "whole", "stream"]


@dataclass(frozen=True)
class Draw:
    """Batches with their weights in the loss, and how many samples they hold."""

    parts: tuple[tuple[float, Any], ...]
    samples: int

    def loss(self, problem: Problem, model: nn.Module) -> Tensor:
        """The objective, a scalar."""
        objective = problem.objective_function
        if len(self.parts) == 1 and self.parts[0][0] == 1.0:
            return objective(model, self.parts[0][1]).reshape(())
        return torch.stack([weight * objective(model, batch).reshape(()) for weight, batch in self.parts]).sum()


def whole(problem: Problem, most: int | None = None) -> Draw:
    """All samples, or the first batches that hold so many."""
    chosen: list[tuple[float, Any]] = []
    held = 0
    for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
        if most is not None and held >= most:
            break
        count = batches.samples(batch)
        if most is not None and divisible(batch, most - held):
            weight, count = _share(problem, weight, (most - held) / count), most - held
            batch = _first(batch, count)
        chosen.append((weight, batch))
        held += count
    return Draw(_weighted(problem, chosen), held)


def _share(problem: Problem, weight: float, part: float) -> float:
    """The weight of a part of a batch."""
    return weight if problem.loss_reduction == "sum" else weight * part


def _first(batch: Any, count: int) -> Any:
    return batches.map_tensors(lambda tensor: tensor[:count] if tensor.ndim else tensor, batch)


def draws(problem: Problem, samples: int, order: Order, seed: int) -> Iterator[Draw]:
    """Without end, but for a stream.

    Args:
        problem: Whose data are drawn from.
        samples: In a minibatch, at most; where the data's own batches are smaller, as many of them as hold so many.
        order: "shuffled", "whole" for all samples each time, or "stream" for each batch once.
        seed: Of the order.
    """
    if order == "stream":
        for batch in problem.data:
            yield Draw(((1.0, batch),), batches.samples(batch))
        return
    if is_whole(problem, samples, order):
        everything = whole(problem)
        while True:
            yield everything
    pieces = Minibatches(problem.data, seed, samples)
    if any(divisible(batch, samples) for batch in problem.data) or len(problem.data) == 1:
        while True:
            batch = next(pieces)
            yield Draw(((1.0, batch),), batches.samples(batch))
    yield from _grouped(problem, samples, seed)


def _grouped(problem: Problem, samples: int, seed: int) -> Iterator[Draw]:
    """Several of the data's batches at a time, in a new order each time."""
    source = torch.Generator().manual_seed(seed)
    pairs = list(zip(problem.batch_weights, problem.data, strict=True))
    while True:
        group: list[tuple[float, Any]] = []
        held = 0
        for index in torch.randperm(len(pairs), generator=source).tolist():
            group.append(pairs[index])
            held += batches.samples(pairs[index][1])
            if held >= samples:
                yield Draw(_weighted(problem, group), held)
                group, held = [], 0
        if group:
            yield Draw(_weighted(problem, group), held)


def is_whole(problem: Problem, samples: int, order: Order) -> bool:
    """Whether each step sees all samples."""
    return order == "whole" or (order == "shuffled" and problem.n_samples <= samples)


def _weighted(problem: Problem, pairs: Sequence[tuple[float, Any]]) -> tuple[tuple[float, Any], ...]:
    """With weights that add up to one, unless the loss is a sum."""
    if problem.loss_reduction == "sum":
        return tuple(pairs)
    total = sum(weight for weight, _ in pairs)
    return tuple((weight / total, batch) for weight, batch in pairs)
