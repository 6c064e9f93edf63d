"""Both ends of the Hessian's spectrum: exact for small networks, Lanczos for others, and what is made of them."""

import json
import math

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.errors import ComputeError, SpecError
from hessdiag.problem.problem import Problem
from hessdiag.questions.documents import document, read
from hessdiag.questions.eigs import measure as room
from hessdiag.questions.eigs.measure import eigs
from hessdiag.questions.eigs.view import view
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


def test_a_direction_of_descending_slope_proves_negative_curvature_whichever_end_was_asked_for(iterative):
    """The gradient is the eigenvector of the negative eigenvalue: g'Hg < 0 with no pair asked for below."""
    values = torch.cat([torch.tensor([-0.25]), torch.linspace(1, 3, 149)]).double()
    problem = quadratic(torch.diag(values))
    nn.init.zeros_(problem.model.weight)
    with torch.no_grad():
        problem.model.weight.view(-1)[0] = 2.0
    found = eigs(problem, lowest=0, highest=1)
    assert found.gradient_curvature == pytest.approx(-0.25, rel=1e-6)
    assert found.negative_certificate.certain
    assert -0.25 * (1 + 1e-5) <= found.negative_certificate.bound < 0
    assert "Negative curvature is proven" in says(found)


def test_ritz_values_below_prove_it_although_only_the_upper_end_was_asked_for(iterative):
    """Half of the spectrum is negative, and the gradient points up: the random start is proof enough."""
    A = torch.diag(torch.cat([torch.linspace(-1, -0.5, 100), torch.linspace(0.5, 1, 99), torch.tensor([5.0])]).double())
    problem = quadratic(A)
    with torch.no_grad():
        problem.model.weight.zero_().view(-1)[-1] = 1.0
    found = eigs(problem, lowest=0, highest=1)
    assert found.gradient_curvature == pytest.approx(5, rel=1e-9)
    assert found.negative_certificate.certain
    assert -1 - 1e-9 <= found.negative_certificate.bound < -0.5
    assert not found.lowest


def test_rounding_of_a_semidefinite_matrix_proves_nothing(iterative):
    """X'X of rank 5 in float32: products with null vectors are noise of either sign."""
    torch.manual_seed(0)
    for seed in range(5):
        X = torch.randn(5, 120, generator=torch.Generator().manual_seed(seed))
        found = eigs(Problem(nn.Linear(120, 1, bias=False), data=[(X, torch.randn(5, 1))], loss="mse"), lowest=3)
        assert not found.negative_certificate.certain
        assert "positive semidefinite" not in says(found), "which only all eigenvalues prove"


def test_nothing_is_proven_where_a_self_check_failed(monkeypatch):
    examine = room.examine
    failing = lambda *args, **kwargs: examine(*args, **kwargs).also({"hvp_symmetry": 0.3})  # noqa: E731
    monkeypatch.setattr(room, "examine", failing)
    values = torch.linspace(1, 3, 8, dtype=torch.float64)
    for low in (-1.0, 0.5):
        values[0] = low
        found = eigs(quadratic(torch.diag(values)), lowest=1, highest=1)
        assert (found.status, found.negative_certificate.certain, found.negative_certificate.bound) == (
            "inexact",
            False,
            None,
        )
        assert "self-check" in found.negative_certificate.why
        assert "is proven" not in says(found).replace("No negative curvature is proven", "")
        assert "definite" not in says(found)


def test_a_negative_spectrum_is_not_called_zero_for_its_upper_end(iterative):
    A = torch.zeros(200, 200, dtype=torch.float64)
    A[0, 0] = -3.0
    found = eigs(quadratic(A), lowest=0, highest=2)
    assert [pair.eigenvalue for pair in found.highest] == pytest.approx([0, 0], abs=1e-12)
    assert "The Hessian is zero" not in says(found)
    assert found.negative_certificate.bound == pytest.approx(-3, rel=1e-9)


def test_a_run_that_does_not_converge_is_inexact_and_says_so(iterative):
    torch.manual_seed(0)
    A = torch.diag(torch.linspace(1, 2, 400, dtype=torch.float64))
    found = eigs(quadratic(A), max_products=40)
    assert found.status == "inexact"
    assert any(not pair.converged for pair in found.lowest)
    assert "have not converged" in says(found)
    assert "--max-products" in found.findings[0].remedy


def _interlaced(found, values):
    """The k-th Ritz value from either end is a bound of the k-th eigenvalue, and says which."""
    for rank, pair in enumerate(found.lowest):
        assert pair.bound == (None if pair.converged else "upper")
        assert pair.eigenvalue >= values[rank] - 1e-12
    for rank, pair in enumerate(reversed(found.highest)):
        assert pair.bound == (None if pair.converged else "lower")
        assert pair.eigenvalue <= values[-1 - rank] + 1e-12


@pytest.mark.parametrize("interrupted", [False, True], ids=["max products", "interrupted"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_has_not_converged_is_a_bound_in_every_sentence(iterative, interrupted, seed):
    values = torch.cat([torch.linspace(-2, -1, 200), torch.linspace(1, 4, 200)]).double()

    def stop(done, total, what):
        if done and interrupted:
            raise KeyboardInterrupt

    found = eigs(quadratic(torch.diag(values)), lowest=2, highest=2, max_products=30, seed=seed, progress=stop)
    assert found.status == ("interrupted" if interrupted else "inexact")
    _interlaced(found, values.tolist())
    assert not found.lowest[0].converged
    assert not found.highest[-1].converged
    assert (found.smallest_is_bound, found.largest_is_bound, found.largest_step_is_bound) == (True,) * 3
    assert found.largest_step >= 2 / float(values[-1])
    assert "may be lower" in says(found)
    assert "stable here only" not in says(found)
    assert "at or below" in says(found)
    assert float(values[0]) <= found.negative_certificate.bound <= found.lowest[0].eigenvalue + 1e-12
    page = view(found)
    assert page.headline[0].startswith("≤ -")
    assert " to ≥ " in page.headline[0]
    assert "not converged" in page.headline[1]
    step = next(fact for fact in page.facts if fact.name == "largest stable step")
    assert step.value.startswith("≤ ")


def test_converged_pairs_are_no_bounds(iterative):
    found = eigs(mlp(), lowest=2, highest=2)
    assert {pair.bound for pair in found.lowest + found.highest} == {None}
    assert not found.smallest_is_bound
    assert not found.largest_is_bound
    assert not found.largest_step_is_bound


def test_the_keyboard_keeps_what_was_found(iterative):
    A = torch.diag(torch.cat([torch.linspace(-1, 1, 395), torch.tensor([3.0, 4, 6, 8, 20])]).double())

    def stop(done, total, what):
        if done >= 3:
            raise KeyboardInterrupt

    found = eigs(quadratic(A), tol=1e-6, progress=stop)
    assert found.status == "interrupted"
    assert found.highest[-1].eigenvalue == pytest.approx(20, rel=1e-6)
    assert found.largest == found.highest[-1].eigenvalue


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
    result = document(found)["result"]
    assert [set(pair) for pair in result["lowest"]] == [
        {"eigenvalue", "residual", "converged", "bound", "gradient_overlap", "layer_weights"}
    ] * 2
    assert {"lowest", "highest", "hvps", "inertia", "smallest", "largest"} <= set(result)
    assert "vectors" not in result
    assert len(result["spectrum"]) == problem.n_parameters
    assert found.vectors.shape == (problem.n_parameters, 5)
    assert eigs(problem, keep_vectors=False).vectors is None
    again = read(json.loads(found.to_json()))
    assert again == found
    assert again.vectors is None
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
    assert found.checks["hvp_finite_difference"] > 0  # two norms that vanish would agree exactly
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
