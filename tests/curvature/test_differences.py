"""Models that cannot be differentiated twice, against the same functions written so that they can."""

import pytest
import torch
from torch import nn

from hessdiag.curvature import checks, exact
from hessdiag.curvature.dense import hessian
from hessdiag.curvature.differences import movable
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.curvature.point.examine import TOLERANCE
from hessdiag.errors import ComputeError
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.measure import blocks
from hessdiag.questions.bounds.measure import bounds
from hessdiag.questions.diag_share.measure import diag_share
from hessdiag.questions.eigs.measure import eigs
from hessdiag.questions.spectrum.measure import spectrum
from tests.once import Call, Sine, once_differentiable

SinglePrecisionSine = once_differentiable("SinglePrecisionSine", torch.sin, torch.cos, dtypes=(torch.float32,))
Rectifier = once_differentiable("Rectifier", torch.relu, lambda x: x > 0)
Square = once_differentiable("Square", torch.square, lambda x: 2 * x)


def _problem(function, loss="ce", dtype=torch.float64, **options):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), Call(function), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    x = torch.randn(11, 4, dtype=dtype)
    y = torch.arange(11) % 3 if loss == "ce" else torch.randn(11, 3, dtype=dtype)
    return Problem(model, data=[(x[:7], y[:7]), (x[7:], y[7:])], loss=loss, **options)


def _distance(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("loss", ["ce", "mse"])
@pytest.mark.parametrize(
    "matrix",
    [HessianOperator, GaussNewtonOperator, FisherOperator, lambda problem: FisherOperator(problem, empirical=True)],
)
def test_products_are_those_of_the_twin(matrix, loss):
    operator, twin = matrix(_problem(Sine.apply, loss)), matrix(_problem(torch.sin, loss))
    V = torch.cat([torch.eye(operator.shape[0])[:, ::5], torch.randn(operator.shape[0], 2)], dim=1).double()
    V = torch.cat([V, torch.zeros(len(V), 1).double()], dim=1)
    found, expected = operator @ V, twin @ V
    scale = float(expected[:, :-1].norm()) / V.shape[1] ** 0.5
    assert float((found - expected).norm(dim=0).max()) < 3e-9 * scale
    assert not found[:, -1].any()
    assert operator.missing == "the function Sine is differentiable only once"
    assert operator.engine.startswith(f"{operator.differences} in float64, for the function Sine")
    assert 0 < operator.precision < 1e-8
    assert (twin.missing, twin.precision) == (None, torch.finfo(torch.float64).eps)


def test_rows_gradient_and_dense_matrix():
    problem, twin = _problem(Sine.apply, layers="[24].*"), _problem(torch.sin, layers="[24].*")
    operator, expected = HessianOperator(problem), hessian(twin)
    assert _distance(hessian(problem), expected) < 1e-9
    torch.testing.assert_close(operator.gradient(), HessianOperator(twin).gradient(), rtol=1e-12, atol=1e-15)
    layer = problem.layer_slices[1]
    found = operator.rows(torch.tensor([1, 40]), layer)
    torch.testing.assert_close(found, expected[[1, 40], layer.start : layer.stop], rtol=1e-7, atol=1e-10)
    with pytest.raises(NotInNeuronSpaceError, match="differentiated twice"):
        exact.neuron_space(operator)


def test_what_autograd_passes_over_in_silence():
    """Where a loss is linear in the function's output, its gradient needs no graph, and looks like a constant."""
    model = nn.Linear(3, 1, bias=False).double()
    problem = Problem(model, data=[torch.zeros(1)], objective=lambda model, batch: Square.apply(model.weight).sum())
    torch.testing.assert_close(hessian(problem), 2 * torch.eye(3).double(), rtol=1e-8, atol=1e-8)


def test_operations_of_torch_without_a_second_derivative():
    class Distances(nn.Module):
        def __init__(self, plain):
            super().__init__()
            torch.manual_seed(1)
            self.centres, self.head, self.plain = nn.Parameter(torch.randn(5, 4)), nn.Linear(5, 3), plain

        def forward(self, x):
            apart = x[:, None] - self.centres
            return self.head(apart.square().sum(-1).sqrt() if self.plain else torch.cdist(x, self.centres))

    data = [(torch.randn(6, 4).double(), torch.arange(6) % 3)]
    problem, twin = (Problem(Distances(plain).double(), data=data, loss="ce") for plain in (False, True))
    assert _distance(hessian(problem), hessian(twin)) < 1e-8
    operator = HessianOperator(problem)
    assert checks.examine(operator).checks["hvp_two_steps"] < 1e-8
    assert "_cdist_backward" in operator.engine


def test_single_precision_is_measured_in_double_where_that_works():
    operator = HessianOperator(_problem(Sine.apply, dtype=torch.float32))
    v = torch.randn(operator.shape[0])
    wide = operator.problem.model.double()
    data = [(x.double(), y) for x, y in operator.problem.data]
    wide[1].function = torch.sin
    expected = HessianOperator(Problem(wide, data=data, loss="ce")) @ v.double()
    operator = HessianOperator(_problem(Sine.apply, dtype=torch.float32))
    assert _distance(operator @ v, expected) < 2e-7
    assert operator.precision == torch.finfo(torch.float32).eps
    single = HessianOperator(_problem(SinglePrecisionSine.apply, dtype=torch.float32))
    assert _distance(single @ v, expected) < TOLERANCE[torch.float32]
    assert _distance(single @ v, expected) < 10 * single.precision < 1e-2
    assert "in float32" in single.engine


def test_a_model_that_cannot_be_copied():
    problem = _problem(Sine.apply)
    problem.model.held = (number for number in range(3))
    with pytest.raises(ComputeError, match="Sine is differentiable only once, and for differences the model cannot be"):
        HessianOperator(problem).gradient()


def test_a_loss_without_curvature_of_its_own():
    def loss(output, target):
        return Square.apply(output - target).mean()

    assert blocks(_problem(torch.sin, "mse"), probes=2).status == "ok"
    problem = _problem(torch.sin, loss)
    with pytest.raises(ComputeError, match=r"has no second derivative in the output.*: the function Square"):
        GaussNewtonOperator(problem) @ torch.ones(problem.n_parameters).double()
    assert _distance(hessian(problem), hessian(_problem(torch.sin, "mse"))) < 1e-9


def test_all_commands_answer_as_for_the_twin():
    problem, twin = _problem(Sine.apply), _problem(torch.sin)
    ours, theirs = eigs(problem), eigs(twin)
    assert [p.eigenvalue for p in ours.highest] == pytest.approx([p.eigenvalue for p in theirs.highest], rel=1e-8)
    assert [p.eigenvalue for p in ours.lowest] == pytest.approx([p.eigenvalue for p in theirs.lowest], rel=1e-8)
    # Zero eigenvalues are zero: not what differences make of them.
    assert theirs.inertia.zero > 0
    assert (ours.inertia.positive, ours.inertia.zero) == (theirs.inertia.positive, theirs.inertia.zero)
    share, density, interval, split = (measure(problem) for measure in (diag_share, spectrum, bounds, blocks))
    assert density.inertia.negative == theirs.inertia.negative
    assert interval.inner == pytest.approx(bounds(twin).inner, rel=1e-8)
    assert share.diag_share == pytest.approx(diag_share(twin).diag_share, rel=1e-8)
    assert split.residual_norm == pytest.approx(blocks(twin).residual_norm, rel=1e-8)
    assert {ours.status, interval.status, split.status, share.status, density.status} == {"ok"}
    for found in (ours, share, density, interval, split):
        assert 0 < found.checks["hvp_two_steps"] < 1e-8
        assert "hvp_finite_difference" not in found.checks
        assert "central differences of gradients" in found.engine
        assert found.findings[0].level == "note"
        assert "cannot be differentiated twice" in found.findings[0].says


def test_a_kink_at_the_parameters_themselves_is_not_passed_over():
    problem = _problem(Rectifier.apply)
    nn.init.zeros_(problem.model[0].weight)
    nn.init.zeros_(problem.model[0].bias)
    found = diag_share(problem)
    assert found.status == "inexact"
    assert found.checks["hvp_two_steps"] > 0.1
    assert "depend on their step" in found.findings[0].says


@pytest.mark.parametrize("scale", [1e4, 1.0, 1e-4])
@pytest.mark.parametrize("length", [1e3, 1e-3])
def test_the_step_grows_with_the_parameters_and_not_with_the_vector(scale, length):
    """Curvature that changes over the size of the parameters: a step of one size for all drowns, or goes too far."""
    model = nn.Linear(6, 1, bias=False)
    theta = torch.linspace(0.3, 1.4, 6)
    model.weight.data = scale * theta[None]

    def waves(model, batch):
        return scale**2 * SinglePrecisionSine.apply(model.weight / scale).sum()

    operator = HessianOperator(Problem(model, data=[torch.zeros(1)], objective=waves))
    V = length * torch.randn(6, 3)
    assert _distance(operator @ V, -theta.double().sin()[:, None] * V) < 1e-3
    assert "in float32" in operator.engine
    assert operator.precision < 1e-3


def test_an_output_that_is_a_parameter_moves_with_it():
    """Its difference is the direction, although both ends lie in one place."""
    model = torch.nn.Linear(2, 3).double()
    moved = movable(Problem(model, data=[(torch.ones(1, 2).double(), torch.ones(1, 3).double())], loss="mse"))
    v = torch.arange(1.0, 10.0).double()
    found = moved.difference(v, moved.step(v), lambda: moved.problem.parameters)
    torch.testing.assert_close(torch.cat([part.reshape(-1) for part in found]), v, rtol=1e-9, atol=0)
