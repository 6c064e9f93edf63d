"""What an interrupt leaves of exact blocks is that of the layers that are done, and goes on from there."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.curvature import exact
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.errors import ComputeError
from hessdiag.machine import cost, memory
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import measure as module
from hessdiag.questions.blocks.measure import blocks
from hessdiag.questions.documents import document, loads
from hessdiag.questions.pages import render
from tests.interrupts import ends_after
from tests.reference import brute_force_hessian

MATRICES = ("frobenius", "gauss_newton", "residual")


def _problem(objective=False):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 3)
    ).double()
    x, y = torch.randn(5, 1, 6).double(), torch.arange(5) % 3
    if objective:
        return Problem(model, data=[(x, y)], objective=lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]))
    return Problem(model, data=[(x, y)], loss="ce")


def _rendered(found):
    """The document is valid, and every format takes it."""
    return {form: render(loads(found.to_json()), form) for form in ("text", "markdown", "html")}["text"]


def _without_space(monkeypatch):
    def elsewhere(*_):
        raise NotInNeuronSpaceError("columns come from products")

    monkeypatch.setattr(exact, "neuron_space", elsewhere)


@pytest.mark.parametrize("route", ["columns", "products", "pairs", "objective"])
def test_what_is_done_is_exact_and_the_rest_is_null(route, monkeypatch):
    problem = _problem(route == "objective")
    if route == "pairs":
        monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    if route == "products":
        _without_space(monkeypatch)
    whole, states = blocks(problem), set()
    lowest = float(torch.linalg.eigvalsh(brute_force_hessian(problem))[0])
    for calls in range(7):
        try:
            found = blocks(problem, progress=ends_after(calls))
        except KeyboardInterrupt:
            states.add(0)
            continue
        done = [trace is not None for trace in found.trace]
        if route == "columns" and sum(done) not in states:
            _rendered(found)
        states.add(sum(done))
        for name in MATRICES:
            if getattr(whole, name) is None:
                assert getattr(found, name) is None
                continue
            for i, j in np.ndindex(3, 3):
                value = getattr(found, name)[i][j]
                assert (value is not None) is (done[i] or done[j])
                assert value is None or value == pytest.approx(getattr(whole, name)[i][j], rel=1e-9, abs=1e-12)
        if all(done):
            continue
        assert found.status == "interrupted"
        assert (found.norm, found.between_layers, found.residual_share, found.eigenvalue_bounds) == (None,) * 4
        assert found.hvps < whole.hvps
        bound = found.negative_certificate.bound
        assert not found.negative_certificate.certain or lowest <= bound < 0
        least = math.sqrt(sum(v**2 for row in found.frobenius for v in row if v is not None))
        assert least <= whole.norm
        assert f"Interrupted after {sum(done)} of 3 layers" in found.findings[0].says
    assert states == {0, 1, 2, 3}


def test_before_the_first_layer_nothing_is_said():
    text = _rendered(module.unmeasured(_problem()))
    assert "nothing can be said" in text
    assert "exact" not in text
    assert "0 of 3 layers" in text


@pytest.mark.parametrize("route", ["columns", "products", "pairs"])
def test_layers_that_are_done_are_taken_up(route, tmp_path, monkeypatch):
    if route == "pairs":
        monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    if route == "products":
        _without_space(monkeypatch)
    whole, taken = blocks(_problem()), []
    for _ in range(2):
        try:
            taken.append(blocks(_problem(), resume=tmp_path, progress=ends_after(3)).resumed_pieces)
        except KeyboardInterrupt:
            taken.append(0)
    assert taken == sorted(taken)
    resumed = blocks(_problem(), resume=tmp_path)
    assert resumed.resumed_pieces >= 2
    assert document(resumed)["result"] == document(whole)["result"]


def test_a_layer_that_mixes_samples_only_there_is_measured_by_products(monkeypatch):
    """Neuron space is given up from the layer on in which it disagrees with products."""
    expected, real = blocks(_problem()), exact.layer_columns

    def refusing(operator, space, index):
        if index:
            raise NotInNeuronSpaceError("products differ")
        return real(operator, space, index)

    monkeypatch.setattr(exact, "layer_columns", refusing)
    np.testing.assert_allclose(blocks(_problem()).frobenius, expected.frobenius, rtol=1e-9)


def test_columns_that_disagree_with_products_are_refused(monkeypatch):
    from hessdiag.curvature.hessian import HessianOperator

    operator = HessianOperator(_problem(), check=False)
    space = exact.neuron_space(operator)
    assert exact.layer_columns(operator, space, 0).shape == (operator.shape[0], 36)
    space.cotangents[1].mul_(2)
    with pytest.raises(NotInNeuronSpaceError, match="products differ"):
        exact.layer_columns(operator, space, 0)


@pytest.mark.parametrize("probes", [None, 6])
def test_products_and_memory_are_planned(probes):
    with cost.ledger() as spent:
        blocks(_problem(), probes=probes)
    assert spent.plan.products[0] <= spent.products
    checks = 12  # products of the check of the point and of certificates
    assert spent.products <= spent.plan.products[1] + checks
    assert spent.plan.peak < spent.plan.available


def test_probes_that_memory_cannot_hold_are_refused_before_work(monkeypatch):
    with pytest.raises(ComputeError, match="random vectors per layer need") as refused:
        blocks(_problem(), probes=10**12, progress=ends_after(0))
    largest = int(refused.value.hint.removeprefix("--probes "))
    monkeypatch.setattr(memory, "free_bytes", lambda device=None: 10**9)
    with pytest.raises(ComputeError) as refused:
        blocks(_problem(), probes=10**9)
    assert int(refused.value.hint.removeprefix("--probes ")) < largest
