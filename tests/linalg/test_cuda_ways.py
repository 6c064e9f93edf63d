"""The ways of a GPU, on a CPU: block Lanczos by matrix products and Cholesky factors, and fewer looks at the device."""

import pytest
import torch

from hessdiag.linalg import inclusion
from hessdiag.linalg.block_step import block_step
from hessdiag.linalg.eigenpairs import ROUNDING
from hessdiag.linalg.eigensolver import extreme_eigenpairs
from hessdiag.linalg.krylov import KrylovSpace
from hessdiag.linalg.tridiagonal import orthogonalize
from hessdiag.machine import capacity
from tests.linalg.test_eigensolver import SPECTRA, expected
from tests.linalg.test_lanczos import rotated


@pytest.fixture
def ways(monkeypatch):
    monkeypatch.setattr(capacity, "CPU", capacity.CUDA)


def orthonormal(rows, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, rows, generator=generator, dtype=torch.float64))[0].T


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", SPECTRA)
def test_prescribed_spectra(ways, name, dtype):
    A = rotated(SPECTRA[name], dtype)
    pairs = extreme_eigenpairs(A, lowest=5, highest=5)
    true = expected(torch.linalg.eigvalsh(A.double()))
    norm, eps = float(SPECTRA[name].abs().max()), torch.finfo(dtype).eps
    assert pairs.converged.all()
    allowed = (1e-3 * true.abs()).clamp(min=1.1 * ROUNDING * eps * norm)
    assert ((pairs.values - true).abs() <= allowed).all(), (pairs.values, true)
    V = pairs.vectors.double()
    residuals = (A.double() @ V - V * pairs.values).norm(dim=0)
    assert ((residuals - pairs.residuals).abs() <= 10 * eps * norm).all()
    assert float((V.T @ V - torch.eye(10)).abs().max()) < (1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_whole_basis_is_orthonormal_and_the_relation_holds(ways, dtype):
    A = rotated(torch.linspace(-1, 3, 300).pow(3), dtype)
    space = KrylovSpace(A, capacity=120, block=3, widest=3, seed=0)
    while space.grow():
        pass
    Q, eps = space._basis[: space.size + 3].double(), torch.finfo(dtype).eps
    assert float((Q @ Q.T - torch.eye(len(Q))).abs().max()) < 10 * eps
    images = Q[: space.size] @ A.double()
    images -= space._projected[: space.size, : space.size] @ Q[: space.size]
    images[-3:] -= space._coupling @ Q[space.size :]
    assert float(images.abs().max()) < 300 * eps


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
@pytest.mark.parametrize("apart", [1.0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_a_step_is_that_of_reflections(dtype, apart, scale):
    n, basis = 500, orthonormal(12, 500)
    rows = torch.randn(3, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows[1] = rows[0] + apart * rows[1]
    images = (scale * (rows + 5 * basis[-3:] + basis[-5:-2])).to(dtype)
    eps = torch.finfo(dtype).eps
    remainder = images.clone()
    step = block_step(remainder, basis.to(dtype), near=6)
    expected, coefficients = orthogonalize(images, basis.to(dtype), near=6)
    triangle = torch.linalg.qr(expected.double().T / scale)[1]
    triangle *= triangle.diagonal().sign()[:, None]
    torch.testing.assert_close(step.coefficients, coefficients.double(), rtol=1e3 * eps, atol=1e3 * eps * scale)
    torch.testing.assert_close(step.coupling / scale, triangle.T, rtol=1e3 * eps, atol=1e3 * eps)
    torch.testing.assert_close(step.coupling.to(dtype) @ step.rows, remainder, rtol=0, atol=100 * eps * scale)
    Q = step.rows.double()
    assert float((Q @ Q.T - torch.eye(3)).abs().max()) < 20 * eps
    assert step.largest == pytest.approx(float(images.double().norm(dim=1).max()), rel=10 * eps)


def test_dependent_and_vanishing_rows_are_told():
    basis = orthonormal(4, 50)
    row = torch.randn(1, 50, dtype=torch.float64)
    for images in (row.repeat(2, 1), torch.cat([row, torch.zeros_like(row)])):
        diagonal = block_step(images, basis, near=2).coupling.diagonal()
        assert not bool((diagonal > 1e-7 * row.norm()).all())  # NaN, or what rounding left


def test_what_the_first_pass_was_not_shown_takes_a_third():
    basis = orthonormal(10, 200)
    images = 1e6 * basis[:2] + torch.randn(2, 200, dtype=torch.float64)
    step = block_step(images, basis, near=2)
    assert float((step.rows @ basis.T).abs().max()) < 1e-14


def test_perron_with_fewer_looks_is_as_tight(monkeypatch):
    A = rotated(torch.linspace(-1, 2, 80))
    often = inclusion.perron(A)
    monkeypatch.setattr(capacity, "CPU", capacity.CUDA)
    assert inclusion.perron(A) == pytest.approx(often, rel=1e-9)
