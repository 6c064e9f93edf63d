"""Lanczos against what is known of it exactly, and against LAPACK."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessdiag.linalg.tridiagonal import tridiagonalize


def rotated(spectrum, dtype=torch.float64, seed=0):
    """A symmetric matrix with this spectrum."""
    values = torch.as_tensor(spectrum, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[0]
    A = (Q * values) @ Q.T
    return ((A + A.T) / 2).to(dtype)


class Counting:
    """A matrix that counts products, and remembers how many vectors came at once."""

    def __init__(self, A):
        self.A, self.widths = A, []
        self.shape, self.dtype, self.device = A.shape, A.dtype, A.device

    def __matmul__(self, vectors):
        self.widths.append(1 if vectors.ndim == 1 else vectors.shape[1])
        return self.A @ vectors


@pytest.mark.parametrize(
    ("steps", "ritz"), [(2, [1.38197, 3.61803]), (3, [1.06822, 2.5, 3.93178]), (4, [1.0, 2.0, 3.0, 4.0])]
)
def test_the_textbook_case(steps, ritz):
    A = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    T = tridiagonalize(A, torch.ones(4, dtype=torch.float64), steps)
    assert T.alphas[0].tolist() == pytest.approx([2.5] * steps)
    assert T.betas[0].square().tolist() == pytest.approx([1.25, 0.8, 0.45, 0.0][:steps], abs=1e-14)
    assert torch.linalg.eigvalsh(T.matrix()).tolist() == pytest.approx(ritz, abs=5e-6)
    assert bool(T.terminated) is (steps == 4)


def test_residual_moments_and_first_quadrature_error():
    n, m = 60, 5
    A = rotated(torch.linspace(-1, 2, n))
    v = torch.randn(n, dtype=torch.float64)
    v /= v.norm()
    T = tridiagonalize(A, v, m, keep_basis=True)
    theta, S = torch.linalg.eigh(T.matrix())
    Y = T.basis[0] @ S
    residuals = (A @ Y - Y * theta).norm(dim=0)
    torch.testing.assert_close(residuals, T.betas[0, -1] * S[-1].abs(), rtol=1e-10, atol=1e-14)
    for power in range(2 * m):
        exact = v @ torch.linalg.matrix_power(A, power) @ v
        assert float(S[0].square() @ theta**power) == pytest.approx(float(exact), rel=1e-10)
    error = v @ torch.linalg.matrix_power(A, 2 * m) @ v - S[0].square() @ theta ** (2 * m)
    assert float(error) == pytest.approx(float(T.betas[0].square().prod()), rel=1e-6)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_the_basis_stays_orthogonal_at_300_steps(dtype, tolerance):
    spectrum = torch.cat([torch.logspace(-12, 6, 300), -torch.logspace(-8, 3, 200)])
    T = tridiagonalize(rotated(spectrum, dtype), torch.randn(500, 2, dtype=dtype), 300, keep_basis=True)
    assert (T.steps == 300).all() or dtype == torch.float32, "in float32 these 18 decades are fewer numbers than 300"
    for basis, steps in zip(T.basis.double(), T.steps.tolist(), strict=True):
        assert steps > 150
        gram = basis[:, :steps].T @ basis[:, :steps]
        assert float((gram - torch.eye(steps)).abs().max()) < tolerance


@pytest.mark.parametrize(
    "spectrum", [[3.0, -2, 5, 1, 7, -4, 2, 6, 8], [0.5**k for k in range(60)]], ids=["rank 9", "decaying"]
)
@pytest.mark.parametrize(("dtype", "noise", "tolerance"), [(torch.float64, 1e-6, 1e-13), (torch.float32, 0.03, 1e-5)])
def test_the_basis_stays_orthogonal_where_products_are_noisy(spectrum, dtype, noise, tolerance):
    class Noisy(Counting):
        generator = torch.Generator().manual_seed(0)

        def __matmul__(self, vectors):
            exact = super().__matmul__(vectors)
            error = torch.randn(exact.shape, generator=self.generator, dtype=exact.dtype)
            return exact + noise * exact.norm() / error.norm() * error

    A = Noisy(rotated(spectrum + [0.0] * (100 - len(spectrum)), dtype))
    found = tridiagonalize(A, torch.ones(100, dtype=dtype), 90, keep_basis=True)
    Q = found.basis[0, :, : int(found.steps[0])]
    assert float((Q.T @ Q - torch.eye(Q.shape[1], dtype=dtype)).abs().max()) < tolerance


def test_columns_run_in_lockstep_and_as_if_alone():
    A = Counting(rotated(torch.randn(80)))
    start = torch.randn(80, 3, dtype=torch.float64)
    together = tridiagonalize(A, start, 12)
    assert A.widths == [3] * 12
    for index in range(3):
        alone = tridiagonalize(A.A, start[:, index], 12)
        torch.testing.assert_close(together.alphas[index], alone.alphas[0], rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(together.betas[index], alone.betas[0], rtol=1e-9, atol=1e-13)


def test_exhausted_columns_stop_alone_and_cost_nothing_more():
    A = Counting(torch.diag(torch.tensor([1.0] * 5 + [2.0] * 5 + list(range(3, 13))).double()))
    start = torch.zeros(20, 4, dtype=torch.float64)
    start[:5, 0] = 1.0  # one eigenvalue
    start[:10, 1] = 1.0  # two
    start[:, 2] = 1.0  # all twelve; the last column is zero
    T = tridiagonalize(A, start, 15)
    assert T.steps.tolist() == [1, 2, 12, 0]
    assert T.terminated.all()
    assert A.widths == [3, 2, *[1] * 10]
    assert torch.linalg.eigvalsh(T.matrix(2)).tolist() == pytest.approx(list(range(1, 13)), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_breakdown_is_relative_to_the_matrix(scale, dtype):
    spectrum = torch.tensor([1.0, 2.0, 3.0]).repeat(20) * scale
    T = tridiagonalize(torch.diag(spectrum).to(dtype), torch.randn(60, dtype=dtype), 10)
    assert T.steps.item() == 3
    assert (torch.linalg.eigvalsh(T.matrix()) / scale).tolist() == pytest.approx([1, 2, 3], rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([1e-8, 1.0, 1e8]))
def test_a_full_run_is_a_similarity(n, seed, scale):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n)) * scale
    A = A + A.T
    T = tridiagonalize(torch.from_numpy(A), torch.from_numpy(rng.standard_normal(n)), n)
    expected = scipy.linalg.eigvalsh(A)
    assert torch.linalg.eigvalsh(T.matrix()).numpy() == pytest.approx(expected, abs=1e-9 * np.abs(expected).max())


def test_a_start_in_another_dtype_runs_in_that_of_the_operator():
    A = rotated(torch.linspace(-1, 2, 30), torch.float32)
    v = torch.randn(30, 2, dtype=torch.float64)
    found, expected = (tridiagonalize(A, start, 6, keep_basis=True) for start in (v, v.float()))
    torch.testing.assert_close(found.alphas, expected.alphas, rtol=0, atol=0)
    assert found.basis.dtype == torch.float32
