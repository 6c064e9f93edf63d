"""Networks on plateaus, for tests."""

import torch

from hessdiag.errors import NotFiniteError
from hessdiag.nets.tasks.deep_mlp import deep_mlp
from hessdiag.nets.tasks.neural_chain import neural_chain
from hessdiag.problem.problem import Problem


def posed(task):
    """The problem of a task."""
    data = task["data"]
    return Problem(task["model"], data=[data], **{key: task[key] for key in ("loss", "objective") if key in task})


def chain(length=10, **settings):
    """The chain of equal weights 0.5."""
    return posed(neural_chain(length=length, **settings))


def deep(depth=12, width=8, init="lecun_variance", seed=0, samples=64, **settings):
    """A deep ReLU network on its plateau, with its task's data."""
    return posed(deep_mlp(depth=depth, width=width, init=init, seed=seed, samples=samples, **settings))


def left(problem, rate, level, most=10_000, decay=0.0):
    """Steps of gradient descent until the loss is another than on the plateau, and whether it is lower then.

    Lower is below a level. Where curvature has grown, one step may leap over the valley, and the loss is then higher by
    a tenth than at the start. `None` for a plateau that is not left.
    """
    weights = [parameter.detach().clone() for parameter in problem.parameters]
    first, found = None, (None, False)
    for steps in range(most + 1):
        try:
            value = problem.evaluate(problem.data[0])
        except NotFiniteError:
            found = steps, False
            break
        loss = float(value.detach())
        first = loss if first is None else first
        if loss <= level or loss > 1.1 * first:
            found = steps, loss <= level
            break
        slopes = torch.autograd.grad(value, problem.parameters)
        with torch.no_grad():
            for parameter, slope in zip(problem.parameters, slopes, strict=True):
                parameter -= rate * (slope + decay * parameter)
    with torch.no_grad():
        for parameter, weight in zip(problem.parameters, weights, strict=True):
            parameter.copy_(weight)
    return found
