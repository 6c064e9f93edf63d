"""Both ends of the Hessian's spectrum: exact for small networks, Lanczos for others, and what is made of them."""

import dataclasses
import math

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.diagnostics import eigs as room
from hessdiag.diagnostics.eigs import eigs
from hessdiag.errors import ComputeError, SpecError
from hessdiag.problem.problem import Problem
from tests.reference import brute_force_hessian, cosine_problem, net_a, quadratic

NET_B, NET_C = [3, 4, 3, 2], [6, 6, 6, 6, 6]


def mlp(dtype=torch.float64):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    return Problem(model, data=[(torch.randn(12, 6).to(dtype), torch.arange(12) % 3)], loss="ce")


@pytest.fixture
def iterative(monkeypatch):
    """Take the iteration even for the small networks of these tests."""
    monkeypatch.setattr(room, "DENSE_UP_TO", 0)


def says(found):
    return " ".join(finding.says for finding in found.findings)


@pytest.mark.parametrize(
    ("problem", "extremes", "inertia"),
    [
        (net_a, (-14.1421, 40.7443), (2, 2, 2)),
        (lambda: cosine_problem(NET_B, 5, "relu"), (-0.560445, 5.29841), (11, 13, 6)),
        (lambda: cosine_problem(NET_B, 5, "linear"), (-2.10925, 15.5421), (12, 12, 6)),
        (lambda: cosine_problem(NET_B, 5, "tanh"), (-0.862935, 3.81253), None),
    ],
    ids=["A", "B relu", "B linear", "B tanh"],
)
def test_known_networks(problem, extremes, inertia):
    found = eigs(problem(), lowest=1, highest=1)
    assert found.status == "ok"
    assert found.method == "exact"
    assert (found.lowest[0].eigenvalue, found.highest[-1].eigenvalue) == pytest.approx(extremes, rel=5e-6)
    if inertia:
        assert (found.inertia.positive, found.inertia.negative, found.inertia.zero) == inertia
    assert found.largest_step == pytest.approx(2 / extremes[1], rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_iteration_agrees_with_the_exact_spectrum(iterative, dtype):
    problem = mlp(dtype)
    H = brute_force_hessian(mlp(torch.float64))
    found = eigs(problem, lowest=3, highest=2, seed=5)
    values = torch.linalg.eigvalsh(H).tolist()
    assert found.method == "lanczos"
    assert found.inertia is None
    assert found.spectrum is None
    assert [pair.eigenvalue for pair in (*found.lowest, *found.highest)] == pytest.approx(
        values[:3] + values[-2:], rel=1e-3
    )
    V = found.vectors.double()
    thetas = torch.tensor([pair.eigenvalue for pair in (*found.lowest, *found.highest)], dtype=torch.float64)
    true = (H @ V - V * thetas).norm(dim=0)
    noise = 100 * torch.finfo(dtype).eps * max(map(abs, values))
    assert [pair.residual for pair in (*found.lowest, *found.highest)] == pytest.approx(true.tolist(), abs=noise)


@pytest.mark.parametrize("dense", [True, False], ids=["exact", "lanczos"])
def test_gradient_and_layers(monkeypatch, dense):
    monkeypatch.setattr(room, "DENSE_UP_TO", 10_000 if dense else 0)
    problem = mlp()
    H, operator = brute_force_hessian(problem), hessdiag.HessianOperator(problem)
    g = operator.gradient()
    found = eigs(problem, lowest=2, highest=2, tol=1e-8)
    _, V = torch.linalg.eigh(H)
    assert found.gradient_norm == pytest.approx(float(g.norm()))
    assert found.gradient_curvature == pytest.approx(float(g @ H @ g / (g @ g)), rel=1e-9)
    assert found.layers == ("0", "2", "4")
    for pair, v in zip((*found.lowest, *found.highest), (V[:, 0], V[:, 1], V[:, -2], V[:, -1]), strict=True):
        assert pair.gradient_overlap == pytest.approx(float((g @ v / g.norm()).abs()), abs=1e-6)
        expected = [float(v[s.start : s.stop].square().sum()) for s in problem.layer_slices]
        assert pair.layer_weights == pytest.approx(expected, abs=1e-6)
    assert found.hvps == (problem.n_parameters if dense else pytest.approx(found.hvps))


def test_a_quadratic_of_many_copies_is_seen_through_the_default_block(iterative):
    """A linear layer under a squared loss has every eigenvalue once per output: the classic trap for Lanczos."""
    torch.manual_seed(0)
    x = torch.randn(40, 30, dtype=torch.float64) * torch.linspace(0.1, 2, 30)
    problem = Problem(nn.Linear(30, 6, bias=False).double(), data=[(x, torch.zeros(40, 6).double())], loss="mse")
    found = eigs(problem, lowest=0, highest=5)
    top = float(torch.linalg.eigvalsh(2 * x.T @ x / 40 / 6)[-1])
    assert [pair.eigenvalue for pair in found.highest] == pytest.approx([top] * 5, rel=1e-3)


@pytest.mark.parametrize(
    ("low", "certain", "sentence"),
    [
        (-1.0, True, "proven and strong"),
        (-1e-3, True, "slight"),
        (0.0, False, "positive semidefinite"),
        (0.5, False, "positive definite"),
    ],
)
def test_negative_curvature_is_certified_or_not(low, certain, sentence):
    values = torch.linspace(1, 3, 8, dtype=torch.float64)
    values[0] = low
    found = eigs(quadratic(torch.diag(values)), lowest=1, highest=1)
    assert found.negative_certificate.certain is certain
    assert found.negative_certificate.bound == pytest.approx(low, abs=1e-12)
    assert sentence in says(found)
    if certain:
        assert found.negative_certificate.bound >= low, "an upper bound of the lowest eigenvalue"


def test_nothing_is_proven_by_a_positive_ritz_value(iterative):
    torch.manual_seed(0)
    found = eigs(quadratic(torch.diag(torch.linspace(1, 3, 200, dtype=torch.float64))))
    assert not found.negative_certificate.certain
    assert "No negative curvature is proven" in says(found)


def test_a_residual_that_reaches_beyond_zero_proves_nothing():
    pairs = room.dense_eigenpairs(torch.diag(torch.tensor([-1e-3, 1.0, 2.0]).double()), lowest=1, highest=1)
    loose = dataclasses.replace(pairs, residuals=torch.tensor([1e-2, 0.0]).double())
    assert room._certificate(pairs).certain
    assert not room._certificate(loose).certain
    assert "reaches beyond zero" in room._certificate(loose).why


def test_a_run_that_does_not_converge_is_inexact_and_says_so(iterative):
    torch.manual_seed(0)
    A = torch.diag(torch.linspace(1, 2, 400, dtype=torch.float64))
    found = eigs(quadratic(A), max_products=40)
    assert found.status == "inexact"
    assert any(not pair.converged for pair in found.lowest)
    assert "have not converged" in says(found)
    assert "--max-products" in found.findings[0].remedy


def test_the_keyboard_keeps_what_was_found(iterative):
    A = torch.diag(torch.cat([torch.linspace(-1, 1, 395), torch.tensor([3.0, 4, 6, 8, 20])]).double())

    def stop(done, total, what):
        if done >= 3:
            raise KeyboardInterrupt

    found = eigs(quadratic(A), tol=1e-6, progress=stop)
    assert found.status == "interrupted"
    assert found.highest[-1].eigenvalue == pytest.approx(20, rel=1e-6)
    assert found.to_result()["largest"] == found.highest[-1].eigenvalue


def test_degenerate_problems_get_an_answer():
    flat = eigs(quadratic(torch.zeros(6, 6, dtype=torch.float64)))
    assert flat.inertia.zero == 6
    assert flat.largest_step is None
    assert "zero" in says(flat)
    single = eigs(quadratic(torch.full((1, 1), -2.0, dtype=torch.float64)))
    assert [pair.eigenvalue for pair in single.lowest] == [pair.eigenvalue for pair in single.highest] == [-2.0]
    assert single.largest_step is None
    at_rest = quadratic(torch.eye(4, dtype=torch.float64))
    nn.init.zeros_(at_rest.model.weight)
    still = eigs(at_rest)
    assert still.gradient_curvature is None
    assert still.highest[0].gradient_overlap is None
    assert "gradient is exactly zero" in says(still)


def test_the_document_is_plain_and_complete():
    problem = mlp()
    found = eigs(problem, lowest=2, highest=3)
    result = found.to_result()
    assert [set(pair) for pair in result["lowest"]] == [
        {"eigenvalue", "residual", "converged", "gradient_overlap", "layer_weights"}
    ] * 2
    assert {"lowest", "highest", "hvps", "inertia", "smallest", "largest"} <= set(result)
    assert "vectors" not in result
    assert len(result["spectrum"]) == problem.n_parameters
    assert found.vectors.shape == (problem.n_parameters, 5)
    assert eigs(problem, keep_vectors=False).vectors is None
    assert all(math.isfinite(pair["residual"]) for pair in result["highest"])


@pytest.mark.parametrize(
    "options",
    [{"lowest": 0, "highest": 0}, {"lowest": -1}, {"tol": 0.0}, {"tol": 2.0}, {"max_basis": 29}, {"max_products": 0}, {"block": 0}],
    ids=str,
)  # fmt: skip
def test_senseless_requests_are_refused_with_a_way_out(options):
    with pytest.raises(SpecError) as error:
        eigs(mlp(), **options)
    assert error.value.hint


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("dense", [True, False])
def test_numbers_scale_with_the_loss(size, dense, monkeypatch):
    def measured(size):
        problem = mlp(torch.float32)
        loss = nn.functional.cross_entropy
        scaled = Problem(problem.model, data=problem.data, loss=lambda output, target: size * loss(output, target))
        return eigs(scaled, lowest=1, highest=1)

    monkeypatch.setattr(room, "DENSE_UP_TO", 2_000 if dense else 0)
    plain, found = measured(1.0), measured(size)
    assert found.status == "ok"
    assert found.checks["hvp_symmetry"] > 0  # two norms that vanish would agree exactly
    assert found.gradient_norm == pytest.approx(size * plain.gradient_norm, rel=1e-5)
    assert found.gradient_curvature == pytest.approx(size * plain.gradient_curvature, rel=1e-5)
    assert found.highest[0].eigenvalue == pytest.approx(size * plain.highest[0].eigenvalue, rel=1e-5)
    assert found.highest[0].gradient_overlap == pytest.approx(plain.highest[0].gradient_overlap, rel=1e-3)


@pytest.mark.parametrize("size", [1e-160, 1e200])
@pytest.mark.parametrize("measure", [hessdiag.eigs, hessdiag.spectrum, hessdiag.bounds, hessdiag.blocks])
def test_sizes_that_cannot_be_squared_are_refused(size, measure):
    problem = mlp()
    objective = lambda model, batch: size * nn.functional.cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    with pytest.raises(ComputeError, match="beyond float64"):
        measure(Problem(problem.model, data=problem.data, objective=objective))
