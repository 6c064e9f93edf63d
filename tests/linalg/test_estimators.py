import math

import numpy as np
import pytest
import torch

from hessdiag.linalg import estimators


def symmetric(n, seed=0, decay=0.0):
    g = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))[0]
    values = torch.randn(n, generator=g, dtype=torch.float64) * torch.arange(1, n + 1).double() ** -decay
    return (Q * values) @ Q.T


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
def test_trace_is_unbiased_and_knows_its_error(decay):
    A = symmetric(60, decay=decay)
    found = [estimators.trace(A, 10, seed) for seed in range(400)]
    values = np.array([estimate.value for estimate in found])
    assert abs(values.mean() - float(A.trace())) < 4 * values.std() / 20
    stated = math.sqrt(np.mean([estimate.stderr**2 for estimate in found]))
    assert 0.7 < stated / values.std() < 1.4
    assert {estimate.products for estimate in found} == {20}


def test_xtrace_beats_hutchinson_where_the_spectrum_decays():
    A = symmetric(60, decay=3.0)
    values = [estimators.trace(A, 10, seed).value for seed in range(100)]
    hutchinson = math.sqrt(2 * float(A.square().sum() - A.diagonal().square().sum()) / 20)
    assert np.std(values) < hutchinson / 10


@pytest.mark.parametrize("rank", [0, 1, 3, 7])
def test_trace_of_a_low_rank_is_exact(rank):
    X = torch.randn(50, rank, dtype=torch.float64)
    A = X @ torch.diag(torch.arange(1.0, rank + 1).double() * (-1) ** torch.arange(rank)) @ X.T
    found = estimators.trace(A, 8, 1)
    assert found.value == pytest.approx(float(A.trace()), rel=1e-7, abs=1e-12)
    assert found.stderr <= 1e-7 * float(A.norm())


@pytest.mark.parametrize("n", [1, 2, 5])
def test_small_matrices(n):
    A = symmetric(n)
    assert estimators.trace(A, 10, 0).value == pytest.approx(float(A.trace()), rel=1e-9)
    assert math.isfinite(estimators.frobenius(A, 10, 0).value)


def test_square_of_the_norm_is_unbiased_with_the_stated_variance():
    A = symmetric(40, decay=0.5)
    k = 20
    found = [estimators.frobenius_squared(A, k, seed) for seed in range(2000)]
    values = np.array([estimate.value for estimate in found])
    variance = 2 * float((A @ A @ A @ A).trace()) / k  # of |A v|^2 for normal v
    assert values.mean() == pytest.approx(float(A.square().sum()), abs=4 * math.sqrt(variance / 2000))
    assert values.var() == pytest.approx(variance, rel=0.2)
    assert np.mean([estimate.stderr**2 for estimate in found]) == pytest.approx(variance, rel=0.1)


def test_hutchinson_variances():
    """2 |A|^2 for normal probes, and without the diagonal's part for signs."""
    A = symmetric(30)
    off = float(A.square().sum() - A.diagonal().square().sum())
    for signs, variance in ((False, 2 * float(A.square().sum())), (True, 2 * off)):
        V = estimators.probes(A, 40_000, 0, signs=signs)
        quadratic = (V * (A @ V)).sum(0)
        assert float(quadratic.var()) == pytest.approx(variance, rel=0.05)
        assert float(quadratic.mean()) == pytest.approx(float(A.trace()), abs=4 * math.sqrt(variance / 40_000))


def test_norm_by_the_delta_method():
    A = symmetric(200)
    found = np.array([[e.value, e.stderr] for e in (estimators.frobenius(A, 30, seed) for seed in range(300))])
    assert abs(found[:, 0].mean() - float(A.norm())) < 3 * found[:, 0].std() / math.sqrt(300) + 0.02 * found[:, 0].std()
    assert np.mean(found[:, 1]) == pytest.approx(found[:, 0].std(), rel=0.2)


def test_what_is_deflated_is_gone():
    A = symmetric(30, decay=1.0)
    values, vectors = torch.linalg.eigh(A)
    left = estimators.Deflated(A, vectors[:, [0, 29]])
    assert float((left @ vectors[:, [0, 29]]).norm()) < 1e-12
    torch.testing.assert_close(left @ vectors[:, 1:29], vectors[:, 1:29] * values[1:29])


def test_no_seed_is_fresh_and_a_seed_is_the_same():
    A = symmetric(30)
    assert estimators.trace(A, 4).value != estimators.trace(A, 4).value
    assert estimators.trace(A, 4, 3) == estimators.trace(A, 4, 3)
    assert estimators.frobenius(A, 4).value != estimators.frobenius(A, 4).value


@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_errors_scale_with_the_matrix(size):
    A = symmetric(60)
    for estimate, degree in ((estimators.frobenius_squared, 2), (estimators.trace, 1)):
        plain, found = estimate(A, 5, 0), estimate(size * A, 5, 0)
        assert found.stderr / size**degree == pytest.approx(plain.stderr, rel=1e-9)
