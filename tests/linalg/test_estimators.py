import math

import numpy as np
import pytest
import torch

from hessdiag.linalg import estimators, spread


def symmetric(n, seed=0, decay=0.0):
    g = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))[0]
    values = torch.randn(n, generator=g, dtype=torch.float64) * torch.arange(1, n + 1).double() ** -decay
    return (Q * values) @ Q.T


@pytest.mark.parametrize("sketch", [0, 6])
@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
def test_trace_is_unbiased_and_its_interval_covers(decay, sketch):
    A = symmetric(60, decay=decay)
    found = [estimators.trace(A, 24, seed, sketch=sketch) for seed in range(400)]
    values, truth = np.array([estimate.value for estimate in found]), float(A.trace())
    assert abs(values.mean() - truth) < 4 * values.std() / 20
    stated = math.sqrt(np.mean([estimate.stderr**2 for estimate in found]))
    assert 0.9 < stated / values.std() < 1.3
    inside = np.mean([estimate.interval[0] <= truth <= estimate.interval[1] for estimate in found])
    assert 0.92 <= inside <= 0.99
    assert {estimate.products for estimate in found} == {24}


def test_variance_by_hand_for_signs():
    """2 (|B|^2 - sum of B_ii^2) over the count, on average: an independent sum over entries."""
    A = symmetric(40)
    truth = 2 * float(A.square().sum() - A.diagonal().square().sum()) / 20
    stated = np.mean([estimators.trace(A, 20, seed).stderr ** 2 for seed in range(400)])
    assert stated == pytest.approx(truth, rel=0.15)


def test_standard_error_by_hand():
    """The larger of the samples' own error and of the plug-in, whose sum of B_ii^2 is a mean over pairs of signs."""
    A, h, larger = symmetric(30), 6, []
    for seed in range(8):
        S = estimators.probes(A, h, seed, signs=True).numpy()
        AS = A.numpy() @ S
        pairs = [sum(S[:, p] * AS[:, p] * S[:, q] * AS[:, q]) for p in range(h) for q in range(h) if p != q]
        plugged = 2 / h * (np.mean([AS[:, p] @ AS[:, p] for p in range(h)]) - np.mean(pairs))
        sampled = np.var([S[:, p] @ AS[:, p] for p in range(h)], ddof=1) / h
        assert estimators.trace(A, h, seed).stderr == pytest.approx(math.sqrt(max(plugged, sampled)), rel=1e-9)
        larger.append(plugged > sampled)
    assert 0 < sum(larger) < 8


def test_a_sketch_pays_where_the_spectrum_decays():
    A = symmetric(60, decay=3.0)
    plain, sketched = (np.std([estimators.trace(A, 24, seed, sketch=r).value for seed in range(100)]) for r in (0, 8))
    assert sketched < plain / 10


def test_a_diagonal_matrix_has_no_error():
    found = estimators.trace(torch.diag(torch.arange(50.0).double()), 8, 0)
    assert found.value == pytest.approx(1225)
    assert found.stderr < 1e-5  # what is left of two sums that cancel


@pytest.mark.parametrize("rank", [0, 1, 3, 7])
def test_trace_of_a_low_rank_is_exact(rank):
    X = torch.randn(50, rank, dtype=torch.float64)
    A = X @ torch.diag(torch.arange(1.0, rank + 1).double() * (-1) ** torch.arange(rank)) @ X.T
    found = estimators.trace(A, 20, 1, sketch=8)
    assert found.value == pytest.approx(float(A.trace()), rel=1e-7, abs=1e-12)
    assert found.stderr <= 1e-7 * float(A.norm())


@pytest.mark.parametrize("n", [1, 2, 5])
def test_small_matrices(n):
    A = symmetric(n)
    found = estimators.trace(A, 10, 0)
    assert found.value == pytest.approx(float(A.trace()), rel=1e-9)
    assert found.interval == (found.value, found.value)


def test_hutchinson_variances():
    """2 |A|^2 for normal probes, and without the diagonal's part for signs."""
    A = symmetric(30)
    off = float(A.square().sum() - A.diagonal().square().sum())
    for signs, variance in ((False, 2 * float(A.square().sum())), (True, 2 * off)):
        V = estimators.probes(A, 40_000, 0, signs=signs)
        quadratic = (V * (A @ V)).sum(0)
        assert float(quadratic.var()) == pytest.approx(variance, rel=0.05)
        assert float(quadratic.mean()) == pytest.approx(float(A.trace()), abs=4 * math.sqrt(variance / 40_000))


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


@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_errors_scale_with_the_matrix(size):
    A = symmetric(60)
    plain, found = (estimators.trace(scale * A, 10, 0, sketch=2) for scale in (1.0, size))
    assert found.stderr / size == pytest.approx(plain.stderr, rel=1e-9)


def test_many_normal_numbers_are_drawn_in_float32_and_by_any_portions_alike(monkeypatch):
    A = torch.eye(40, dtype=torch.float64)
    few = estimators.probes(A, 48, 0)
    monkeypatch.setattr(estimators, "MANY", 40 * 48 - 1)
    many = estimators.probes(A, 48, 0)
    assert many.dtype == torch.float64
    assert torch.equal(many, many.float().double())
    assert not torch.equal(few, few.float().double())
    monkeypatch.setattr(spread, "BLOCK", 16)
    assert torch.equal(estimators.probes(A, 48, 0), many)
    assert float(many.mean()) == pytest.approx(0.0, abs=4 / 1920**0.5)
    assert float(many.square().mean()) == pytest.approx(1.0, abs=4 * (2 / 1920) ** 0.5)
