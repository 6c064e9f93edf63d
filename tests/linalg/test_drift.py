"""Lanczos that orthogonalizes in full only when it is due: its matrices against closed forms, and when it is noticed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessdiag.linalg import estimators, tridiagonal
from hessdiag.linalg.quadrature import spectral_density
from hessdiag.linalg.tridiagonal import tridiagonalize
from hessdiag.linalg.tridiagonals import drift

N = 240


def rotated(values, dtype=torch.float64):
    """A matrix with these eigenvalues, and its eigenvectors."""
    values = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(7)
    Q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[0]
    A = (Q * values) @ Q.T
    return ((A + A.T) / 2).to(dtype), Q


def start(runs=3, dtype=torch.float64):
    v = torch.randn(N, runs, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return (v / v.norm(dim=0)).to(dtype)


def seldom(A, v, steps):
    """The run that spares what it can, and the inner products of its vectors."""
    found, basis = tridiagonal._run(A, v.T, steps, lambda vectors, step: None, seldom=True, keep=False)
    worst = 0.0
    for rows, count in zip(basis.double(), found.steps.tolist(), strict=True):
        worst = max(worst, float((rows[:count] @ rows[:count].T - torch.eye(count)).abs().max()))
    return found, worst


SPECTRA = {
    "uniform": np.linspace(-1, 1, N),
    "bulk and outliers": np.r_[np.linspace(-0.05, 0.05, N - 4), -0.3, 0.2, 0.5, 1.0],
    "clusters": np.repeat([-1.0, 0.0, 0.4, 0.9], N // 4) + 1e-4 * np.linspace(-1, 1, N),
    "decades": np.r_[-np.logspace(-9, 0, N // 2), np.logspace(-6, 0, N // 2)],
    "repeated": np.repeat(np.linspace(-1, 1, 12), N // 12),
    "one repeated among many": np.r_[np.ones(40), np.linspace(-0.9, 0.8, N - 40)],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SPECTRA)
def test_nodes_and_weights_integrate_functions(name, dtype):
    """v' f(A) v by nodes and weights, and in closed form from eigenvalues that are known."""
    A, Q = rotated(SPECTRA[name], dtype)
    v = start(dtype=dtype)
    found, worst = seldom(A, v, 60)
    eps = torch.finfo(dtype).eps
    assert worst <= math.sqrt(eps)
    for index in range(3):
        theta, S = np.linalg.eigh(found.matrix(index).numpy())
        shares = (Q.T @ v[:, index].double()).square().numpy()
        for f in (np.exp, np.cos, lambda x: x**3, lambda x: np.ones_like(x), lambda x: x**8):
            truth = (shares * f(SPECTRA[name])).sum()
            assert (S[0] ** 2 * f(theta)).sum() == pytest.approx(truth, abs=100 * eps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("values", [[-1.0, 0.0, 0.4, 0.9], np.linspace(-1, 1, 12)], ids=["four", "twelve"])
def test_repeated_eigenvalues_have_the_weight_of_all_their_copies(values, dtype):
    A, Q = rotated(np.repeat(values, N // len(values)), dtype)
    found = tridiagonalize(A, start(dtype=dtype), 60)
    eps = torch.finfo(dtype).eps
    for index in range(3):
        theta, S = np.linalg.eigh(found.matrix(index).numpy())
        shares = (Q.T @ start()[:, index]).square().numpy().reshape(len(values), -1).sum(1)
        near = np.abs(theta[:, None] - np.array(values)) < 0.05
        np.testing.assert_allclose(S[0] ** 2 @ near, shares, atol=200 * eps)


def test_an_exhausted_space_ends_the_run():
    found = tridiagonalize(torch.diag(torch.tensor([-1.0, 0.0, 0.4, 0.9]).double().repeat(N // 4)), start(), 60)
    assert found.steps.tolist() == [4] * 3
    assert found.products == 12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_converged_outliers_come_once_with_their_weights(dtype):
    values = SPECTRA["bulk and outliers"]
    A, Q = rotated(values, dtype)
    density = spectral_density(A, probes=4, steps=60, seed=0)
    starts = estimators.probes(A, 4, seed=0).double()
    eps = torch.finfo(dtype).eps
    for index in range(4):
        v = starts[:, index] / starts[:, index].norm()
        for outlier in range(N - 4, N):
            near = np.abs(density.nodes[index] - values[outlier]) < 0.02
            assert near.sum() == 1, "no copies of what has converged"
            assert density.nodes[index][near][0] == pytest.approx(values[outlier], abs=50 * eps)
            share = float((Q[:, outlier] @ v) ** 2)
            assert density.weights[index][near][0] == pytest.approx(share, abs=50 * eps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_most_of_the_work_is_spared_where_nothing_converges(dtype, monkeypatch):
    firsts = []
    real = tridiagonal._orthogonalized

    def counted(basis, step, active, sizes, spread, first):
        firsts.append(first == 0 and step > 1)
        return real(basis, step, active, sizes, spread, first)

    monkeypatch.setattr(tridiagonal, "_orthogonalized", counted)
    found, worst = seldom(rotated(SPECTRA["uniform"], dtype)[0], start(dtype=dtype), 40)
    eps = torch.finfo(dtype).eps
    assert sum(firsts) <= 14
    assert worst <= math.sqrt(eps)
    full = tridiagonalize(rotated(SPECTRA["uniform"], dtype)[0], start(dtype=dtype), 40, keep_basis=True)
    torch.testing.assert_close(found.alphas, full.alphas, rtol=0, atol=300 * eps)
    torch.testing.assert_close(found.betas, full.betas, rtol=0, atol=300 * eps)


@pytest.mark.parametrize("noise", [1e-13, 1e-10, 1e-7, 1e-3])
def test_noise_of_products_is_learned(noise):
    class Noisy:
        shape, dtype, device = (N, N), torch.float64, torch.device("cpu")
        A, generator = rotated(SPECTRA["bulk and outliers"])[0], torch.Generator().manual_seed(0)

        def __matmul__(self, vectors):
            exact = self.A @ vectors
            error = torch.randn(exact.shape, generator=self.generator, dtype=exact.dtype)
            return exact + noise * exact.norm() / error.norm() * error

    _, worst = seldom(Noisy(), start(), 50)
    assert worst <= 1.5e-8


def test_what_drifted_unnoticed_is_done_again(monkeypatch):
    A, v = rotated(SPECTRA["bulk and outliers"])[0], start()
    full = tridiagonalize(A, v, 60, keep_basis=True)
    steps = []
    monkeypatch.setattr(drift.Drift, "due", lambda self, step: step == 0)
    monkeypatch.setattr(drift.Drift, "beyond", lambda self, *arguments: False)
    assert seldom(A, v, 60)[1] > 0.1, "then copies appear"
    found = tridiagonalize(A, v, 60, progress=lambda vectors, step: steps.append(vectors))
    torch.testing.assert_close(found.alphas, full.alphas, rtol=0, atol=0)
    assert found.products == sum(steps) == 2 * 3 * 60


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**31), st.sampled_from([torch.float64, torch.float32]), st.sampled_from([1e-8, 1.0, 1e8]),
    st.integers(1, 6), st.floats(0.1, 4.0),
)  # fmt: skip
def test_vectors_stay_nearly_orthogonal_whatever_the_spectrum(seed, dtype, scale, distinct, decay):
    rng = np.random.default_rng(seed)
    values = np.r_[
        np.repeat(rng.standard_normal(distinct), 5),
        rng.standard_normal(40) * np.exp(-decay * np.arange(40)),
        rng.uniform(-0.1, 0.1, N - 40 - 5 * distinct),
    ]
    A = rotated(values)[0].mul(scale).to(dtype)
    assert seldom(A, start(dtype=dtype), 60)[1] <= math.sqrt(torch.finfo(dtype).eps)
