import json

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.curvature.dense import hessian
from hessdiag.numbers import number
from hessdiag.problem.problem import Problem
from hessdiag.questions.bounds import measure as module
from hessdiag.questions.bounds import rows as bounds_rows
from hessdiag.questions.bounds.measure import bounds
from hessdiag.questions.bounds.view import view
from hessdiag.questions.common.certificate import share_witness
from tests.curvature.test_hessian import CASES
from tests.reference import cosine_problem, net_a, quadratic

MAT_1 = torch.tensor([[4, 1, 0, -0.5], [1, -2, 0.3, 0], [0, 0.3, 1, 0.2], [-0.5, 0, 0.2, 7]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "gershgorin", "brauer", "perron", "measured"),
    [
        (net_a, (-32, 64), (-30.1814, 47.1814), (-25.0998, 40.7443), (-14.1421, 40.7443)),
        (lambda: quadratic(MAT_1), (-3.3, 7.7), (-2.30908, 7.31659), (-2.19082, 7.09082), (-2.19018, 7.09011)),
        (
            lambda: cosine_problem([3, 4, 3, 2], 5, "relu"),
            (-6.13733, 7.68432),
            (-6.07617, 7.55237),
            (-4.43421, 5.68097),
            (-0.560445, 5.29841),
        ),
    ],
    ids=["NET-A", "MAT-1", "NET-B relu"],
)
def test_known_networks(make, gershgorin, brauer, perron, measured):
    found = bounds(make())
    assert (found.method, found.status, found.relative_stderr) == ("exact", "ok", None)
    assert found.gershgorin == pytest.approx(gershgorin, rel=3e-6)
    assert found.brauer == pytest.approx(brauer, rel=3e-6)
    assert found.perron == pytest.approx(perron, rel=3e-6)
    assert found.measured == pytest.approx(measured, rel=3e-6)


def test_separate_discs_count_eigenvalues():
    found = bounds(quadratic(MAT_1))
    assert [component.count for component in found.components] == [1, 1, 1, 1]
    assert found.components[0].interval == pytest.approx((-3.3, -0.7))
    assert "4 separate groups" in " ".join(finding.says for finding in found.findings)


def _all_bounds(found):
    return [
        getattr(found, name) for name in ("gershgorin", "brauer", "perron", "block_norm", "feingold_varga", "frobenius")
    ]


@pytest.mark.parametrize(
    "name", ["mlp, cross-entropy", "several batches of unequal size", "attention", "tied and unreached", "some layers"]
)
def test_every_bound_holds(name):
    problem = CASES[name]()
    values = torch.linalg.eigvalsh(hessian(problem).double())
    found = bounds(problem)
    slack = 1e-6 * float(values.abs().max())
    for low, high in _all_bounds(found):
        assert low - slack <= float(values[0])
        assert float(values[-1]) <= high + slack
    assert float(values[0]) - slack <= found.inner[0]
    assert found.inner[1] <= float(values[-1]) + slack
    assert found.measured == pytest.approx((float(values[0]), float(values[-1])), rel=1e-3, abs=slack)


def _network():
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)).double()
    return Problem(model, data=[(torch.randn(24, 8).double(), torch.arange(24) % 4)], loss="ce")


def _convolution():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 4)).double()
    return Problem(model, data=[(torch.randn(6, 1, 6, 6).double(), torch.arange(6) % 4)], loss="ce")


@pytest.mark.parametrize("make", [_network, _convolution, CASES["batch norm, train mode"]])
def test_streamed_rows_give_what_the_matrix_gives(monkeypatch, make):
    problem = make()
    whole = bounds(problem)
    monkeypatch.setattr(module, "DENSE_UP_TO", 1)
    streamed = bounds(problem)
    assert streamed.method == "exact"
    assert streamed.perron is streamed.block_norm is streamed.inner is None
    assert streamed.gershgorin == pytest.approx(whole.gershgorin, rel=1e-9)
    assert streamed.brauer == pytest.approx(whole.brauer, rel=1e-9)
    assert len(streamed.components) == len(whole.components)
    assert streamed.measured == pytest.approx(whole.measured, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_sketch_finds_the_rows_that_matter(monkeypatch, seed):
    torch.manual_seed(seed)
    problem = _network()
    whole = bounds(problem)
    monkeypatch.setattr(module, "DENSE_UP_TO", 1)
    monkeypatch.setattr(module, "EXACT_UP_TO", 1)
    found = bounds(problem, seed=seed)
    assert (found.method, found.components, found.perron) == ("sketch", None, None)
    assert found.relative_stderr == pytest.approx(np.pi / 2 / 8, rel=0.02)
    assert found.gershgorin == pytest.approx(whole.gershgorin, rel=3 * found.relative_stderr)
    assert found.brauer == pytest.approx(whole.brauer, rel=3 * found.relative_stderr)
    assert found.hvps >= bounds_rows.SKETCHES + bounds_rows.REFINED
    assert "estimates" in " ".join(finding.says for finding in found.findings)


@pytest.mark.parametrize(
    ("A", "certain", "why"),
    [
        (torch.diag(torch.tensor([1.0, -1e-3])), True, "diagonal has the entry"),
        (torch.tensor([[0.1, 1.0], [1.0, 0.1]]), True, "below 1/N"),
        (torch.tensor([[2.0, 0.0, 1.5], [0.0, 2.0, 1.5], [1.5, 1.5, 2.0]]), True, "blocks prove"),
        (torch.tensor([[2.0, 1.0], [1.0, 2.0]]), False, "exclude it"),
        (torch.ones(4, 4), False, "neither"),
    ],
)
def test_negative_curvature_is_proven_by_the_cheapest_means(A, certain, why):
    found = bounds(quadratic(A.double())).negative_certificate
    assert found.certain is certain
    assert why in found.why
    lowest = float(torch.linalg.eigvalsh(A.double())[0])
    assert found.certain is (lowest < -1e-9)
    assert found.bound >= lowest - 1e-12
    assert (found.bound < 0) is found.certain or abs(found.bound) < 1e-12


def test_a_ritz_value_proves_what_row_sums_cannot(monkeypatch):
    monkeypatch.setattr(module, "DENSE_UP_TO", 1)
    A = torch.tensor([[2.0, 0.0, 1.5], [0.0, 2.0, 1.5], [1.5, 1.5, 2.0]]).double()
    found = bounds(quadratic(A)).negative_certificate
    assert found.certain
    assert "Ritz value" in found.why


def test_a_zero_hessian():
    found = bounds(quadratic(torch.zeros(3, 3).double()))
    assert found.gershgorin == found.brauer == (0.0, 0.0)
    assert not found.negative_certificate.certain
    assert any(finding.level == "bad" for finding in found.findings)


def test_interrupt_keeps_the_bounds(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "extreme_eigenpairs", stop)
    found = bounds(net_a())
    assert (found.status, found.measured) == ("interrupted", None)
    assert found.gershgorin == pytest.approx((-32, 64))


def test_a_measured_value_outside_of_a_bound_is_a_contradiction(monkeypatch):
    monkeypatch.setattr(module.inclusion, "brauer", lambda diagonal, radii: (-1.0, 1.0))
    found = bounds(net_a())
    assert found.status == "inexact"
    assert "Brauer" in found.findings[0].says


def test_result_is_json():
    found = json.loads(bounds(_network()).to_json())["result"]
    keys = {"gershgorin", "brauer", "perron", "block_norm", "measured", "method", "components", "negative_certificate"}
    assert keys <= set(found)
    assert set(found["negative_certificate"]) == {"certain", "bound", "why"}


def test_spans_in_the_verdict_are_those_of_the_table():
    """An interval that holds all eigenvalues is never narrower than their span, even where zero lies outside."""
    torch.manual_seed(0)
    x = torch.randn(32, 5, dtype=torch.float64)
    found = bounds(Problem(nn.Linear(5, 1).double(), data=[(x, x[:, :1])], loss="mse"))
    discs = (found.gershgorin[1] - found.gershgorin[0]) / (found.measured[1] - found.measured[0])
    said = next(finding for finding in found.findings if "discs span" in finding.says)
    assert found.measured[0] > 0.1
    assert f" {number(discs)} times" in said.says
    assert ": 1.00 times the measured span" in said.because


def test_a_multiple_of_the_identity_has_no_span_to_compare_with():
    found = bounds(quadratic(2 * torch.eye(4, dtype=torch.float64)))
    assert not any("span" in finding.says for finding in found.findings)


def test_extremes_that_have_not_converged_are_bounds(monkeypatch):
    plain = module.extreme_eigenpairs
    monkeypatch.setattr(module, "extreme_eigenpairs", lambda matrix, **o: plain(matrix, **(o | {"max_products": 16})))
    values = torch.cat([torch.linspace(-2, -1, 100), torch.linspace(1, 4, 100)]).double()
    problem = quadratic(torch.diag(values))
    found = bounds(problem)
    assert found.status == "inexact"
    assert found.measured_converged == (False, False)
    assert -2 < found.measured[0] < found.measured[1] < 4
    said = " ".join(finding.says for finding in found.findings)
    assert "at least that far" in said
    assert "span at most" in said
    unfinished = next(finding for finding in found.findings if "at least that far" in finding.says)
    assert f"gives up after {found.hvps} products" in unfinished.because
    assert f"--max-products {4 * found.hvps}" in unfinished.remedy
    page = view(found)
    assert "measured: ≤ -" in page.headline[1]
    assert page.blocks[0].table.rows[0][2].startswith("≤ -")
    assert page.blocks[0].table.rows[0][3].startswith("≥ ")
    assert page.blocks[0].table.rows[0][4] == "≤ ×1.00"


def test_nothing_is_proven_where_a_self_check_failed(monkeypatch):
    examine = module.examine
    failing = lambda *args, **kwargs: examine(*args, **kwargs).also({"hvp_symmetry": 0.3})  # noqa: E731
    monkeypatch.setattr(module, "examine", failing)
    for A in (torch.diag(torch.tensor([1.0, -1.0])), torch.tensor([[2.0, 1.0], [1.0, 2.0]])):
        found = bounds(quadratic(A.double()))
        assert (found.status, found.negative_certificate.certain) == ("inexact", False)
        assert "self-check" in found.negative_certificate.why
        assert not any("certain" in finding.says for finding in found.findings)


@pytest.mark.parametrize("seed", range(20))
def test_the_share_proves_no_more_than_is_true(seed):
    """For matrices of any signature: what the share says is at or above the lowest eigenvalue."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(2, 9))
    A = generator.normal(size=(n, n)) * generator.choice([0.1, 1, 10])
    A = A + A.T + np.diag(generator.normal(size=n) * generator.choice([0, 1, 30]))
    witness = share_witness(n, float(np.trace(A)), float(np.abs(A).sum()))
    assert witness.value >= np.linalg.eigvalsh(A)[0] - 1e-12
    hollow = np.ones((n, n)) - np.eye(n)  # lowest eigenvalue -1, and the bound is sharp
    assert share_witness(n, 0.0, float(hollow.sum())).value == pytest.approx(-1)
