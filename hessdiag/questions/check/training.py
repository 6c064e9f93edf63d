"""Short training runs on copies: of a network as it is, and of one that was mended."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import LoadError
from hessdiag.optimizers.update import forget_gradients, take_step
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.batches.minibatches import Minibatches
from hessdiag.problem.seeds import sow
from hessdiag.questions.check.comparison import Outcome
from hessdiag.questions.check.cures.cure import Setup
from hessdiag.questions.check.result import TrialRun

STEPS = 300
SECONDS = 20.0  # for one run
FEWEST = 10  # steps, however long they take
SAMPLES = 64  # in a step, at most
JUDGED = 16  # batches whose loss is compared, at most
SHOWN = 60  # losses of a run that are kept


def trained(
    setup: Setup, weights: Sequence[float], *, seed: int, steps: int, tell: Callable[[int, int], None]
) -> Outcome:
    """Train a setup's model in place.

    Args:
        setup: What is trained.
        weights: Of the batches, in the mean loss.
        seed: Of the order of samples, and of what the model draws.
        steps: How many.
        tell: Told how many steps of how many are done.
    """
    sow(seed, next(setup.model.parameters()).device)
    optimizer = setup.recipe.build(setup.model)
    source = Minibatches(setup.data, seed, SAMPLES)
    losses: list[float] = []
    late: list[float] = []
    start = mean_loss(setup, weights)
    for step in range(1, steps + 1):
        batch = next(source)
        losses.append(_step(setup, optimizer, batch))
        tell(step, steps)
        if not math.isfinite(losses[-1]):
            break  # no step leads back
        if step in (steps - steps // 20, steps - steps // 10):
            late.append(mean_loss(setup, weights))
    final = mean_loss(setup, weights)
    if math.isfinite(final):
        final = sum([*late, final]) / (len(late) + 1)
    return Outcome(TrialRun(losses=(*_thinned(losses), final), final=final, accuracy=accuracy(setup)), start)


def _step(setup: Setup, optimizer: torch.optim.Optimizer, batch: Any) -> float:
    """One step; the loss before it, in the units by which setups are compared."""
    before = setup.loss(batch) if setup.judge is not None else None

    def closure() -> Tensor:
        forget_gradients(optimizer)
        loss = setup.objective(setup.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    loss = closure()
    take_step(optimizer, closure)
    return float(loss) if before is None else before


def mean_loss(setup: Setup, weights: Sequence[float]) -> float:
    """The loss on all batches."""
    pairs = list(zip(weights, setup.data, strict=True))[:JUDGED]
    whole = sum(weight for weight, _ in pairs)
    return sum(weight * setup.loss(batch) for weight, batch in pairs) / whole


def _thinned(losses: list[float]) -> list[float]:
    if len(losses) < SHOWN:
        return losses
    return [losses[round(index * (len(losses) - 1) / (SHOWN - 2))] for index in range(SHOWN - 1)]


def accuracy(setup: Setup) -> float | None:
    """Share of class targets that the largest output, or its sign, tells; `None` where that means nothing."""
    right = count = 0
    for batch in setup.data[:JUDGED]:
        try:
            inputs, target = batches.split(batch)
            output = batches.output_tensor(batches.forward(setup.model, inputs)).detach()
        except LoadError:
            return None
        if not isinstance(target, Tensor) or target.is_floating_point() or output.ndim != target.ndim + 1:
            return None
        classes = 1 if output.shape[2:] == target.shape[1:] else output.ndim - 1
        counted = target >= 0
        right += int(((output.argmax(classes) == target) & counted).sum())
        count += int(counted.sum())
    return right / count if count else None
