"""Differences of two estimates, and several tests at one level, against scipy and by simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hessdiag.statistics.differences import Known, difference, fisher, holm
from hessdiag.statistics.student import freedom_of, reach_of, two_sided


def estimate(value, error, freedom=math.inf):
    return Known(value, value, value, error, error, freedom)


@pytest.mark.parametrize("freedom", [1, 1.5, 3, 7.2, 30, 300, 5000])
def test_tails_are_those_of_scipy(freedom):
    for z in (0.01, 0.5, 1.0, 2.0, 4.0, 9.0):
        assert two_sided(z, freedom) == pytest.approx(2 * stats.t.sf(z, freedom), rel=1e-9)
    assert reach_of(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    assert freedom_of(stats.t.ppf(0.975, freedom)) == pytest.approx(freedom, rel=1e-6)


@pytest.mark.parametrize(("a", "n", "b", "m"), [(0, 2, 2, 2), (3, 20, 11, 25), (0, 5, 0, 9), (40, 2000, 75, 1800)])
def test_shares_of_cases_are_compared_as_scipy_does(a, n, b, m):
    assert fisher(a, n, b, m) == pytest.approx(stats.fisher_exact([[a, n - a], [b, m - b]])[1], rel=1e-6)


def test_two_samples_are_compared_as_welch_does():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, 7), rng.normal(1, 3, 12)
    known = [estimate(part.mean(), part.std(ddof=1) / math.sqrt(len(part)), len(part) - 1) for part in (x, y)]
    assert difference(*known).p == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue, rel=1e-9)


def test_errors_count_at_the_ends_that_face_each_other():
    low, high = Known(1.0, 1.0, 1.0, down=9.0, up=0.1), Known(2.0, 2.0, 2.0, down=0.1, up=9.0)
    apart, back = difference(low, high), difference(high, low)
    assert apart.p == pytest.approx(back.p)
    assert apart.p < 1e-9
    assert apart.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert apart.interval[0] == pytest.approx(1 - 1.96 * math.hypot(0.1, 0.1), rel=1e-3)
    assert difference(Known(1.0, 1.0, 1.0, 0.1, 9.0), Known(2.0, 2.0, 2.0, 9.0, 0.1)).p > 0.9


def test_bounds_differ_only_where_they_are_apart():
    least = Known(3.0, 3.0, math.inf)
    assert not difference(least, Known(5.0, 4.9, 5.1)).proven
    assert difference(least, Known(2.0, 1.9, 2.1)).proven
    assert difference(least, estimate(2.9, 0.01)).p < 1e-9
    assert difference(least, estimate(4.0, 0.01)).p == 1.0


def test_equal_weights_are_plain_holm_and_a_weight_passes_on():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx(holm([0.01, 0.04, 0.03], [2.0, 2.0, 2.0]))
    # The first is found at its 0.045; then the two others have all of 0.05, as Holm has it.
    assert holm([0.044, 0.02, 0.9], [0.9, 0.05, 0.05]) == pytest.approx([0.044 / 0.9, 0.044 / 0.9, 0.9])
    assert min(holm([0.046, 0.02, 0.9], [0.9, 0.05, 0.05])) > 0.05
    assert holm([0.9, 0.002, 0.9], [0.9, 0.05, 0.05])[1] == pytest.approx(0.04)


@pytest.mark.parametrize("correlation", [-0.2, 0.0, 0.8])
def test_without_a_change_one_in_twenty_comparisons_shows_one(correlation):
    rng = np.random.default_rng(1)
    covariance = np.full((5, 5), correlation) + (1 - correlation) * np.eye(5)
    z = rng.multivariate_normal(np.zeros(5), covariance, 4000)
    weights = [0.9, *[0.025] * 4]
    found = [min(holm([two_sided(one) for one in row], weights)) <= 0.05 for row in z]
    assert np.mean(found) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_three_errors_of_the_first_number_are_found_though_others_are_tested():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(4000, 30))
    z[:, 0] += 3
    weights = [0.9, *[0.1 / 29] * 29]
    adjusted = np.array([holm([two_sided(one) for one in row], weights) for row in z[:1500]])
    assert np.mean(adjusted[:, 0] <= 0.05) > 0.81
    plain = np.array([holm([two_sided(one) for one in row]) for row in z[:1500]])
    assert np.mean(plain[:, 0] <= 0.05) < 0.55  # what equal parts would find


def test_intervals_of_differences_cover():
    rng = np.random.default_rng(3)
    n = 6
    covered = []
    for _ in range(2000):
        x, y = rng.normal(0, 1, n), rng.normal(0.5, 2, n)
        known = [estimate(part.mean(), part.std(ddof=1) / math.sqrt(n), n - 1) for part in (x, y)]
        low, high = difference(*known).interval
        covered.append(low <= 0.5 <= high)
    assert 0.935 < np.mean(covered) < 0.975


def test_every_pair_of_small_samples_keeps_its_level():
    """Fisher's test never calls a share different too often, however few cases there are."""
    for n, m in itertools.product((2, 5, 11), repeat=2):
        for share in (0.1, 0.5):
            chance = sum(
                stats.binom.pmf(a, n, share) * stats.binom.pmf(b, m, share)
                for a, b in itertools.product(range(n + 1), range(m + 1))
                if fisher(a, n, b, m) <= 0.05
            )
            assert chance <= 0.05


@pytest.mark.parametrize("cases", range(13))
def test_the_smallest_p_of_so_many_cases_is_that_of_all_ways_to_part_them(cases):
    n, m = 5, 7
    ways = [
        stats.fisher_exact([[a, n - a], [cases - a, m - cases + a]])[1]
        for a in range(max(0, cases - m), min(cases, n) + 1)
    ]
    a = min(cases, n)
    share = [
        Known(k / size, k / size, k / size, 0.1, 0.1, cases=k, trials=size) for k, size in ((a, n), (cases - a, m))
    ]
    assert difference(*share).least == pytest.approx(min(ways))
    assert difference(estimate(1.0, 0.1), estimate(2.0, 0.1)).least == 0


def test_numbers_that_are_equal_have_one_error_whichever_is_first():
    a, b = Known(1.0, 1.0, 1.0, 0.1, 0.5), Known(1.0, 1.0, 1.0, 0.2, 0.3)
    assert difference(a, b).stderr == difference(b, a).stderr == pytest.approx(math.hypot(0.2, 0.5))
    assert difference(a, b).p == difference(b, a).p == 1
