"""What an interrupt leaves of `bounds`: rows that are done prove something, and bound nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.curvature import exact
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.linalg import inclusion
from hessdiag.problem.problem import Problem
from hessdiag.questions.bounds import measure as module
from hessdiag.questions.bounds import rows as bounds_rows
from hessdiag.questions.bounds.measure import bounds
from hessdiag.questions.documents import loads
from hessdiag.questions.pages import render
from tests.interrupts import ends_after
from tests.reference import brute_force_hessian


def _problem():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 4)).double()
    return Problem(model, data=[(torch.randn(7, 5).double(), torch.arange(7) % 4)], loss="ce")


def _text(found):
    return {form: render(loads(found.to_json()), form) for form in ("text", "markdown", "html")}["text"]


@pytest.fixture(params=["whole, neurons", "whole, products", "streamed, neurons", "streamed, products"])
def route(request, monkeypatch):
    """All ways to every row, in small steps."""
    monkeypatch.setattr("hessdiag.curvature.neuron_space.TANGENT_NUMBERS", 1)
    monkeypatch.setattr("hessdiag.machine.memory.LARGEST_CHUNK", 8)
    monkeypatch.setattr(bounds_rows, "ROWS_TOGETHER", 8)
    if request.param.startswith("streamed"):
        monkeypatch.setattr(module, "DENSE_UP_TO", 10)
    if request.param.endswith("products"):

        def elsewhere(*_):
            raise NotInNeuronSpaceError("rows come from products")

        monkeypatch.setattr(exact, "_certified", elsewhere)


def test_discs_of_the_rows_that_are_done_hold_eigenvalues(route):
    problem = _problem()
    H = brute_force_hessian(problem)
    values, n = torch.linalg.eigvalsh(H).numpy(), len(H)
    diagonal, radii = inclusion.radii(H)
    hulls = [inclusion.discs(diagonal[[i]], radii[[i]]) for i in range(n)]
    seen = set()
    for calls in range(1, 12):
        try:
            found = bounds(problem, progress=ends_after(calls))
        except KeyboardInterrupt:
            seen.add(0)
            continue
        if found.gershgorin is not None:
            assert (found.rows, found.known_discs) == (n, None)
            assert found.gershgorin == pytest.approx(inclusion.discs(diagonal, radii))
            break
        assert (found.status, found.components, found.measured, found.brauer) == ("interrupted", None, None, None)
        assert 0 < found.rows < n
        low, high = found.known_discs
        assert sum(low - 1e-9 <= a and b <= high + 1e-9 for a, b in hulls) >= found.rows
        assert ((values >= low - 1e-9) & (values <= high + 1e-9)).any()
        assert values[0] <= found.inner[0] + 1e-9
        assert found.inner[1] <= values[-1] + 1e-9
        assert not found.negative_certificate.certain or values[0] <= found.negative_certificate.bound + 1e-9
        if found.rows not in seen and len(seen) < 2:
            text = _text(found)
            assert f"Interrupted after {found.rows} of {n} rows" in " ".join(text.split())
            assert "each holds an eigenvalue" in text
        seen.add(found.rows)
    assert len(seen - {0}) > 2


def test_a_disc_that_is_done_holds_an_eigenvalue_for_any_symmetric_matrix():
    """The claim itself: |lambda - a_i| is at most |A e_i - a_i e_i|, which the radius bounds."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        A = rng.normal(size=(6, 6)) * np.exp(rng.normal(size=6))
        A = A + A.T
        values = np.linalg.eigvalsh(A)
        diagonal, radii = inclusion.radii(torch.from_numpy(A))
        assert (np.abs(values[None] - diagonal[:, None]).min(1) <= radii + 1e-9).all()


def test_rows_of_a_neuron_space_that_is_wrong_are_not_believed(monkeypatch):
    """An interrupt comes before the whole matrix is held against products: then the rows are."""
    monkeypatch.setattr("hessdiag.curvature.neuron_space.TANGENT_NUMBERS", 1)
    real = exact.NeuronSpace.panels_of

    def wrong(self, *args):
        for panel in real(self, *args):
            panel.block.mul_(1.01)
            yield panel

    monkeypatch.setattr(exact.NeuronSpace, "panels_of", wrong)
    with pytest.raises(KeyboardInterrupt):
        bounds(_problem(), progress=ends_after(5))


def test_an_interrupt_while_bounds_are_tightened_keeps_the_discs(monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    whole = bounds(_problem())
    monkeypatch.setattr(module.inclusion, "perron", stopped)
    found = bounds(_problem())
    assert (found.status, found.gershgorin, found.brauer) == ("interrupted", whole.gershgorin, whole.brauer)
    assert (found.perron, found.measured) == (None, whole.measured)
    _text(found)


def test_all_rows_are_counted_where_there_is_no_interrupt(monkeypatch):
    n = _problem().n_parameters
    found = bounds(_problem())
    assert (found.rows, found.known_discs) == (n, None)
    monkeypatch.setattr(module, "DENSE_UP_TO", 10)
    assert bounds(_problem()).rows == n
    monkeypatch.setattr(module, "EXACT_UP_TO", 20)
    monkeypatch.setattr(bounds_rows, "REFINED", 7)
    assert bounds(_problem()).rows == 7


def test_rows_are_handed_over_once_they_are_whole():
    problem = _problem()
    H, rows = brute_force_hessian(problem), {}

    def finished(numbers, block):
        rows.update(zip(numbers.tolist(), block.clone(), strict=True))

    exact.dense(HessianOperator(problem, check=False), finished)
    torch.testing.assert_close(torch.stack([rows[i] for i in range(len(H))]), H, rtol=1e-9, atol=1e-12)
