"""How diagonal the Hessian is, whole and by layers, of every architecture in the table."""

import pytest

import hessdiag
from tests.architectures import oracle
from tests.architectures.table import REGULAR


@pytest.mark.parametrize("name", REGULAR)
def test_diagonal_shares(name):
    case, H = oracle.built(name), oracle.hessian(name)
    problem = case.problem
    A = H.abs()
    room = 300 * case.allowed
    found = hessdiag.diag_share(problem)
    assert found.status == "ok"
    assert found.method == "exact"
    assert found.diag_share == pytest.approx(float(A.diagonal().sum() / A.sum()), rel=room)
    assert found.abs_diag_sum == pytest.approx(float(A.diagonal().sum()), rel=room)
    assert found.abs_sum == pytest.approx(float(A.sum()), rel=room)
    assert found.trace == pytest.approx(float(H.trace()), abs=room * float(A.diagonal().sum()))
    places = {layer.name: slice(layer.start, layer.stop) for layer in problem.layer_slices}
    assert {layer.name for layer in found.layers} == set(places)
    inside = 0.0
    for layer in found.layers:
        block = A[places[layer.name], places[layer.name]]
        inside += float(block.sum())
        assert layer.parameters == len(block)
        if block.sum() > 1e-6 * A.sum():
            share = float(block.diagonal().sum() / block.sum())
            assert layer.diag_share == pytest.approx(share, rel=room * float(A.sum() / block.sum()))
    assert found.layer_block_share == pytest.approx(inside / float(A.sum()), rel=room)
