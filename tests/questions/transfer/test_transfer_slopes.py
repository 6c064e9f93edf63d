"""Powers of the width: against numpy's fits and scipy's intervals, and how often intervals cover."""

import numpy as np
import pytest
from scipy import stats

from hessdiag.questions.transfer.slopes import geometric, power, slope

SIZES = [16, 32, 64, 256]


def drawn(seed, seeds, law, noise):
    rng = np.random.default_rng(seed)
    return np.exp(law * np.log(SIZES) + noise * rng.normal(size=(seeds, len(SIZES))))


def test_slope_error_and_interval_are_those_of_lines_fitted_by_numpy():
    values = drawn(0, 6, 0.7, 0.3)
    fits = np.polyfit(np.log(SIZES), np.log(values).T, 1)[0]
    found = slope(SIZES, values, 0.1)
    assert found.slope == pytest.approx(fits.mean(), rel=1e-12)
    assert found.stderr == pytest.approx(stats.sem(fits), rel=1e-12)
    low, high = stats.t.interval(0.95, 5, loc=fits.mean(), scale=stats.sem(fits))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.last == pytest.approx(np.mean(np.log(values[:, 3] / values[:, 2])) / np.log(4), rel=1e-12)


def test_intervals_cover_the_law_in_95_of_100():
    inside = 0
    for seed in range(1000):
        found = slope(SIZES, drawn(seed, 5, -0.4, 0.5), 0.1)
        inside += found.low <= -0.4 <= found.high
    assert 930 <= inside <= 970


def test_one_that_drifts_is_found_by_chance_in_at_most_5_of_100_of_many_that_do_not():
    false = 0
    for seed in range(300):
        values = [drawn(1000 * seed + one, 5, 0.1, 0.3) for one in range(8)]
        false += any(slope(SIZES, each, 0.1, alike=8).held == "drifts" for each in values)
    assert false <= 24  # 15 are expected at the very edge of the tolerance, 24 is 2.4 standard deviations more


@pytest.mark.parametrize(
    ("law", "noise", "held"), [(0.0, 0.01, "holds"), (1.0, 0.01, "drifts"), (-1.0, 0.01, "drifts"), (0.0, 2.0, "open")]
)
def test_what_holds_drifts_or_is_open(law, noise, held):
    assert slope(SIZES, drawn(3, 5, law, noise), 0.2).held == held


def test_an_interval_that_reaches_over_the_tolerance_is_open_though_its_middle_holds():
    found = slope([1, 10], np.array([[1.0, 1.0], [1.0, 10**0.3]]), 0.2)
    assert found.slope == pytest.approx(0.15)
    assert found.held == "open"


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_nothing_is_said_of_numbers_that_have_no_logarithm(bad):
    values = drawn(0, 3, 1.0, 0.1)
    values[1, 2] = bad
    assert slope(SIZES, values, 0.1).slope is None
    assert geometric(values[1]) is None


def test_one_network_has_a_slope_and_no_error():
    found = slope([2, 4], np.array([[3.0, 12.0]]), 0.1)
    assert (found.slope, found.stderr, found.held) == (pytest.approx(2.0), None, None)
    assert power([2, 4], np.array([[3.0, 12.0]])) == pytest.approx(2.0)
