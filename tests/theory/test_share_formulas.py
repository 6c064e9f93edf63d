"""What the theory notes say of shares (A.1 to A.7) and of growing blocks (D.7), number by number."""

import math
from itertools import pairwise

import numpy as np
import pytest

from hessdiag.linalg import inclusion
from hessdiag.nets.convnet import LeNet
from hessdiag.nets.mlp import MLP
from hessdiag.theory.expectations import expected_block_norm2, expected_trace
from hessdiag.theory.wigner_ols import (
    data_share,
    gaussian_product_mean,
    ols_share_clt,
    ols_share_columns,
    ols_share_gaussian,
    psd_floor_diagonal,
    wigner_share,
    wigner_share_mean,
)


def share(M):
    return np.abs(np.diag(M)).sum() / np.abs(M).sum()


@pytest.mark.parametrize("d", [5, 50])
def test_a1_delta_method(d):
    """Mean and deviation from the means a, b and variances VA, VB of the two sums."""
    root = math.sqrt(2 / math.pi)
    a, b, VA, VB = d * root, d * (d - 1) * root, d * (1 - 2 / math.pi), 2 * d * (d - 1) * (1 - 2 / math.pi)
    mean = a / (a + b) + (a * VB - b * VA) / (a + b) ** 3
    deviation = math.sqrt(b**2 * VA + a**2 * VB) / (a + b) ** 2
    assert wigner_share_mean(d) == pytest.approx((mean, deviation), rel=1e-9)


def test_a2_limits_of_the_central_limit():
    n, d = 10**8, 40
    assert 1 - ols_share_clt(n, d) == pytest.approx((d - 1) * math.sqrt(2 / (math.pi * n)), rel=5e-3)
    assert ols_share_clt(16, 10**7) / wigner_share(10**7) == pytest.approx(math.sqrt(8 * math.pi), rel=1e-5)


def test_a3_what_the_central_limit_leaves_out():
    for n in (32, 512):
        series = math.sqrt(2 * n / math.pi) * (1 - 1 / (4 * n) + 1 / (32 * n**2))
        assert gaussian_product_mean(n) == pytest.approx(series, rel=1 / n**3)
    short = [1 - ols_share_clt(n, d) / ols_share_gaussian(n, d) for n, d in ((32, 100), (1, 10))]
    assert short == pytest.approx([0.0073, 0.18], abs=3e-3)
    assert short[0] == pytest.approx((1 - ols_share_gaussian(32, 100)) / (4 * 32), rel=0.01)


def test_a4_means_keep_the_share_away_from_one():
    mu, s2 = np.array([0.3, -0.8, 1.1]), np.array([1.0, 0.5, 2.0])
    M, off = s2 + mu**2, np.abs(np.outer(mu, mu)).sum() - (mu**2).sum()
    assert ols_share_columns(10**10, mu, M) == pytest.approx(M.sum() / (M.sum() + off), rel=1e-5)


def test_a5_pixels_take_linear_time():
    X = np.random.default_rng(0).uniform(0, 1, (7, 30))
    assert data_share(X) == pytest.approx((X**2).sum() / (X.sum(axis=1) ** 2).sum(), rel=1e-12)
    assert data_share(X) == pytest.approx(share(X.T @ X), rel=1e-12)


def test_a6_the_networks_of_the_paper():
    assert sum(p.numel() for p in LeNet().parameters()) == 62_006
    sizes = [3072, 128, 128, 10]
    assert sum(a * b + b for a, b in pairwise(sizes)) == 411_146
    assert sum(p.numel() for p in MLP(3, 128, 3072, 10, bias=True).parameters()) == 411_146


@pytest.mark.parametrize("seed", range(20))
def test_a7_facts(seed):
    rng = np.random.default_rng(seed)
    A, B = (rng.standard_normal((size, size)) for size in (3, 4))
    A, B = A + A.T, B + B.T
    assert share(np.kron(A, B)) == pytest.approx(share(A) * share(B), rel=1e-12)
    h = rng.standard_normal(6)
    assert share(np.outer(h, h)) == pytest.approx((h @ h) / np.abs(h).sum() ** 2, rel=1e-12)
    signs = rng.choice([-1.0, 1.0], (64, 4))
    most = np.abs(np.einsum("ki,ij,kj->k", signs, B, signs)).max()
    diagonal = np.abs(np.diag(B)).sum()
    assert diagonal / (4 * np.linalg.norm(B)) <= share(B) <= diagonal / most
    flip = np.diag(signs[0])
    assert share(flip @ B @ flip) == pytest.approx(share(B), rel=1e-12)
    P = B @ B.T
    assert share(P) >= psd_floor_diagonal(np.diag(P)) >= wigner_share(4)


def test_a7_error_of_the_sketch():
    for k in (200, 1000):
        assert inclusion.sketch_relative_stderr(k) ** 2 == pytest.approx(math.pi**2 / (4 * k), rel=5 / k)


@pytest.mark.parametrize(
    ("slope", "variance", "grown"),
    [(1.0, 1 / 64, [1, 2.016, 3.048, 5.16, 9.63, 19.7]), (0.0, 2 / 64, [1, 3.05, 5.22, 10.0, 21.6, 57.0])],
)
def test_d7_diagonal_blocks_grow_with_the_layers_above(slope, variance, grown):
    for above, expected in zip((0, 1, 2, 4, 8, 16), grown, strict=True):
        first = expected_block_norm2([64] * (above + 2), variance, slope, y_norm2=0.0)[0, 0]
        assert first / 64 == pytest.approx(expected, rel=3e-3)


def test_d7_when_the_norm_proves_a_negative_eigenvalue():
    """Of LeCun networks, `E |H|^2 / (E tr H)^2` tends to `(1 - 1 / L) (p d / c^2) rho^-L`."""
    d, c, depth, rho = 6, 6, 30, 1 / 3
    widths = [d] * depth + [c]
    ratio = expected_block_norm2(widths, 1 / (3 * d), 1.0).sum() / expected_trace(widths, 1 / (3 * d), 1.0) ** 2
    assert ratio == pytest.approx((1 - 1 / depth) * d / c**2 * rho**-depth, rel=1e-3)
