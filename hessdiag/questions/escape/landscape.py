"""The loss in the plane of the gradient and of the most negative curvature, through where a race starts."""

import torch
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import ComputeError
from hessdiag.problem.copies import copied
from hessdiag.problem.problem import Problem
from hessdiag.questions.escape.extremes import ACCEPTED, extremes
from hessdiag.questions.escape.result import Landscape

POINTS, REACH = 21, 1.0  # along each axis, and how far in units of the weights' norm
PARALLEL = 1e-3  # of the eigenvector beside the gradient, below which there is no plane


def landscape(problem: Problem, *, seed: int) -> Landscape | None:
    """Look around on a grid of 21 by 21 points, on a copy of the model.

    One axis is the normalized negative gradient g, the other what of the eigenvector of the Hessian's smallest
    eigenvalue is orthogonal to it (Gram-Schmidt), both in units of the weights' norm |w|: the loss at
    w + |w| (a (-g/|g|) + b v) for a and b from -1 to 1.

    Args:
        problem: All data, with running statistics and dropout masks frozen.
        seed: Of the eigensolver's start.

    Returns:
        The losses, `None` where one is no finite number. `None` in their place where there is no such plane: without a
        gradient, without curvature, or where both point the same way; any other direction would be arbitrary.

    Raises:
        ComputeError: if loss or gradient cannot be computed.

    >>> from hessdiag import Problem
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> def saddle(model, batch):
    ...     x, y = model.weight[0]
    ...     return (x**2 - 3 * y**2) / 2 + 3 * y + 4
    >>> found = landscape(Problem(model, data=[torch.zeros(1, 2).double()], objective=saddle), seed=0)
    >>> [round(found.loss[row][10], 6) for row in (0, 10, 20)]  # |w|^2 = 2 times the curvature -3, over 2
    [3.0, 6.0, 3.0]
    """
    operator = HessianOperator(problem, check=False)
    gradient = operator.gradient()
    size = gradient.norm()
    if not float(size) > 0 or not bool(torch.isfinite(size)):
        return None
    across = -gradient / size
    up = _up(operator, across, seed)
    model = copied(problem.model)
    if up is None or model is None:
        return None
    return _grid(problem.like(model=model), across, up)


def _up(operator: HessianOperator, across: Tensor, seed: int) -> Tensor | None:
    """The eigenvector of the smallest eigenvalue, orthogonal to the other axis; its largest entry is positive."""
    pairs = extremes(operator, lowest=1, highest=0, seed=seed) if operator.shape[0] > 1 else None
    if pairs is None:
        return None
    size = abs(float(pairs.values[0]))
    if not size > 0 or float(pairs.residuals[0]) > ACCEPTED * size:
        return None
    vector: Tensor = pairs.vectors[:, 0].to(across)
    for _ in range(2):  # once more, for what rounding leaves
        vector = vector - (vector @ across) * across
    if not float(vector.norm()) > PARALLEL:
        return None
    vector = vector / vector.norm()
    return vector * float(vector[vector.abs().argmax()].sign())


def _grid(problem: Problem, across: Tensor, up: Tensor) -> Landscape:
    """The loss at each point. The problem's parameters are moved, and left where the last point is."""
    there = torch.cat([parameter.detach().reshape(-1) for parameter in problem.parameters]).to(across)
    unit = float(there.norm()) or 1.0
    places = [REACH * (2 * index / (POINTS - 1) - 1) for index in range(POINTS)]
    rows = tuple(tuple(_loss(problem, there + unit * (a * across + b * up)) for a in places) for b in places)
    return Landscape(along_gradient=tuple(places), along_curvature=tuple(places), loss=rows)


def _loss(problem: Problem, weights: Tensor) -> float | None:
    with torch.no_grad():
        for parameter, place in zip(problem.parameters, problem.places(), strict=True):
            parameter.copy_(weights[place].view(parameter.shape))
        try:
            return problem.value()
        except ComputeError:  # which a value beyond all numbers is
            return None
