import warnings

import pytest
import torch
from torch import nn

from hessdiag.curvature.dense import hessian
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator, Sandwich
from hessdiag.errors import SpecError
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.problem import Problem
from tests.curvature.test_hessian import CASES
from tests.reference import cosine_problem, half_squared_error

WITH_OUTPUT = [name for name in CASES if name != "mapping, own loss"]


def dense(operator):
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


def output_jacobian(problem, batch):
    """d output / d parameters by jacobian's own loop over outputs, and the output itself."""
    inputs, _ = batches.split(batch)
    with problem.evaluation():
        z = batches.output_tensor(batches.forward(problem.model, inputs))
    rows = []
    for entry in z.reshape(-1):
        parts = torch.autograd.grad(entry, problem.parameters, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    torch.zeros(p.numel(), dtype=z.dtype) if g is None else g.reshape(-1)
                    for g, p in zip(parts, problem.parameters, strict=True)
                ]
            )
        )
    return z.detach(), torch.stack(rows)


def brute_gauss_newton(problem):
    """J' B J with B from torch.autograd.functional.hessian of the loss alone."""
    n = problem.n_parameters
    total = torch.zeros(n, n, dtype=problem.dtype)
    for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
        z, J = output_jacobian(problem, batch)
        _, target = batches.split(batch)

        def loss(flat, z=z, target=target):
            values = flat.reshape(z.shape)
            if problem.loss_name == "nll":
                return nn.functional.cross_entropy(values, target)
            return problem.criterion.function(values, target)

        B = torch.autograd.functional.hessian(loss, z.reshape(-1))
        total += weight * J.T @ B @ J
    return total


@pytest.mark.parametrize("name", WITH_OUTPUT)
def test_matches_brute_force(name):
    problem = CASES[name]()
    expected = brute_gauss_newton(problem)
    operator = GaussNewtonOperator(problem)
    G = dense(operator)
    assert float((G - expected).abs().max()) <= 1e-6 * float(expected.abs().max()) * (
        1e-4 if problem.dtype == torch.float64 else 1
    )
    one = torch.randn(operator.shape[0], dtype=operator.dtype)
    tolerance = 1e-10 if problem.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(operator @ one, G @ one, rtol=tolerance, atol=tolerance)
    assert float(torch.linalg.eigvalsh(G.double())[0]) > -1e-6 * float(G.norm())


@pytest.mark.parametrize(
    "name", ["mlp, cross-entropy", "several batches of unequal size", "convolution, max pooling, relu"]
)
def test_matches_curvlinops(name):
    curvlinops = pytest.importorskip("curvlinops")
    problem = CASES[name]()
    loss = nn.CrossEntropyLoss() if problem.loss_name == "ce" else nn.MSELoss()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        params = list(problem.model.parameters())
        peer = curvlinops.GGNLinearOperator(problem.model, loss, params, problem.data, check_deterministic=False)
        expected = peer @ torch.eye(problem.n_parameters, dtype=problem.dtype)
    torch.testing.assert_close(dense(GaussNewtonOperator(problem)), torch.as_tensor(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_the_residual_part_vanishes_on_piecewise_linear_diagonal_blocks_only(activation):
    problem = cosine_problem([3, 4, 3, 2], 5, activation)
    residual = hessian(problem) - dense(GaussNewtonOperator(problem))
    for layer in problem.layer_slices:
        block = residual[layer.start : layer.stop, layer.start : layer.stop]
        last = layer is problem.layer_slices[-1]
        assert (float(block.norm()) < 1e-12) is (activation != "tanh" or last)
    assert float(residual.norm()) > 0.1


def test_a_loss_that_is_linear_in_the_output_has_no_gauss_newton_part():
    problem = Problem(
        nn.Linear(2, 1).double(), data=[(torch.randn(3, 2).double(), torch.zeros(3))], loss=lambda z, y: z.sum()
    )
    assert not dense(GaussNewtonOperator(problem)).any()


def test_our_nll_is_taken_for_cross_entropy_and_torchs_for_what_it_is():
    """torch's is linear in the log-probabilities that it receives. The Fisher matrix is that of the model either way."""
    model = nn.Sequential(nn.Linear(3, 4), nn.LogSoftmax(-1)).double()
    data = [(torch.randn(5, 3).double(), torch.arange(5) % 4)]
    logits = Problem(model[0], data=data, loss="ce")
    expected = dense(GaussNewtonOperator(logits))
    assert float(expected.norm()) > 0.1
    torch.testing.assert_close(dense(GaussNewtonOperator(Problem(model, data=data, loss="nll"))), expected)
    for loss in (nn.NLLLoss(), nn.functional.nll_loss):
        assert not dense(GaussNewtonOperator(Problem(model, data=data, loss=loss))).any()
    for loss in ("nll", nn.NLLLoss(), nn.functional.nll_loss):
        torch.testing.assert_close(dense(FisherOperator(Problem(model, data=data, loss=loss))), expected)


def _expected_outer_products(problem):
    """The type I Fisher matrix by its definition: every class as target, weighted by the model's probability."""
    (x, _), *_ = problem.data
    logits = problem.model(x)
    p = torch.softmax(logits, -1).detach()
    n, classes = p.shape
    total = torch.zeros(problem.n_parameters, problem.n_parameters, dtype=problem.dtype)
    for i in range(n):
        for c in range(classes):
            loss = nn.functional.cross_entropy(logits[i], torch.tensor(c))
            g = torch.cat(
                [part.reshape(-1) for part in torch.autograd.grad(loss, problem.parameters, retain_graph=True)]
            )
            total += p[i, c] / n * torch.outer(g, g)
    return total


def test_fisher_is_the_expectation_over_the_models_own_targets():
    problem = CASES["mlp, cross-entropy"]()
    F = dense(FisherOperator(problem))
    torch.testing.assert_close(F, _expected_outer_products(problem))
    torch.testing.assert_close(F, dense(GaussNewtonOperator(problem)))


@pytest.mark.parametrize(
    "name",
    [
        "mlp, cross-entropy",
        "several batches of unequal size",
        "a sum over batches",
        "ignored targets",
        "sequence of classes",
    ],
)
def test_empirical_fisher_is_the_sum_of_the_samples_outer_products(name):
    problem = CASES[name]()
    total = torch.zeros(problem.n_parameters, problem.n_parameters, dtype=problem.dtype)
    counted = 0
    for x, y in problem.data:
        for i in range(len(x)):
            if name == "ignored targets" and int(y[i]) == -100:
                continue
            loss = problem.criterion.function(problem.model(x[i : i + 1]), y[i : i + 1])
            g = torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, problem.parameters)])
            total += torch.outer(g, g)
            counted += 1
    if problem.loss_reduction != "sum":
        total /= counted
    torch.testing.assert_close(dense(FisherOperator(problem, empirical=True)), total, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [GaussNewtonOperator, FisherOperator])
def test_an_objective_has_no_output(make):
    problem = Problem(nn.Linear(2, 1), data=[torch.zeros(1)], objective=lambda model, batch: model.weight.sum())
    with pytest.raises(SpecError, match="--operator hessian"):
        make(problem)


@pytest.mark.parametrize("loss", [half_squared_error, nn.CrossEntropyLoss(weight=torch.ones(2).double())])
def test_fisher_wants_a_likelihood(loss):
    problem = Problem(
        nn.Linear(2, 2).double(), data=[(torch.randn(3, 2).double(), torch.zeros(3, 2).double())], loss=loss
    )
    with pytest.raises(SpecError, match="likelihood"):
        FisherOperator(problem)
    FisherOperator(problem, empirical=True)


def test_training_statistics_are_left_alone():
    problem = CASES["batch norm, train mode"]()
    before = problem.model[1].running_mean.clone()
    GaussNewtonOperator(problem) @ torch.randn(problem.n_parameters, dtype=torch.float64)
    assert torch.equal(before, problem.model[1].running_mean)


def test_memory_that_runs_out_halves_the_chunk(monkeypatch):
    problem = CASES["mlp, cross-entropy"]()
    operator = GaussNewtonOperator(problem)
    expected = dense(GaussNewtonOperator(problem))
    plain = Sandwich.products
    sizes = []

    def scarce(self, vectors, layer):
        sizes.append(len(vectors))
        if len(vectors) > 8:
            raise RuntimeError("CUDA out of memory")
        return plain(self, vectors, layer)

    monkeypatch.setattr(Sandwich, "products", scarce)
    torch.testing.assert_close(dense(operator), expected)
    assert max(sizes) > 8
    assert operator.chunk == 8


@pytest.mark.parametrize(("said", "why"), [("no batching rule for this", "no batching rule"), ("", "RuntimeError")])
def test_what_cannot_be_batched_goes_one_by_one(monkeypatch, said, why):
    problem = CASES["mlp, cross-entropy"]()
    expected = dense(GaussNewtonOperator(problem))
    plain = Sandwich.products

    def stubborn(self, vectors, layer):
        if len(vectors) > 1:
            raise RuntimeError(said)
        return plain(self, vectors, layer)

    monkeypatch.setattr(Sandwich, "products", stubborn)
    operator = GaussNewtonOperator(problem)
    torch.testing.assert_close(dense(operator), expected)
    assert f"one vector at a time ({why}" in operator.engine


def test_where_autograd_divides_zero_by_zero():
    """sinc(f x) w at f = 0: the output is smooth there, with slopes 0 in f and 1 in w; G = 2 in w alone."""

    class Sine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.f = torch.nn.Parameter(torch.zeros(2).double())
            self.w = torch.nn.Parameter(torch.tensor(3.0).double())

        def forward(self, x):
            return torch.sinc(x @ self.f) * self.w

    data = [(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]).double(), torch.tensor([1.0, 2.0]).double())]
    operator = GaussNewtonOperator(Problem(Sine(), data=data, loss="mse"))
    expected = torch.zeros(3, 3).double()
    expected[2, 2] = 2.0
    torch.testing.assert_close(dense(operator), expected, atol=1e-8, rtol=0)
    assert "differences of outputs" in operator.engine
