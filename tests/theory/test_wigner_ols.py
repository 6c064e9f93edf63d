"""Shares against tabulated values, brute force and simulation."""

import math
import tracemalloc

import numpy as np
import pytest

from hessdiag.errors import SpecError
from hessdiag.theory import wigner_ols
from hessdiag.theory.wigner_ols import (
    data_share,
    folded_normal_mean,
    ols_share_clt,
    ols_share_columns,
    ols_share_gaussian,
    psd_floor,
    psd_floor_diagonal,
    wigner_share,
    wigner_share_mean,
)


def share(M):
    """The definition, of one matrix or of the expected absolute matrix of a stack."""
    return np.abs(np.diagonal(M, axis1=-2, axis2=-1)).sum() / np.abs(M).sum()


def jackknifed_ratio(a, b):
    """`mean(a)/mean(b)` and its standard error, by linearization."""
    ratio = a.mean() / b.mean()
    return ratio, np.std(a - ratio * b) / b.mean() / math.sqrt(len(a))


@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_a_single_entry_is_its_own_diagonal(ratio):
    assert wigner_share(1, ratio) == 1


def test_wigner_moments_agree_with_simulation():
    rng = np.random.default_rng(3)
    d, draws = 12, 40_000
    diagonal = np.abs(rng.standard_normal((draws, d))).sum(1)
    off_diagonal = 2 * np.abs(rng.standard_normal((draws, d * (d - 1) // 2))).sum(1)
    shares = diagonal / (diagonal + off_diagonal)
    mean, sd = wigner_share_mean(d)
    assert abs(shares.mean() - mean) < 4 * shares.std() / math.sqrt(draws)
    assert shares.std() == pytest.approx(sd, rel=0.02)
    ratio, error = jackknifed_ratio(diagonal, diagonal + off_diagonal)
    assert abs(ratio - wigner_share(d)) < 4 * error


@pytest.mark.parametrize(("n", "d"), [(3, 7), (20, 11)])
def test_ols_share_gaussian_agrees_with_simulation(n, d):
    X = np.random.default_rng(n).standard_normal((6000, n, d))
    H = np.abs(X.transpose(0, 2, 1) @ X)
    ratio, error = jackknifed_ratio(np.trace(H, axis1=1, axis2=2), H.sum((1, 2)))
    assert abs(ratio - ols_share_gaussian(n, d)) < 4 * error
    assert abs(ratio - ols_share_clt(n, d)) > 4 * error  # which tells the two baselines apart


def test_folded_normal_mean():
    assert folded_normal_mean([-2.0, 0.0, 3.0], 0).tolist() == [2, 0, 3]
    assert float(folded_normal_mean(-1, 4)) == float(folded_normal_mean(1, 4))


def test_centred_columns_of_one_scale_give_the_clt_share():
    assert ols_share_columns(64, np.zeros(30), np.full(30, 2.5)) == pytest.approx(ols_share_clt(64, 30), rel=1e-12)


def test_column_share_agrees_with_simulation():
    rng = np.random.default_rng(8)
    n, d, draws = 100, 9, 4000
    mu, sd = rng.normal(0, 0.3, d), rng.uniform(0.5, 2, d)
    X = mu + sd * rng.standard_normal((draws, n, d))
    H = np.abs(X.transpose(0, 2, 1) @ X)
    ratio, error = jackknifed_ratio(np.trace(H, axis1=1, axis2=2), H.sum((1, 2)))
    predicted = ols_share_columns(n, mu, sd**2 + mu**2)
    assert abs(ratio - predicted) < 4 * error + 0.002  # the law of an entry is only nearly normal at n = 100
    assert abs(ratio - ols_share_clt(n, d)) > 0.05  # means and scales matter


def test_column_share_has_the_limit_of_many_samples():
    mu, moment = np.array([0.5, -1.0, 0.25]), np.array([1.0, 2.0, 3.0])
    limit = moment.sum() / (moment.sum() + 2 * (0.5 * 1 + 0.5 * 0.25 + 1 * 0.25))
    assert ols_share_columns(10**9, mu, moment) == pytest.approx(limit, rel=1e-4)


def test_column_share_of_constants_and_of_nothing():
    assert ols_share_columns(5, [1.0, 1.0], [1.0, 1.0]) == pytest.approx(0.5)
    assert math.isnan(ols_share_columns(5, [0.0, 0.0], [0.0, 0.0]))


@pytest.mark.parametrize("block", [1, 100, 10**7])
def test_blocks_do_not_change_a_share(monkeypatch, block):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((13, 37))
    mu, moment = X.mean(0), (X**2).mean(0)
    i, j = np.triu_indices(37, 1)
    off = 2 * folded_normal_mean(13 * mu[i] * mu[j], 13 * (moment[i] * moment[j] - (mu[i] * mu[j]) ** 2)).sum()
    monkeypatch.setattr(wigner_ols, "BLOCK_ENTRIES", block)
    assert data_share(X) == pytest.approx(share(X.T @ X), rel=1e-12)
    assert ols_share_columns(13, mu, moment) == pytest.approx(13 * moment.sum() / (13 * moment.sum() + off), rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 10.0, -10.0])
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_data_share_is_the_definition_at_any_sign_and_scale(shift, scale):
    X = np.random.default_rng(1).standard_normal((6, 9)) + shift
    assert data_share(X * scale) == pytest.approx(share(X.T @ X), rel=1e-12)


@pytest.mark.parametrize("X", [np.zeros((3, 4)), np.zeros((0, 4)), [[1.0, math.nan]], [[1.0, -math.inf]]])
def test_data_share_of_no_data_is_nan(X):
    assert math.isnan(data_share(X))


def test_wide_signed_data_need_no_square_matrix():
    X = np.random.default_rng(2).standard_normal((4, 6000))
    tracemalloc.start()
    measured = data_share(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000**2 * 8 / 4
    assert measured == pytest.approx(ols_share_gaussian(4, 6000), rel=0.1)


@pytest.mark.parametrize("rank", [1, 2, 8])
def test_psd_matrices_lie_above_their_floor(rank):
    rng = np.random.default_rng(rank)
    for _ in range(50):
        A = rng.standard_normal((8, rank)) * rng.exponential(size=(8, 1))
        M = A @ A.T
        floor = psd_floor_diagonal(np.diag(M))
        assert share(M) >= floor * (1 - 1e-12)
        assert floor >= psd_floor(8) * (1 - 1e-12)
        if rank == 1:
            assert share(M) == pytest.approx(floor)


def test_floor_of_a_zero_matrix_is_nan():
    assert math.isnan(psd_floor_diagonal([0.0, 0.0]))


@pytest.mark.parametrize(
    "call",
    [
        lambda: wigner_share(0),
        lambda: wigner_share(3, ratio=-1),
        lambda: ols_share_gaussian(0, 3),
        lambda: ols_share_clt(3, 0),
        lambda: ols_share_columns(3, [1.0], [0.5]),
        lambda: ols_share_columns(3, [0.0, 0.0], [1.0]),
        lambda: data_share(np.zeros(4)),
        lambda: psd_floor_diagonal([1.0, -1.0]),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(SpecError):
        call()
