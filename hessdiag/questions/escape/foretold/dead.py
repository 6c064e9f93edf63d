"""Networks that no gradient brings back to life: their outputs are those of no sample."""

from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import HessdiagError
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.constant import OF_THE_MODEL

ROUNDING = 64  # units in the last place by which equal outputs may differ


def silenced(problem: Problem, gradient: Tensor) -> tuple[str, ...]:
    """Parameters that no gradient ever reaches, of a dead network; none of one that lives.

    A network is dead where its outputs are the same for all samples, and weights that could tell samples apart have no
    gradient, nor would they have one if others moved a little. Biases behind may still learn a constant.

    Args:
        problem: All data.
        gradient: There, (N,).

    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 1))
    >>> _ = torch.nn.init.constant_(net[0].bias, -9.0)
    >>> problem = Problem(net, data=[(torch.rand(4, 1), torch.rand(4, 1))], loss="mse")
    >>> silenced(problem, HessianOperator(problem).gradient())
    ('0.weight', '0.bias', '2.weight')
    """
    places = problem.places()
    zero = [index for index, place in enumerate(places) if not gradient[place].any()]
    matrices = [index for index, parameter in enumerate(problem.parameters) if parameter.ndim > 1]
    if not zero or not _same(problem, all_silent=set(matrices or range(len(places))) <= set(zero)):
        return ()
    direction = signs(problem)
    try:
        bent = HessianOperator(problem, check=False) @ direction
    except (HessdiagError, RuntimeError):
        return ()
    still = [index for index in zero if not bent[places[index]].any()]
    if not set(still) & set(matrices or still):
        return ()
    return tuple(problem.named_parameters[index][0] for index in still)


def signs(problem: Problem) -> Tensor:
    """A direction of plus and minus one, (N,), the same every time."""
    source = torch.Generator().manual_seed(0)
    drawn = torch.randint(2, (problem.n_parameters,), generator=source) * 2 - 1
    return drawn.to(dtype=problem.dtype, device=problem.device)


def _same(problem: Problem, *, all_silent: bool) -> bool:
    """Whether outputs are those of no sample; where that cannot be seen, whether all weights are silent."""
    try:
        return _of_no_sample(problem, all_silent)
    except (HessdiagError, RuntimeError, *OF_THE_MODEL):
        return all_silent


def _of_no_sample(problem: Problem, all_silent: bool) -> bool:
    loss = None if problem.n_samples == 1 else problem.loss_of_output
    if loss is None:
        return all_silent
    first: Tensor | None = None
    for batch in problem.data:
        output: Any = loss.received(problem.output(batch))
        if not isinstance(output, Tensor) or not output.ndim or not output.is_floating_point():
            return all_silent
        rows = output.detach()
        first = rows[:1] if first is None else first
        if rows.shape[1:] != first.shape[1:]:
            return all_silent
        within = ROUNDING * torch.finfo(rows.dtype).eps * first.abs().max()
        if bool(((rows - first).abs() > within).any()):
            return False
    return True
