"""Both ends of the spectrum, trace and norm, signs, and intervals that hold all eigenvalues."""

import pytest
import torch

import hessdiag
from tests.architectures import oracle
from tests.architectures.table import REGULAR


@pytest.mark.parametrize("name", REGULAR)
def test_eigenvalues(name):
    case, H = oracle.built(name), oracle.hessian(name)
    values = torch.linalg.eigvalsh(H)
    scale = float(values.abs().max())
    found = hessdiag.eigs(case.problem, lowest=2, highest=2)
    assert found.status == "ok"
    near = 10 * case.allowed * scale
    assert [pair.eigenvalue for pair in found.lowest] == pytest.approx(values[:2].tolist(), abs=near)
    assert [pair.eigenvalue for pair in found.highest] == pytest.approx(values[-2:].tolist(), abs=near)
    assert all(pair.converged and pair.residual <= near + 1e-3 * scale for pair in (*found.lowest, *found.highest))
    assert found.negative_certificate.certain == bool(values[0] < -100 * near)
    if found.inertia is not None:  # whatever is not within the oracle's error of zero
        assert found.inertia.positive >= int((values > max(near, found.inertia.tolerance)).sum())
        assert found.inertia.negative >= int((values < -max(near, found.inertia.tolerance)).sum())
    g = oracle.gradient(name)
    assert found.gradient_norm == pytest.approx(float(g.norm()), rel=1e-6)
    assert found.gradient_curvature == pytest.approx(float(g @ H @ g / (g @ g)), abs=near)


@pytest.mark.parametrize("name", REGULAR)
def test_spectrum(name):
    case, H = oracle.built(name), oracle.hessian(name)
    values = torch.linalg.eigvalsh(H)
    near = 10 * case.allowed * float(H.norm())
    found = hessdiag.spectrum(case.problem)
    assert found.status == "ok"
    assert found.trace == pytest.approx(float(H.trace()), abs=near)
    assert found.frobenius == pytest.approx(float(H.norm()), abs=near)
    assert (found.lowest, found.highest) == pytest.approx((float(values[0]), float(values[-1])), abs=near)
    assert found.negative_mass == pytest.approx(
        float(values.clamp(max=0).abs().sum() / values.abs().sum()), abs=10 * case.allowed * len(values)
    )
    moments = {moment.order: moment.value for moment in found.moments}
    for order, value in moments.items():
        truth = float((values**order).mean())
        assert value == pytest.approx(truth, abs=10 * order * case.allowed * float((values.abs() ** order).mean()))


@pytest.mark.parametrize("name", REGULAR)
def test_bounds(name):
    case, H = oracle.built(name), oracle.hessian(name)
    values = torch.linalg.eigvalsh(H)
    ends = float(values[0]), float(values[-1])
    near = 100 * case.allowed * float(H.norm())
    radii = H.abs().sum(1) - H.abs().diagonal()
    discs = float((H.diagonal() - radii).min()), float((H.diagonal() + radii).max())
    found = hessdiag.bounds(case.problem)
    assert found.status == "ok"
    assert found.gershgorin == pytest.approx(discs, abs=near)
    assert found.measured == pytest.approx(ends, abs=near + 2e-3 * float(values.abs().max()))
    for kind in ("gershgorin", "brauer", "perron", "block_norm", "feingold_varga", "frobenius"):
        low, high = getattr(found, kind)
        assert low <= ends[0] + near, kind
        assert high >= ends[1] - near, kind
    assert found.inner[0] >= ends[0] - near
    assert found.inner[1] <= ends[1] + near
    if found.negative_certificate.certain:
        assert ends[0] < near
    if found.components is not None:
        assert sum(component.count for component in found.components) == len(H)
        for component in found.components:
            low, high = component.interval
            assert int(((values >= low - near) & (values <= high + near)).sum()) >= component.count


@pytest.mark.parametrize("name", REGULAR[::2])
def test_eigenvalues_from_products_alone(name, monkeypatch):
    """As on a large network: no matrix is formed."""
    monkeypatch.setattr("hessdiag.questions.eigs.measure.DENSE_UP_TO", 0)
    case, H = oracle.built(name), oracle.hessian(name)
    values = torch.linalg.eigvalsh(H)
    scale = float(values.abs().max())
    found = hessdiag.eigs(case.problem, lowest=1, highest=2, tol=1e-6)
    assert found.status == "ok"
    assert found.method == "lanczos"
    near = (10 * case.allowed + 1e-6) * scale
    assert found.lowest[0].eigenvalue == pytest.approx(float(values[0]), abs=near)
    assert [pair.eigenvalue for pair in found.highest] == pytest.approx(values[-2:].tolist(), abs=near)
    assert found.negative_certificate.certain == bool(values[0] < -100 * near)
