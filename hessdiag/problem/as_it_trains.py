"""Evaluating a model as its training would: in its own mode and with its own kernels, and leaving no trace."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from hessdiag.problem.evaluation import guard, privately
from hessdiag.problem.measuring import measuring
from hessdiag.problem.modes import mode
from hessdiag.problem.problem import Problem


@contextmanager
def as_it_trains(problem: Problem) -> Iterator[nn.Module]:
    """The problem's model in the mode that it came in, or all of it in training mode where that was asked for.

    Buffers, parameters and random numbers are put back afterwards, and so are the modes.
    """
    model = problem.model
    modules = tuple(model.modules())
    with ExitStack() as stack:
        stack.enter_context(measuring(problem.device))
        if problem.train_mode:
            stack.enter_context(mode(model, True, modules))
        stack.enter_context(privately.private_buffers(modules))
        stack.enter_context(privately.own_draws(problem.device, problem.seed))
        kept = guard.snapshot(model)
        try:
            yield model
        finally:
            guard.restore(model, kept)
