"""What an interrupt leaves is true of what was measured, and says so; nothing is said of the rest."""

from dataclasses import replace

import pytest
import torch

from hessdiag.curvature import exact
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.linalg import quadrature
from hessdiag.machine import cost
from hessdiag.problem.problem import Problem
from hessdiag.questions import documents
from hessdiag.questions.bounds import measure as bounds_module
from hessdiag.questions.bounds.measure import bounds
from hessdiag.questions.bounds.verdict import findings
from hessdiag.questions.documents import loads
from hessdiag.questions.eigs import measure as eigs_module
from hessdiag.questions.eigs.measure import eigs
from hessdiag.questions.pages import render
from hessdiag.questions.spectrum import measure as spectrum_module
from hessdiag.questions.spectrum.measure import spectrum
from hessdiag.report.document import dumps


def problem(n=20):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(n, 12), torch.nn.Tanh(), torch.nn.Linear(12, 3)).double()
    x = torch.randn(16, n, dtype=torch.float64)
    return Problem(model, data=[(x, torch.randn(16, 3, dtype=torch.float64))], loss="mse")


@pytest.fixture(autouse=True)
def iterative(monkeypatch):
    monkeypatch.setattr(eigs_module, "DENSE_UP_TO", 50)
    monkeypatch.setattr(spectrum_module, "EXACT_UP_TO", 50)
    monkeypatch.setattr(bounds_module, "DENSE_UP_TO", 50)


def stopped(products, compute):
    def hear(ledger):
        if ledger.products >= products:
            ledger.listener = lambda ledger: None
            raise KeyboardInterrupt

    with cost.ledger(hear):
        return compute()


def rendered(found):
    """Every format takes the document, and it is read again."""
    doc = documents.document(found)
    return {form: render(loads(dumps(doc)), form) for form in ("text", "markdown", "html")}["text"]


@pytest.fixture(scope="module")
def values():
    from hessdiag.curvature.dense import hessian

    return torch.linalg.eigvalsh(hessian(problem())).tolist()


@pytest.mark.parametrize("products", [10, 30, 60])
def test_the_first_part_of_a_spectrum_leaves_bounds(products, values):
    found = stopped(products, lambda: spectrum(problem(), probes=4, steps=30))
    assert found.status == "interrupted"
    assert found.lowest >= values[0] - 1e-9
    assert found.highest <= values[-1] + 1e-9
    assert (found.trace, found.frobenius, found.density, found.negative_fraction, found.theory) == (None,) * 5
    if found.negative_certificate.certain:
        assert values[0] <= found.negative_certificate.bound + 1e-9
        assert found.negative_certificate.bound < 0
    assert "density, trace and norm are not measured" in rendered(found)


def test_one_probe_alone_leaves_no_density(monkeypatch):
    real = quadrature.spectral_density
    monkeypatch.setattr(quadrature, "spectral_density", lambda *a, **k: stopped(1, lambda: real(*a, **k)))
    found = spectrum(problem(), probes=4, steps=30)
    assert (found.status, found.density) == ("interrupted", None)
    assert all(outlier.converged for outlier in found.outliers)
    assert not found.highest_is_bound
    assert "not measured" in rendered(found)


def test_rows_that_are_missing_bound_nothing(monkeypatch):
    whole = bounds(problem())
    rows, calls = HessianOperator.rows, []

    def scarce(self, indices, layer=None):
        calls.append(indices)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return rows(self, indices, layer)

    def elsewhere(operator):
        raise NotInNeuronSpaceError("rows come from products")

    monkeypatch.setattr(exact, "neuron_space", elsewhere)

    monkeypatch.setattr(HessianOperator, "rows", scarce)
    found = bounds(problem())
    assert found.status == "interrupted"
    assert [getattr(found, name) for name in ("gershgorin", "brauer", "perron", "measured")] == [None] * 4
    assert found.inner[0] >= whole.measured[0] - 1e-6, "an eigenvalue is at or below it"
    assert found.inner[1] <= whole.measured[1] + 1e-6
    text = rendered(found)
    assert "interrupted before any bound was complete" in text
    assert "row sums" not in text
    large = replace(found, inner=(-464463.2, 95539.1))
    text = rendered(replace(large, findings=tuple(findings(large))))
    assert text.count("-464,463") == text.count("95,539") == 2, "in the fact and in the verdict"


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("spectrum", lambda: spectrum_module.unmeasured(problem(), "hessian")),
        ("bounds", lambda: bounds_module.unmeasured(problem())),
        ("eigs", lambda: eigs_module.unmeasured(problem(), 1e-3)),
    ],
)
def test_where_nothing_can_be_said_that_is_said(command, found):
    assert "nothing can be said" in rendered(found())


def test_without_images_the_pairs_and_their_residuals_are_the_same(monkeypatch):
    whole = eigs(problem(), lowest=2, highest=2)
    monkeypatch.setattr(eigs_module, "basis", lambda *args: bounds_module.Basis(40, False, {}))
    bare = eigs(problem(), lowest=2, highest=2)
    for pair, other in zip(whole.lowest + whole.highest, bare.lowest + bare.highest, strict=True):
        assert pair.eigenvalue == pytest.approx(other.eigenvalue, rel=1e-6)
        assert other.converged
    assert [layer for pair in bare.highest for layer in pair.layer_weights] == pytest.approx(
        [layer for pair in whole.highest for layer in pair.layer_weights], rel=1e-3, abs=1e-6
    )
    stops = stopped(25, lambda: eigs(problem(), lowest=2, highest=2))
    assert stops.status == "interrupted"
    H = problem()
    vectors = stops.vectors
    true = torch.linalg.vector_norm(
        HessianOperator(H, check=False) @ vectors
        - vectors * torch.tensor([pair.eigenvalue for pair in stops.lowest + stops.highest]),
        dim=0,
    )
    stated = torch.tensor([pair.residual for pair in stops.lowest + stops.highest]).double()
    torch.testing.assert_close(stated, true, rtol=1e-6, atol=1e-9)
