"""v'Gv against the loss along the linearized model: right where G is, and far off where G is not."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hessdiag.curvature.dense import hessian
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator, Sandwich
from hessdiag.curvature.linearization import linearization
from hessdiag.curvature.point.examine import NoHessianError, PointWarning
from hessdiag.curvature.received import NoGaussNewtonError
from hessdiag.problem.problem import Problem
from tests.curvature.test_hessian import CASES
from tests.curvature.test_output_structures import LOSSES, _data, _problem
from tests.once import once_differentiable

D = torch.float64


def _net(loss, *, relu=False, dtype=D, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU() if relu else nn.Tanh(), nn.Linear(5, 2))
    data = [tuple(tensor.to(dtype) for tensor in batch) for batch in _data()]
    return Problem(model.to(dtype), data=data, loss=loss, **options)


@pytest.mark.parametrize("name", LOSSES)
def test_agrees_on_several_outputs(name):
    found = linearization(GaussNewtonOperator(_problem("nested", name)))
    assert found.error < 1e-8
    assert (found.moves, found.linear) == (True, False)


@pytest.mark.parametrize("name", [name for name in CASES if name != "mapping, own loss"])
def test_agrees_on_architectures(name):
    assert linearization(GaussNewtonOperator(CASES[name]())).error < 1e-8


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "loss",
    ["mse", F.l1_loss, F.huber_loss, F.smooth_l1_loss, nn.PoissonNLLLoss(), lambda z, t: (z - t).abs().pow(1.5).sum()],
)
def test_agrees_beside_kinks_and_in_single_precision(loss, relu):
    assert linearization(GaussNewtonOperator(_net(loss, relu=relu))).error < 1e-7
    assert linearization(GaussNewtonOperator(_net(loss, relu=relu, dtype=torch.float32))).error < 1e-3


def test_fisher_is_compared_with_its_own_function():
    model = nn.Sequential(nn.Linear(3, 4), nn.LogSoftmax(-1)).double()
    problem = Problem(model, data=[(torch.randn(5, 3, dtype=D), torch.arange(5) % 4)], loss=F.nll_loss)
    found = linearization(FisherOperator(problem))
    assert found.error < 1e-8
    assert not found.linear
    assert linearization(GaussNewtonOperator(problem)).linear


@pytest.mark.parametrize("factor", [2.0, 0.5, -1.0, 1.001])
def test_a_wrong_factor_is_seen(monkeypatch, factor):
    plain = Sandwich.products

    def wrong(self, vectors, layer):
        return [None if part is None else factor * part for part in plain(self, vectors, layer)]

    monkeypatch.setattr(Sandwich, "products", wrong)
    error = linearization(GaussNewtonOperator(_problem("tuple", "gaussian"), check=False)).error
    assert error == pytest.approx(abs(factor - 1) / max(factor, 1), rel=0.5)  # relative to what the parts are of


def test_the_first_tensor_alone_is_seen(monkeypatch):
    """What was computed before: J and B of the first output only."""
    operator = GaussNewtonOperator(_problem("tuple", "gaussian"), check=False)
    whole = operator._sandwich

    def first(problem, batch):
        sandwich = whole(problem, batch)

        def middle(vectors):
            return [sandwich.middle([vectors[0], *(torch.zeros_like(o)[None] for o in sandwich.outputs[1:])])[0]]

        return dataclasses.replace(sandwich, outputs=sandwich.outputs[:1], middle=middle)

    operator._sandwich = first
    assert linearization(operator).error > 0.1


def test_a_detached_part_of_the_loss_is_seen():
    problem = _net(lambda z, t: ((z - t).detach().square() * (z - t).square()).mean())
    assert linearization(GaussNewtonOperator(problem, check=False)).error > 0.1
    with pytest.raises(NoHessianError, match="not the loss's curvature along the linearized model"):
        GaussNewtonOperator(problem) @ torch.ones(problem.n_parameters, dtype=D)


def test_a_dead_output_is_not_a_linear_loss():
    problem = _net("mse", relu=True)
    nn.init.constant_(problem.model[0].bias, -100.0)
    nn.init.zeros_(problem.model[2].weight)
    dead = Problem(problem.model, data=problem.data, loss="mse", layers="0.*")
    found = linearization(GaussNewtonOperator(dead))
    assert (found.moves, found.curves, found.linear, found.error) == (False, False, False, 0.0)
    alive = linearization(GaussNewtonOperator(_net(lambda z, t: (z * t).sum())))
    assert (alive.moves, alive.curves, alive.linear, alive.error) == (True, False, True, 0.0)


def test_a_penalty_in_the_loss_is_seen_and_left_to_the_residual():
    plain = _net("mse")

    def penalized(output, target):
        return F.mse_loss(output, target) + plain.model[0].weight.square().sum()

    problem = Problem(plain.model, data=plain.data, loss=penalized)
    found, without = linearization(GaussNewtonOperator(problem)), linearization(GaussNewtonOperator(plain))
    assert (found.elsewhere, without.elsewhere) == (True, False)
    unit = torch.eye(plain.n_parameters, dtype=D)
    torch.testing.assert_close(GaussNewtonOperator(problem) @ unit, GaussNewtonOperator(plain) @ unit)
    assert found.error < 1e-8


def test_a_model_that_cannot_be_copied_has_no_comparison():
    problem = _net("mse")
    problem.model.lock = (item for item in ())  # a generator
    assert linearization(GaussNewtonOperator(problem)) is None


_Exponential = once_differentiable("Exponential", torch.exp, torch.exp)


def test_a_model_that_is_differentiable_once_has_a_gauss_newton_matrix_and_such_a_loss_has_none():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(_Exponential.apply(self.a(x))), self.a(x)

    def loss(output, target):
        return ((output[0] - target) ** 2).mean() + output[1].cosh().mean()

    torch.manual_seed(0)
    operator = GaussNewtonOperator(Problem(Model().double(), data=_data(), loss=loss))
    assert linearization(operator).error < 1e-7
    assert "central differences of outputs" in operator.engine
    for second in (lambda z, t: _Exponential.apply(z - t).mean(), _ctc):
        with pytest.raises(NoGaussNewtonError, match="no second derivative in the output"):
            GaussNewtonOperator(_net(second)) @ torch.ones(32, dtype=D)


def _ctc(output, target):
    scores = F.pad(output, (0, 1)).log_softmax(-1)[:, None]
    return F.ctc_loss(scores, torch.ones(1, 1, dtype=torch.long), torch.tensor([len(scores)]), torch.tensor([1]))


class _Block(nn.Module):
    """A residual block as networks start with it: the gain of its last normalization is zero."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x):
        return torch.relu(x + self.norm(self.b(torch.relu(self.a(x)))))


def _at_a_kink(loss, dtype=D):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), _Block(), nn.Linear(6, 2)).to(dtype)
    return Problem(model, data=[tuple(tensor.to(dtype) for tensor in batch) for batch in _data()], loss=loss)


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_outputs_at_a_kink_are_compared_on_one_piece(dtype):
    problem = _at_a_kink("mse", dtype)
    found = linearization(GaussNewtonOperator(problem, check=False))
    assert found.held
    assert found.error < (1e-8 if dtype == D else 1e-3)
    with pytest.warns(PointWarning, match="the outputs have a kink at these parameters"):
        GaussNewtonOperator(problem) @ torch.ones(problem.n_parameters, dtype=dtype)
    wrong = _at_a_kink(lambda z, t: ((z - t).detach().square() * (z - t).square()).mean(), dtype)
    found = linearization(GaussNewtonOperator(wrong, check=False))
    assert not found.held
    assert found.error > 0.1


def test_a_loss_at_a_kink_has_no_gauss_newton_matrix():
    """Asymmetric squares at a residual of exactly zero curve differently on either side."""
    problem = _net(lambda z, t: (0.8 * (z - t).relu() ** 2 + 0.2 * (t - z).relu() ** 2).mean())
    nn.init.zeros_(problem.model[2].weight)
    nn.init.zeros_(problem.model[2].bias)
    problem = Problem(problem.model, data=[(x, torch.zeros_like(t)) for x, t in problem.data], loss=problem.loss)
    found = linearization(GaussNewtonOperator(problem, check=False))
    assert (found.error, found.held) == (pytest.approx(1.0), False)


class _Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 2)

    def forward(self, x):
        mean, log_variance = self.a(x).chunk(2, 1)
        return self.b(torch.tanh(mean + torch.randn_like(mean) * log_variance.exp())), mean


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_random_forward_pass_and_a_random_loss_are_of_one_draw(dtype):
    def loss(output, target):
        noise = torch.randn_like(target)
        return (output[0] - target + noise * output[1]).square().mean()

    torch.manual_seed(0)
    data = [tuple(tensor.to(dtype) for tensor in batch) for batch in _data()]
    problem = Problem(_Drawing().to(dtype), data=data, loss=loss)
    with pytest.warns(PointWarning, match="draws random numbers"):
        G = GaussNewtonOperator(problem) @ torch.eye(problem.n_parameters, dtype=dtype)
    assert problem.one_draw
    assert linearization(GaussNewtonOperator(problem)).error < (1e-8 if dtype == D else 1e-3)
    H = hessian(problem, check=False)
    out = problem.layer_slices[1]  # the last layer is linear: its block is Gauss-Newton's
    place = slice(out.start, out.stop)
    torch.testing.assert_close(G[place, place], H[place, place])
