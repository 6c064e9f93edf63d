import json

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.curvature.dense import hessian
from hessdiag.errors import ComputeError, SpecError
from hessdiag.linalg import densities, estimators
from hessdiag.problem.problem import Problem
from hessdiag.questions import documents
from hessdiag.questions.common.runs import outlay
from hessdiag.questions.documents import document
from hessdiag.questions.spectrum import measure as module
from hessdiag.questions.spectrum import sampled as sampling
from hessdiag.questions.spectrum.measure import spectrum
from hessdiag.questions.spectrum.verdict import findings
from hessdiag.questions.spectrum.view import view
from tests.reference import cosine_problem, net_a, quadratic


def _network(dtype=torch.float64, batches=1):
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)).to(dtype)
    data = [(torch.randn(24 - 4 * b, 8, dtype=dtype), torch.arange(24 - 4 * b) % 4) for b in range(batches)]
    return Problem(model, data=data, loss="ce")


@pytest.fixture
def sampled(monkeypatch):
    monkeypatch.setattr(module, "EXACT_UP_TO", 10)


@pytest.mark.parametrize(
    ("make", "trace", "norm", "ends", "inertia"),
    [
        (net_a, 27, None, (-14.1421, 40.7443), (2, 2, 2)),
        (lambda: cosine_problem([3, 4, 3, 2], 5, "relu"), 9.26641, 6.21955, (-0.560445, 5.29841), (11, 13, 6)),
        (lambda: cosine_problem([3, 4, 3, 2], 5, "linear"), 23.6765, 17.9359, (-2.10925, 15.5421), (12, 12, 6)),
        (lambda: cosine_problem([3, 4, 3, 2], 5, "tanh"), 5.94258, 4.80360, (-0.862935, 3.81253), None),
        (lambda: cosine_problem([3, 4, 3, 2], 5, "relu", classes=True), 2.62509, 1.79389, (-0.254711, 1.51206), None),
        (lambda: cosine_problem([2, 3, 3, 3, 1], 4, "relu"), 2.40309, 3.36025, (-0.660769, 3.15345), None),
    ],
    ids=["NET-A", "NET-B relu", "NET-B linear", "NET-B tanh", "NET-B ce", "NET-C"],
)
def test_known_networks(make, trace, norm, ends, inertia):
    found = spectrum(make())
    assert (found.method, found.status, found.trace_stderr) == ("exact", "ok", None)
    assert found.trace == pytest.approx(trace, rel=3e-6)
    assert (found.lowest, found.highest) == pytest.approx(ends, rel=6e-6)
    if norm is not None:
        assert found.frobenius == pytest.approx(norm, rel=3e-6)
    if inertia is not None:
        counts = found.inertia
        assert (counts.positive, counts.negative, counts.zero) == inertia
        assert found.negative_fraction == inertia[1] / found.parameters
    grid = np.array(found.density.grid)
    assert np.trapezoid(found.density.values, grid) == pytest.approx(1.0, abs=1e-4)
    values = np.array(found.eigenvalues)
    assert [moment.value for moment in found.moments] == pytest.approx([np.mean(values**p) for p in (1, 2, 3, 4)])


@pytest.mark.parametrize(("values", "condition"), [([-8.0, 0.0, 0.5, 2.0], 16.0), ([0.0, 0.0], None)])
def test_condition_leaves_out_what_is_zero(values, condition):
    assert spectrum(quadratic(torch.diag(torch.tensor(values, dtype=torch.float64)))).condition == condition


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batches", [1, 2])
def test_estimates_agree_with_exact_values_within_their_errors(sampled, batches, seed):
    torch.manual_seed(seed)
    problem = _network(batches=batches)
    values = np.linalg.eigvalsh(hessian(problem).numpy())
    found = spectrum(problem, probes=8, steps=40, seed=seed)
    assert (found.method, found.status, found.probes, found.steps) == ("slq", "ok", 8, 40)
    for estimate, stderr, truth in (
        (found.trace, found.trace_stderr, values.sum()),
        (found.frobenius, found.frobenius_stderr, np.linalg.norm(values)),
        (found.negative_mass, found.negative_mass_stderr, -values[values < 0].sum() / np.abs(values).sum()),
        *((moment.value, moment.stderr, np.mean(values**moment.order)) for moment in found.moments),
    ):
        assert abs(estimate - truth) < 5 * stderr
        assert stderr < 0.4 * max(abs(truth), 0.1)
    assert (found.negative_fraction_stderr, found.near_zero_fraction_stderr) == (None, None)
    assert found.negative_fraction_bounds == found.negative_fraction_interval
    for (low, high), truth in (
        (found.negative_fraction_interval, (values < 0).mean()),
        (found.near_zero_fraction_interval, (np.abs(values) < 0.01 * np.abs(values).max()).mean()),
    ):
        assert low <= truth <= high
    for estimate, stderr, (low, high) in (
        (found.trace, found.trace_stderr, found.trace_interval),
        (found.frobenius, found.frobenius_stderr, found.frobenius_interval),
        (found.negative_mass, found.negative_mass_stderr, found.negative_mass_interval),
    ):
        assert low < estimate < high
        assert high - low == pytest.approx(4 * stderr, rel=0.25)
    assert [outlier.eigenvalue for outlier in found.outliers] == pytest.approx([*values[:5], *values[-5:]], rel=1e-4)
    assert all(outlier.converged for outlier in found.outliers)
    assert (found.lowest, found.highest) == pytest.approx((values[0], values[-1]), rel=1e-4)
    truth = densities.gaussian(np.array(found.density.grid), values, found.density.width).mean(0)
    z = (np.array(found.density.values) - truth) / (np.array(found.density.stderr) + 1e-3 * truth.max())
    assert np.abs(z).max() < 6
    assert found.hvps >= 8 * 40 + 8 * 6


@pytest.mark.parametrize("name", ["ggn", "fisher"])
def test_gauss_newton_has_no_negative_part(sampled, monkeypatch, name):
    problem = _network()
    found = spectrum(problem, operator=name, steps=40)
    assert found.negative_fraction == found.negative_mass == 0
    assert found.negative_fraction_bounds == (0.0, 0.0)
    assert set(found.checks) == {"hvp_symmetry", "ggn_quadratic_form"}
    assert "positive semidefinite by construction" in " ".join(finding.says for finding in found.findings)
    monkeypatch.setattr(module, "EXACT_UP_TO", 1000)
    exact = spectrum(problem, operator=name)
    assert exact.inertia.negative == 0
    assert exact.inertia.zero >= problem.n_parameters - 24 * 3  # rank at most samples x (classes - 1)
    assert abs(found.trace - exact.trace) < 5 * found.trace_stderr
    assert abs(found.frobenius - exact.frobenius) < 5 * found.frobenius_stderr + 1e-9


def test_float32_agrees_with_float64(sampled):
    problem = _network(torch.float32)
    found = spectrum(problem, steps=40)
    double = Problem(problem.model.double(), data=[(x.double(), y) for x, y in problem.data], loss="ce")
    values = np.linalg.eigvalsh(hessian(double).numpy())
    assert (found.lowest, found.highest) == pytest.approx((values[0], values[-1]), rel=1e-4)
    assert found.status == "ok"


def test_outliers_that_random_vectors_would_miss_are_there(sampled):
    """One eigenvalue of 300, and far away: 2 probes and 5 steps."""
    values = torch.cat([torch.linspace(-1, 1, 299), torch.tensor([1e4])]).double()
    found = spectrum(quadratic(torch.diag(values)), probes=2, steps=5)
    assert found.highest == pytest.approx(1e4)
    assert found.density.width < 1.0
    assert found.frobenius == pytest.approx(float(values.norm()), rel=1e-3)
    assert any("stand out" in finding.says for finding in found.findings)


def test_same_seed_same_numbers(sampled):
    first, second = (spectrum(_fixed(), steps=20, seed=3) for _ in range(2))
    assert document(first)["result"] == document(second)["result"]
    assert spectrum(_fixed(), steps=20, seed=4).trace != first.trace


def _fixed():
    torch.manual_seed(0)
    return _network()


def test_convex_problem():
    x = torch.randn(50, 6).double()
    found = spectrum(Problem(nn.Linear(6, 1).double(), data=[(x, x[:, :1])], loss="mse"))
    assert found.inertia.positive == 7
    assert found.findings[0].level == "ok"
    assert "convex" in found.findings[0].says


def test_dead_network():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)).double()
    model[0].weight.data = -model[0].weight.data.abs()
    found = spectrum(Problem(model, data=[(torch.rand(5, 3).double(), torch.randn(5, 2).double())], loss="mse"))
    assert (found.frobenius, found.inertia.zero, found.findings[0].level) == (0.0, 20, "bad")
    assert documents.read(json.loads(found.to_json())) == found


def test_interrupt_after_the_density_keeps_it(sampled, monkeypatch):
    def stop(*_, **options):
        raise KeyboardInterrupt

    problem = _network()
    values = np.linalg.eigvalsh(hessian(problem).numpy())
    monkeypatch.setattr(estimators, "trace", stop)
    found = spectrum(problem, steps=40)
    assert found.status == "interrupted"
    assert abs(found.trace - values.sum()) < 5 * found.trace_stderr
    assert abs(found.frobenius - np.linalg.norm(values)) < 5 * found.frobenius_stderr


def test_an_end_that_is_not_found_is_inexact(sampled, monkeypatch):
    plain = sampling.extreme_eigenpairs

    def hurried(matrix, **options):
        return plain(matrix, **(options | {"max_products": 24}))

    monkeypatch.setattr(sampling, "extreme_eigenpairs", hurried)
    values = torch.linspace(-1, 1, 400).double() ** 3
    found = spectrum(quadratic(torch.diag(values)), probes=4, steps=100)
    assert any("did not converge" in finding.says for finding in found.findings)
    assert found.status == "inexact"


def test_memory_is_checked_first(sampled, monkeypatch):
    monkeypatch.setattr(outlay.Outlay, "room", 60)
    with pytest.raises(ComputeError, match="--steps 39"):
        spectrum(_network(), steps=60)
    assert spectrum(_network(), steps=39).probes == 10  # one at a time


def test_wrong_requests():
    with pytest.raises(SpecError, match="--probes"):
        spectrum(net_a(), probes=1)
    with pytest.raises(SpecError, match="--operator hessian"):
        spectrum(net_a(), operator="jacobian")
    with pytest.raises(SpecError, match="objective"):
        spectrum(quadratic(torch.eye(3).double()), operator="ggn")


def test_result_is_json(sampled):
    found = json.loads(spectrum(_network(), steps=20).to_json())["result"]
    assert {"trace", "trace_stderr", "frobenius", "frobenius_stderr", "density", "moments", "negative_fraction"} <= set(
        found
    )
    assert {"grid", "values", "stderr"} <= set(found["density"])


@pytest.mark.parametrize("operator", ["hessian", "ggn"])
@pytest.mark.parametrize("largest", [0, 1000])
def test_a_saved_result_reads_back_as_it_was_and_its_verdict_needs_no_more(monkeypatch, operator, largest):
    monkeypatch.setattr(module, "EXACT_UP_TO", largest)
    found = spectrum(_network(batches=2), operator=operator, probes=3, steps=20)
    again = documents.read(json.loads(found.to_json()))
    assert again == found
    assert tuple(findings(again)) == found.findings != ()


def test_ends_that_have_not_converged_are_bounds(sampled, monkeypatch):
    plain = sampling.extreme_eigenpairs
    monkeypatch.setattr(sampling, "extreme_eigenpairs", lambda matrix, **o: plain(matrix, **(o | {"max_products": 24})))
    values = torch.cat([torch.linspace(-2, -1, 200), torch.linspace(1, 4, 200)]).double()
    found = spectrum(quadratic(torch.diag(values)), probes=2, steps=20)
    assert (found.lowest_is_bound, found.highest_is_bound) == (True, True)
    assert -2 - 1e-9 <= found.lowest <= min(outlier.eigenvalue for outlier in found.outliers)
    assert 4 + 1e-9 >= found.highest >= max(outlier.eigenvalue for outlier in found.outliers)
    assert {outlier.bound for outlier in found.outliers if not outlier.converged} <= {"lower", "upper"}
    assert found.negative_certificate.certain
    assert -2 - 1e-9 <= found.negative_certificate.bound <= found.lowest + 1e-12
    assert "at or below" in " ".join(finding.because for finding in found.findings)
    assert view(found).headline[0].startswith("≤ -")
    assert "is the least that" in view(found).headline[1]


def test_random_vectors_do_not_prove_convexity(sampled):
    found = spectrum(quadratic(torch.diag(torch.linspace(1, 3, 300).double())), probes=4, steps=30)
    assert not found.negative_certificate.certain
    said = " ".join(finding.says for finding in found.findings)
    assert "No negative eigenvalue is proven" in said
    assert "convex" not in said


def test_nothing_is_proven_where_a_self_check_failed(monkeypatch):
    examine = module.examine
    failing = lambda *args, **kwargs: examine(*args, **kwargs).also({"hvp_symmetry": 0.3})  # noqa: E731
    monkeypatch.setattr(module, "examine", failing)
    for low in (-1.0, 1.0):
        found = spectrum(quadratic(torch.diag(torch.tensor([low, 2.0, 3.0]).double())))
        said = " ".join(finding.says for finding in found.findings)
        assert (found.status, found.negative_certificate.certain) == ("inexact", False)
        assert "indefinite" not in said
        assert "convex" not in said


def test_semicircle_by_hand():
    """Eigenvalues -1, 1, 3, 5: mean 2, mean square 9, so that their variance is 5 and the radius twice its root."""
    found = spectrum(quadratic(torch.diag(torch.tensor([-1.0, 1.0, 3.0, 5.0]).double()))).theory
    assert (found.semicircle_low, found.semicircle_high) == pytest.approx((2 - 2 * 5**0.5, 2 + 2 * 5**0.5))


@pytest.mark.parametrize("largest", [0.0, 1e-17])
def test_a_hessian_that_only_curves_down_is_not_compared_with_a_largest_eigenvalue_of_rounding(largest):
    found = spectrum(quadratic(torch.diag(torch.tensor([-3.0, -1.0, -1e-3, largest], dtype=torch.float64))))
    assert found.inertia.positive == 0
    (says,) = [finding.says for finding in found.findings if "curves down" in finding.says]
    assert says == "The Hessian curves down: 75.0 % of its eigenvalues are negative, and none is found to be positive."
