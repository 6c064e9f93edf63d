"""Where autograd is wrong in the loss's second derivative, differences of its gradients take over; never at a kink."""

import pytest
import torch
from torch import nn

from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.point.examine import NoHessianError
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.measure import blocks


def _squares(output, target):
    return (output**2).mean()


def _spectrum(output, target):
    found = torch.fft.rfft(output, dim=0)
    return (found.real**2 + found.imag**2).mean()


# By name, as written with a magnitude whose second derivative autograd has wrong at zero, and without.
SMOOTH = {
    "abs squared": (lambda output, target: (output.abs() ** 2).mean(), _squares),
    "power spectrum": (lambda output, target: (torch.fft.rfft(output, dim=0).abs() ** 2).mean(), _spectrum),
    "two tensors": (
        lambda output, target: (output.abs() ** 2).mean() + output[:, :1].exp().mean(),
        lambda output, target: (output**2).mean() + output[:, :1].exp().mean(),
    ),
}
KINKED = {
    "abs": lambda output, target: output.abs().mean(),
    "two curvatures": lambda output, target: torch.where(output > 0, output**2, 3 * output**2).mean(),
    "detached": lambda output, target: ((output + 1).detach() * (output + 1) + output**2).mean(),
}


def _at_zero(loss, dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    for parameter in model[2].parameters():
        nn.init.zeros_(parameter)
    return Problem(model, data=[(torch.randn(6, 3, dtype=dtype), torch.zeros(6, 2, dtype=dtype))], loss=loss)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_matrix_is_that_of_the_same_loss_written_smoothly(name):
    wrong, right = (_at_zero(loss) for loss in SMOOTH[name])
    unit = torch.eye(wrong.n_parameters, dtype=torch.float64)
    operator = GaussNewtonOperator(wrong)
    expected = GaussNewtonOperator(right) @ unit
    torch.testing.assert_close(operator @ unit, expected, rtol=1e-7, atol=1e-9)
    assert "by central differences of its gradients" in operator.engine
    assert operator.precision >= 1e-11


def test_blocks_answers_there():
    found, expected = (blocks(_at_zero(loss)) for loss in SMOOTH["power spectrum"])
    assert found.status == "ok"
    assert found.gauss_newton[1] == pytest.approx(expected.gauss_newton[1], rel=1e-8)
    assert found.checks["ggn_quadratic_form"] < 1e-6


def test_in_float32():
    operator = GaussNewtonOperator(_at_zero(SMOOTH["abs squared"][0], torch.float32))
    unit = torch.eye(operator.shape[0])
    expected = GaussNewtonOperator(_at_zero(_squares, torch.float32)) @ unit
    torch.testing.assert_close(operator @ unit, expected, rtol=1e-5, atol=1e-6)


MIX = torch.tensor([[1.0, 0.5], [0.0, 2.0]])  # of the model's own dtype: with such a loss nothing is widened


def test_a_loss_with_tensors_of_its_own_in_float32():
    wrong = GaussNewtonOperator(_at_zero(lambda output, target: ((output @ MIX).abs() ** 2).mean(), torch.float32))
    right = GaussNewtonOperator(_at_zero(lambda output, target: _squares(output @ MIX, target), torch.float32))
    unit = torch.eye(wrong.shape[0])
    torch.testing.assert_close(wrong @ unit, right @ unit, rtol=1e-4, atol=1e-5)
    assert "by central differences of its gradients" in wrong.engine
    assert wrong.precision > 1e-5, "gradients in float32 have differences of few digits"


@pytest.mark.parametrize("name", KINKED)
def test_kinks_stay_refused_where_the_loss_has_tensors_of_its_own(name):
    problem = _at_zero(lambda output, target: KINKED[name](output @ torch.eye(2), target), torch.float32)
    with pytest.raises(NoHessianError):
        GaussNewtonOperator(problem) @ torch.ones(26)
    assert blocks(problem).status == "inexact"


@pytest.mark.parametrize("name", KINKED)
def test_kinks_and_detached_parts_stay_refused(name):
    with pytest.raises(NoHessianError):
        GaussNewtonOperator(_at_zero(KINKED[name])) @ torch.ones(26, dtype=torch.float64)
    assert blocks(_at_zero(KINKED[name])).status == "inexact"


def test_where_autograd_is_right_nothing_is_replaced():
    operator = GaussNewtonOperator(_at_zero(_squares))
    operator.settle()
    assert "differences" not in operator.engine
