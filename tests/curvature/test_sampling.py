import math

import numpy as np
import pytest
from scipy import stats

from hessdiag.curvature import sampling
from hessdiag.curvature.sampling import Stratum


def _population(rng, size=600, decades=1.5):
    """Row sums over some decades with a tenth of zero rows, and numerators that are a noisy share of them."""
    denominator = np.exp(rng.normal(0, decades, size)) * (rng.random(size) > 0.1)
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
    strata = sampling.strata_by_scale([np.arange(400), np.arange(400, 600)], guess, 80)
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
    strata = sampling.strata_by_scale([np.arange(150), np.arange(150, 200)], scale, 100)
    assert sorted(np.concatenate(strata).tolist()) == np.flatnonzero(scale).tolist()
    assert all((stratum < 150).all() or (stratum >= 150).all() for stratum in strata)


def test_no_more_strata_than_rows_can_fill():
    groups = [np.arange(100 * i, 100 * (i + 1)) for i in range(5)]
    scale = np.exp(np.linspace(0, 3, 500))
    few, many = (sampling.strata_by_scale(groups, scale, rows) for rows in (40, 1000))
    assert 5 < len(few) <= 40 / 4
    assert 50 < len(many) <= 1000 / 4
    assert [sampling.allocate(few, scale, rows).sum() for rows in (7, 40, 41, 499, 500, 900)] == [
        7,
        40,
        41,
        499,
        500,
        500,
    ]
    assert (sampling.allocate(few, scale, 40) >= 4).all()


def test_groups_are_joined_until_each_has_rows_enough():
    groups = [np.arange(10 * i, 10 * (i + 1)) for i in range(6)]
    scale = np.repeat([1.0, 1.0, 0.0, 5.0, 9.0, 2.0], 10)
    owners = [0, 1, 1, 2, 2, 3]
    joined = {rows: sampling.joined_groups(groups, owners, scale, rows) for rows in (1000, 16, 15, 8, 3)}
    assert joined[1000] == [[0], [1], [3], [4], [5]]
    assert joined[16] == [[0], [1], [3, 4], [5]]  # two of one owner, though others hold less
    assert joined[15] == [[0, 1], [3, 4], [5]]
    assert joined[8] == [[0, 1, 3, 4], [5]]  # the last one's at the end
    assert joined[3] == [[0, 1, 3, 4, 5]]


def test_a_total_of_which_few_are_missing_has_few_degrees_of_freedom():
    """20 of 21: the error is that of the one that is missing, whatever the spread of 20 tells of a mean."""
    shares = np.linspace(0.1, 0.5, 20)
    found = sampling.ratio(shares, np.ones(20), [Stratum(21, np.arange(20))])
    assert found.interval == pytest.approx(_logit_interval(0.3, found.stderr, 3), rel=1e-9)


def test_interval_by_hand():
    """Four of ten rows with denominators of 1: mean, finite population, Student's t with three degrees, logit."""
    shares = np.array([0.1, 0.2, 0.4, 0.5])
    found = sampling.ratio(shares, np.ones(4), [Stratum(10, np.arange(4))])
    variance = ((0.2**2 + 0.1**2 + 0.1**2 + 0.2**2) / 3) / 4 * (1 - 4 / 10)
    assert found.value == pytest.approx(0.3, rel=1e-12)
    assert found.stderr == pytest.approx(math.sqrt(variance), rel=1e-12)
    reach = 3.182446305284263 * math.sqrt(variance) / (0.3 * 0.7)  # a table's t(0.975, 3)
    middle = math.log(0.3 / 0.7)
    assert found.interval == pytest.approx([1 / (1 + math.exp(-middle + side * reach)) for side in (1, -1)], rel=1e-9)


def _logit_interval(value, stderr, freedom):
    reach = stats.t.ppf(0.975, freedom) * stderr / (value * (1 - value))
    middle = math.log(value / (1 - value))
    return [1 / (1 + math.exp(-middle + side * reach)) for side in (1, -1)]


@pytest.mark.parametrize("n", [2, 3])
def test_degrees_of_freedom_by_hand(n):
    """Satterthwaite's, of the deviations and of the mass, each where it is the smaller one: two strata of n rows each.

    Whole strata of 20 with denominators of 1 (and of 1/2 in the second, where the mass is to differ). Deviations of
    +-d in a stratum have the variance v = 2 d^2 / (n - 1), and the part 20^2 (1 - n / 20) / n v of the total's.
    """
    strata = [Stratum(20, np.arange(n)), Stratum(20, np.arange(n, 2 * n))]
    shape = np.zeros(n)
    shape[:2] = 1, -1
    factor, v = 20**2 * (1 - n / 20) / n, 2 / (n - 1)
    for mass, spread, deviations in ((1.0, 0.01, True), (0.5, 0.1, False)):
        denominator = np.repeat([1.0, mass], n)
        numerator = 0.3 * denominator + np.concatenate([0.1 * shape, spread * shape])
        parts = [factor * v * 0.1**2, factor * v * spread**2]
        masses = [n * (20 / n) ** 2, n * (20 / n * mass) ** 2]
        by_deviations, by_mass = (sum(x) ** 2 * (n - 1) / sum(y**2 for y in x) for x in (parts, masses))
        assert (by_deviations < by_mass) is deviations
        found = sampling.ratio(numerator, denominator, strata)
        assert found.stderr == pytest.approx(math.sqrt(sum(parts)) / (20 + 20 * mass), rel=1e-12)
        expected = _logit_interval(0.3, found.stderr, min(by_deviations, by_mass))
        assert found.interval == pytest.approx(expected, rel=1e-9)


def test_one_row_of_a_stratum_counts_with_its_squared_deviation():
    shares, whole = np.array([0.2, 0.4, 0.9]), np.ones(3)
    found = sampling.ratio(shares, whole, [Stratum(20, np.array([0, 1])), Stratum(5, np.array([2]))])
    value = (20 * 0.3 + 5 * 0.9) / 25
    variance = 20**2 * (1 - 2 / 20) / 2 * 0.02 + 5**2 * (1 - 1 / 5) * (0.9 - value) ** 2
    assert found.value == pytest.approx(value)
    assert found.stderr == pytest.approx(math.sqrt(variance) / 25, rel=1e-12)


def test_a_stratum_without_rows_leaves_no_ratio():
    assert sampling.ratio(np.ones(4), np.ones(4), [Stratum(9, np.arange(4)), Stratum(3, np.zeros(0, int))]) is None


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_rows_that_are_alike_are_no_proof_for_the_rest(value):
    """With 5 % of the rows different, 20 alike are drawn by luck in one of three samples."""
    low, high = sampling.ratio(np.full(20, value), np.ones(20), [Stratum(1000, np.arange(20))]).interval
    assert high - low > 0.1
    assert low <= value <= high


def test_a_single_row_that_holds_the_mass_says_nothing():
    whole = np.array([1e6, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert sampling.ratio(whole * 0.1, whole, [Stratum(100, np.arange(6))]).interval == (0.0, 1.0)


def test_what_is_known_does_not_vouch_for_what_is_left():
    """Complete strata hold most; of what is left, one row was seen to hold something, or none."""
    whole = np.concatenate([np.ones(20), [0.5], np.zeros(5)])
    for held in (whole, np.where(np.arange(26) < 20, whole, 0.0)):
        strata = [Stratum(20, np.arange(20)), Stratum(12, np.arange(20, 26))]
        assert sampling.ratio(held * 0.1, held, strata).interval == (0.0, 1.0)


def test_heavy_rows_may_hide_where_none_was_drawn():
    """By hand: of 12 left in a stratum whose 10 drawn are empty, 12 (1 - 0.05^(1/10)) may be like the others."""
    shares, whole = np.tile([0.2, 0.4], 15), np.repeat([1.0, 0.0], [20, 10])
    strata = [(40, np.arange(20)), (22, np.arange(20, 30))]
    alike, unlike = (
        sampling.ratio(shares * whole, whole, [Stratum(*part, by_size) for part in strata]) for by_size in (True, False)
    )
    hidden = (12 * (1 - 0.05 ** (1 / 10)) / 2) ** 2 * 0.1**2
    assert (alike.stderr * 40) ** 2 == pytest.approx(40**2 * (1 - 20 / 40) / 20 * 0.1**2 * 20 / 19)
    assert (unlike.stderr * 40) ** 2 == pytest.approx((alike.stderr * 40) ** 2 + hidden)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.6, 1.0])
def test_intervals_of_a_beginning_cover(part):
    rng = np.random.default_rng(5)
    top, bottom = _population(rng, 1500, decades=1.0)
    truth = top.sum() / bottom.sum()
    groups = np.split(np.arange(1500), [40, 700, 720, 1300])
    inside = 0
    for _ in range(400):
        order = sampling.spread_order(groups, rng, sampling.BEGINNING)[: int(1500 * part)]
        place = np.full(1500, -1)
        place[order] = np.arange(len(order))
        strata = [Stratum(len(group), place[group][place[group] >= 0]) for group in groups]
        low, high = sampling.ratio(top[order], bottom[order], strata).interval
        inside += low - 1e-12 <= truth <= high + 1e-12
    assert 0.92 <= inside / 400 <= (0.99 if part < 1 else 1.0)


def test_stopping_early_leaves_every_group_represented():
    groups = [np.arange(1000), np.arange(1000, 1010), np.arange(1010, 1400)]
    order = sampling.spread_order(groups, np.random.default_rng(3), 8)
    assert sorted(order.tolist()) == list(range(1400))
    first = np.digitize(order[:24], [1000, 1010])
    assert first.tolist() == [0, 1, 2] * 8
    half = np.digitize(order[:700], [1000, 1010])
    assert 485 <= (half == 0).sum() <= 505
    assert 185 <= (half == 2).sum() <= 200
