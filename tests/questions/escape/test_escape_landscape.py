import math

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag import Problem
from hessdiag.questions.escape.landscape import landscape


def quadratic(matrix, slope, at):
    """A problem whose objective is slope'w + w'Aw/2, at a point."""
    model = nn.Linear(len(at), 1, bias=False).double()
    model.weight.data = torch.tensor([at], dtype=torch.float64)
    matrix, slope = (torch.tensor(value, dtype=torch.float64) for value in (matrix, slope))
    return Problem(
        model,
        data=[torch.zeros(1, len(at)).double()],
        objective=lambda model, _: slope @ model.weight[0] + model.weight[0] @ matrix @ model.weight[0] / 2,
    )


def test_it_is_the_plane_of_gradient_and_lowest_eigenvector_in_units_of_the_weights():
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    matrix = rotation @ np.diag([-2.0, -0.5, 0.3, 1.0, 4.0]) @ rotation.T
    slope, at = np.array([0.3, -1.0, 0.2, 0.5, 0.1]), np.array([1.0, 0.5, -0.2, 0.1, 0.7])
    found = landscape(quadratic(matrix.tolist(), slope.tolist(), at.tolist()), seed=0)
    gradient = slope + matrix @ at
    across = -gradient / np.linalg.norm(gradient)
    up = rotation[:, 0] - rotation[:, 0] @ across * across
    up /= np.linalg.norm(up)
    if up[np.abs(up).argmax()] < 0:
        up = -up
    size = np.linalg.norm(at)
    assert found.along_gradient[0] == found.along_curvature[0] == -1.0
    assert len(found.along_gradient) % 2 == 1
    for row, b in enumerate(found.along_curvature):
        for column, a in enumerate(found.along_gradient):
            there = at + size * (a * across + b * up)
            expected = slope @ there + there @ matrix @ there / 2
            assert found.loss[row][column] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_model_stays_where_it_is():
    problem = quadratic([[1.0, 0.5], [0.5, -1.0]], [1.0, 0.0], [1.0, 2.0])
    weight = problem.model.weight
    landscape(problem, seed=0)
    assert weight.tolist() == [[1.0, 2.0]]
    assert weight.grad is None
    assert problem.model.weight is weight


@pytest.mark.parametrize(
    ("matrix", "slope", "why"),
    [
        ([[1.0, 0.0], [0.0, -1.0]], [-1.0, 1.0], "no gradient at (1, 1)"),
        ([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0], "no curvature"),
        ([[1.0, 0.0], [0.0, -1.0]], [-1.0, 3.0], "both point the same way"),
    ],
)
def test_without_a_plane_there_is_no_landscape(matrix, slope, why):
    assert landscape(quadratic(matrix, slope, [1.0, 1.0]), seed=0) is None, why


def test_what_is_no_number_is_left_out():
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data = torch.tensor([[1.0, 1.0]], dtype=torch.float64)

    def steep(model, _):
        x, y = model.weight[0]
        return torch.log(x + 0.05) - y**2  # no number for x below -0.05

    found = landscape(Problem(model, data=[torch.zeros(1, 2).double()], objective=steep), seed=0)
    known = [value for row in found.loss for value in row if value is not None]
    assert any(value is None for row in found.loss for value in row)
    assert all(map(math.isfinite, known))
    assert len(known) > 100
