import numpy as np
import pytest

from hessdiag.curvature import sampling
from hessdiag.curvature.sampling import Stratum


def _population(rng, size=600):
    """Row sums over three decades with a tenth of zero rows, and numerators that are a noisy share of them."""
    denominator = np.exp(rng.normal(0, 1.5, size)) * (rng.random(size) > 0.1)
    return denominator * rng.uniform(0.001, 0.03, size), denominator


def _sample(rng, strata, counts):
    drawn, start = [], 0
    rows = [rng.choice(stratum, count, replace=False) for stratum, count in zip(strata, counts, strict=True)]
    for stratum, chosen in zip(strata, rows, strict=True):
        drawn.append(Stratum(len(stratum), np.arange(start, start + len(chosen))))
        start += len(chosen)
    return np.concatenate(rows), drawn


def test_interval_covers_and_is_no_wider_than_it_must_be():
    rng = np.random.default_rng(0)
    top, bottom = _population(rng)
    truth = top.sum() / bottom.sum()
    guess = bottom * np.exp(rng.normal(0, 0.5, len(bottom)))
    strata = sampling.strata_by_scale([np.arange(400), np.arange(400, 600)], guess)
    counts = sampling.allocate(strata, guess, 80)
    inside, errors, stderrs = 0, [], []
    for _ in range(500):
        rows, drawn = _sample(rng, strata, counts)
        estimate = sampling.ratio(top[rows], bottom[rows], drawn)
        inside += estimate.interval[0] <= truth <= estimate.interval[1]
        errors.append(estimate.value - truth)
        stderrs.append(estimate.stderr)
    assert 0.91 <= inside / 500 <= 0.98
    assert np.mean(stderrs) == pytest.approx(np.std(errors), rel=0.15)
    assert abs(np.mean(errors)) < 0.02 * truth


def test_census_is_exact():
    rng = np.random.default_rng(1)
    top, bottom = _population(rng, 50)
    order = rng.permutation(50)
    census = [Stratum(30, np.flatnonzero(order < 30)), Stratum(20, np.flatnonzero(order >= 30))]
    estimate = sampling.ratio(top[order], bottom[order], census)
    assert estimate.value == pytest.approx(top.sum() / bottom.sum(), rel=1e-13)
    assert estimate.stderr == 0
    assert estimate.interval == (estimate.value, estimate.value)


def test_nothing_to_divide_by_is_nan():
    assert np.isnan(sampling.ratio(np.zeros(4), np.zeros(4), [Stratum(9, np.arange(4))]).value)


def test_strata_partition_the_rows_that_are_not_zero():
    rng = np.random.default_rng(2)
    scale = np.where(rng.random(200) < 0.3, 0.0, rng.lognormal(size=200))
    strata = sampling.strata_by_scale([np.arange(150), np.arange(150, 200)], scale)
    assert sorted(np.concatenate(strata).tolist()) == np.flatnonzero(scale).tolist()
    assert all((stratum < 150).all() or (stratum >= 150).all() for stratum in strata)


def test_stopping_early_leaves_every_group_represented():
    order = sampling.exhaustive_order([np.arange(1000), np.arange(1000, 1010)], np.random.default_rng(3))
    assert sorted(order.tolist()) == list(range(1010))
    assert (order[:4] >= 1000).sum() == 2
    assert ((order[:505] >= 1000).sum()) in (4, 5, 6)
