"""G = J'BJ of everything that the loss receives, and H = G + R in blocks, of every architecture with an output."""

import pytest
import torch

import hessdiag
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from tests.architectures import oracle
from tests.architectures.table import REGULAR

SPLIT = [name for name in REGULAR if oracle.built(name).received is not None]


def _norms(M, layers):
    return [[float(M[a.start : a.stop, b.start : b.stop].norm()) for b in layers] for a in layers]


@pytest.mark.parametrize("name", SPLIT)
def test_dense_gauss_newton(name):
    case, G = oracle.built(name), oracle.gauss_newton(name)
    operator = GaussNewtonOperator(case.problem)
    found = (operator @ torch.eye(len(G), dtype=operator.dtype)).cpu()
    assert float((found - G).norm()) <= case.allowed * float(oracle.hessian(name).norm())


@pytest.mark.parametrize("name", REGULAR)
def test_blocks(name):
    case, H = oracle.built(name), oracle.hessian(name)
    problem = case.problem
    layers = {layer.name: layer for layer in problem.layer_slices}
    found = hessdiag.blocks(problem)
    assert found.status == "ok"
    assert sorted(found.names) == sorted(layers)
    ordered = [layers[name] for name in found.names]
    room = 10 * case.allowed * float(H.norm())
    assert found.frobenius == tuple(pytest.approx(row, abs=room) for row in _norms(H, ordered))
    assert found.trace == pytest.approx(
        [float(H[a.start : a.stop, a.start : a.stop].trace()) for a in ordered], abs=room
    )
    if case.received is None:
        assert found.gauss_newton is None
        return
    G = oracle.gauss_newton(name)
    assert found.gauss_newton == tuple(pytest.approx(row, abs=room) for row in _norms(G, ordered))
    assert found.residual == tuple(pytest.approx(row, abs=room) for row in _norms(H - G, ordered))
    assert found.residual_share == pytest.approx(
        float((H - G).norm() ** 2 / (G.norm() ** 2 + (H - G).norm() ** 2)), abs=10 * case.allowed
    )


@pytest.mark.parametrize("name", SPLIT[::2])
def test_spectrum_of_gauss_newton(name):
    case, G = oracle.built(name), oracle.gauss_newton(name)
    values = torch.linalg.eigvalsh(G)
    room = 10 * case.allowed * float(oracle.hessian(name).norm())
    found = hessdiag.spectrum(case.problem, operator="ggn")
    assert found.status == "ok"
    assert found.trace == pytest.approx(float(values.sum()), abs=room)
    assert found.frobenius == pytest.approx(float(G.norm()), abs=room)
    assert found.lowest == pytest.approx(float(values[0]), abs=room)
    assert found.highest == pytest.approx(float(values[-1]), abs=room)
    says = " ".join(finding.says for finding in found.findings)
    if values[0] < -1e-6 * values.abs().max():
        assert "by construction" not in says
        assert found.inertia.negative > 0
