"""Tables of which most rows are untouched, large enough for those to be left out, against the touched part alone."""

import pytest
import torch

import hessdiag
from tests.architectures import oracle, tables

READ_WHOLE = ("table_that_is_read_whole_besides", "table_with_decay", "table_that_is_also_the_head")
PARTLY = ("rows_that_are_computed_in_the_model", "rows_by_gather_and_index_select", "two_tables_and_a_padding_row")
ROWS = 1200


@pytest.fixture(autouse=True)
def _large(monkeypatch):
    monkeypatch.setattr(tables, "ROWS", ROWS)


def _touched_part(case):
    """The Hessian's rows and columns at which the gradient is not zero: all others vanish in these models."""
    parameters = list(case.model.parameters())
    with torch.enable_grad():
        parts = torch.autograd.grad(case.whole(case.model), parameters, create_graph=True)
    g = torch.cat([part.reshape(-1) for part in parts])
    places = g.detach().nonzero()[:, 0]
    rows = []
    for place in places:
        row = torch.autograd.grad(g[place], parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([part.reshape(-1) for part in row]))
    H = torch.stack(rows)
    assert float(H.abs().sum()) == pytest.approx(float(H[:, places].abs().sum()), rel=1e-14)
    return H[:, places], len(g)


@pytest.mark.parametrize("name", PARTLY)
def test_what_is_left_out_is_counted_and_changes_nothing(name):
    case = oracle.fresh(name)
    H, n = _touched_part(case)
    assert n > 2000 > 100 > len(H)
    values, size = torch.linalg.eigvalsh(H), float(H.norm())
    lowest, highest = min(float(values[0]), 0.0), float(values[-1])
    near = 1e-6 * size
    eigs = hessdiag.eigs(case.problem, lowest=1, highest=1, tol=1e-6)
    assert (eigs.status, eigs.parameters) == ("ok", n)
    assert n - len(H) - 8 <= eigs.zero_rows <= n - len(H)  # a padding row may stay in
    assert eigs.lowest[0].eigenvalue == pytest.approx(lowest, abs=near)
    assert eigs.highest[0].eigenvalue == pytest.approx(highest, abs=near)
    spectrum = hessdiag.spectrum(case.problem)
    assert (spectrum.status, spectrum.zero_rows) == ("ok", eigs.zero_rows)
    assert spectrum.trace == pytest.approx(float(H.trace()), abs=near)
    assert spectrum.frobenius == pytest.approx(size, rel=1e-6)
    assert spectrum.negative_fraction == pytest.approx(float((values < -1e-9 * size).sum()) / n, abs=1e-12)
    share = hessdiag.diag_share(case.problem, rows="all")
    assert share.diag_share == pytest.approx(float(H.diagonal().abs().sum() / H.abs().sum()), rel=1e-6)
    radii = H.abs().sum(1) - H.diagonal().abs()
    discs = min(float((H.diagonal() - radii).min()), 0.0), float((H.diagonal() + radii).max())
    assert hessdiag.bounds(case.problem).gershgorin == pytest.approx(discs, abs=10 * near)
    blocks = hessdiag.blocks(case.problem)
    assert blocks.norm == pytest.approx(size, rel=1e-6, abs=5 * (blocks.norm_stderr or 0.0))


@pytest.mark.parametrize("name", READ_WHOLE)
def test_nothing_is_left_out_where_every_row_is_read(name):
    case = oracle.fresh(name)
    assert hessdiag.eigs(case.problem, lowest=0, highest=1).zero_rows == 0
