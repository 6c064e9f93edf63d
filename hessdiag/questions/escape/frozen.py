"""The network that optimizers are raced on: a copy in which nothing changes but the weights that are trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from hessdiag.errors import ComputeError
from hessdiag.nets.reinitialize import reinitialize
from hessdiag.numbers import counted
from hessdiag.problem.copies import copied
from hessdiag.problem.evaluation.privately import own_draws
from hessdiag.problem.problem import Problem

Norm = nn.modules.batchnorm._BatchNorm


def frozen(problem: Problem, init: str | None = None, generator: torch.Generator | None = None) -> Problem:
    """A problem with a copy of the model in evaluation mode: running statistics of BatchNorm and no dropout.

    Statistics that no training has touched yet are those of the data, for else the network would be another one from
    the one that training starts with.

    Args:
        problem: Whose model is copied; it is left alone.
        init: Draw the weights anew.
        generator: Source of randomness for that.

    Raises:
        ComputeError: if the model cannot be copied.
        SpecError: if `init` is unknown, or there is nothing that it could draw.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    >>> start = frozen(Problem(net, data=[(torch.randn(8, 2) + 5, torch.zeros(8, 1))], loss="mse"))
    >>> bool(start.model[1].running_mean.any()), bool(net[1].running_mean.any()), start.model.training
    (True, False, False)
    """
    model = copied(problem.model)
    if model is None:
        raise ComputeError("the model cannot be copied, and a race would change it.")
    if init is not None:
        reinitialize(model, init, generator)
    model.zero_grad(set_to_none=True)
    model.eval()
    start = problem.as_written(model=model, train_mode=False)
    if fresh := untouched(model):
        _settle(start, fresh)
    return start


def untouched(model: nn.Module) -> list[Norm]:
    """Layers of BatchNorm whose running statistics are those that they were made with."""
    return [
        module
        for module in model.modules()
        if isinstance(module, Norm)
        and module.running_mean is not None
        and module.running_var is not None
        and not bool(module.running_mean.any())
        and bool((module.running_var == 1).all())
    ]


def _settle(problem: Problem, fresh: Sequence[Norm]) -> None:
    """Set running statistics to the means over the batches."""
    momenta = [norm.momentum for norm in fresh]
    try:
        for norm in fresh:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
            norm.training = True
        with own_draws(problem.device, problem.seed):
            for batch in problem.data:
                problem.objective_function(problem.model, batch)
    finally:
        for norm, momentum in zip(fresh, momenta, strict=True):
            norm.momentum = momentum
            norm.training = False


def said(before: nn.Module, init: str | None) -> tuple[str, ...]:
    """What is kept from changing, in words.

    Args:
        before: The user's model.
        init: Whether weights are drawn anew, after which no statistics are those of training.
    """
    norms = [one for one in before.modules() if isinstance(one, Norm) and one.running_mean is not None]
    fresh = len(norms) if init is not None else len(untouched(before))
    dropouts = [one for one in before.modules() if isinstance(one, nn.modules.dropout._DropoutNd) and one.p > 0]
    found = []
    if norms:
        now = f" ({fresh} had never been updated, and were set from the data)" if fresh else ""
        found.append(f"running statistics of {counted(len(norms), 'BatchNorm layer')}{now}")
    if dropouts:
        found.append(f"dropout of {counted(len(dropouts), 'layer')} (off)")
    return tuple(found)


@contextmanager
def training(problem: Problem, seed: int) -> Iterator[nn.Module]:
    """A copy of a start's model to train, with all that its evaluations need.

    Args:
        problem: Frozen; it is left alone.
        seed: Of random numbers that the optimizer or the model draw.
    """
    model = copied(problem.model)
    if model is None:
        raise ComputeError("the model cannot be copied, and a race would change it.")
    own = problem.as_written(model=model)
    own.evaluate(own.data[0])  # which finds out whether an evaluation changes the parameters by itself
    with own_draws(problem.device, seed), own.evaluation(), torch.enable_grad():
        yield own.model
