import math

import numpy as np
import pytest
from scipy import stats

from hessdiag.statistics import sampling
from hessdiag.statistics.sampling import Draw, Stratum


def _population(rng, size=600, decades=1.5):
    """Row sums over some decades with a tenth of zero rows, and numerators that are a noisy share of them."""
    denominator = np.exp(rng.normal(0, decades, size)) * (rng.random(size) > 0.1)
    return denominator * rng.uniform(0.001, 0.03, size), denominator


def _guesses(rng, bottom):
    """Two of each row, off by a factor of two."""
    return bottom * np.exp(rng.normal(0, 0.7, (2, len(bottom))))


def _strata(draw, groups, order):
    """What `ratio` takes, of a beginning of an order."""
    place = np.full(len(draw.sizes), -1)
    place[order] = np.arange(len(order))
    return [draw.stratum(group, place[group]) for group in groups]


@pytest.mark.parametrize("rows", [20, 80, 240, 420])
def test_interval_covers_and_is_no_wider_than_it_must_be(rows):
    rng = np.random.default_rng(0)
    top, bottom = _population(rng)
    truth = top.sum() / bottom.sum()
    alive = np.flatnonzero(bottom)
    groups = [alive[alive < 400], alive[alive >= 400]]
    inside, errors, stderrs = 0, [], []
    for _ in range(500):
        draw = Draw.by_guess(_guesses(rng, bottom), groups, rng)
        order = draw.order(groups)[:rows]
        estimate = sampling.ratio(top[order], bottom[order], _strata(draw, groups, order))
        inside += estimate.interval[0] <= truth <= estimate.interval[1]
        errors.append(estimate.value - truth)
        stderrs.append(estimate.stderr)
    assert 0.92 <= inside / 500 <= (0.98 if rows < 400 else 1.0)  # of the few that are left little is known
    assert np.sqrt(np.mean(np.square(stderrs))) == pytest.approx(np.std(errors), rel=0.2 if rows == 20 else 0.15)
    assert abs(np.mean(errors)) < 0.02 * truth


def test_totals_are_unbiased_and_sizes_add_up():
    """Of every beginning: weights times sizes are the stratum's, and estimates of a total are right on average."""
    rng = np.random.default_rng(4)
    bottom = rng.lognormal(0, 1.5, 60)
    found = {1: [], 5: [], 20: [], 50: [], 59: []}
    for _ in range(3000):
        draw = Draw.of(bottom * rng.lognormal(0, 0.5, 60), rng)
        order = draw.order([np.arange(60)])
        for rows, estimates in found.items():
            drawn = np.isin(np.arange(60), order[:rows])
            weights = draw.weights(np.arange(60), drawn)
            assert weights.min() >= 1
            assert weights @ draw.sizes[drawn] == pytest.approx(draw.sizes.sum(), rel=1e-12)
            estimates.append(weights @ bottom[drawn])
    for rows, estimates in found.items():
        assert np.mean(estimates) == pytest.approx(bottom.sum(), rel=0.03), rows


def test_guesses_that_agree_are_believed():
    rng = np.random.default_rng(6)
    true = np.exp(np.linspace(0, 3, 200))
    everyone = [np.arange(200)]
    exact = Draw.by_guess(np.stack([true, true]), everyone, rng).sizes
    noise = Draw.by_guess(rng.lognormal(0, 1.0, (2, 200)), everyone, rng).sizes
    assert exact.max() / exact.min() > 8  # 20, but for the part of the mean that all rows have
    assert exact.sum() == pytest.approx(true.sum(), rel=1e-12)
    assert noise.max() / noise.min() < 4  # of guesses that span a factor of 60
    zeros = Draw.by_guess(np.stack([true, true]) * (np.arange(200) > 50), everyone, rng)
    assert (zeros.sizes[:51] == 0).all()
    assert set(zeros.order(everyone)[-51:].tolist()) == set(range(51))


def test_heavy_rows_come_early():
    rng = np.random.default_rng(7)
    sizes = np.repeat([1.0, 100.0], [90, 10])
    early = [np.isin(np.arange(90, 100), Draw.of(sizes, rng).order([np.arange(100)])[:20]).sum() for _ in range(50)]
    assert min(early) == 10


def test_prediction_of_what_is_left_by_hand():
    """Alike, it is the variance of a simple sample; else deviations per size spread about what stands for the rest."""
    deviation = np.array([1.0, 2.0, 6.0])
    alike = Stratum(12, np.arange(3)).prediction(deviation)
    assert alike == pytest.approx(12**2 * (1 - 3 / 12) / 3 * deviation.var(ddof=1))
    stratum = Stratum(5, np.arange(3), np.array([1.0, 2.0, 2.0]), np.array([4.0, 2.0, 1.0]), 2.5)
    spread = ((1 / 4 - 8 / 3) ** 2 + (1 - 8 / 3) ** 2 + (6 - 8 / 3) ** 2) / 2
    assert stratum.prediction(deviation) == pytest.approx(spread * (2.5 + 2**2 + 1**2))


def test_what_is_unseen_may_be_anything():
    shares = np.linspace(0.1, 0.5, 20)
    strata = [Stratum(40, np.arange(20))]
    seen, mixed = (sampling.ratio(shares, np.ones(20), strata, unseen) for unseen in (0.0, 0.25))
    assert mixed.interval == pytest.approx((0.75 * seen.interval[0], 0.75 * seen.interval[1] + 0.25))


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


def test_so_many_rows_are_allocated():
    sizes = np.array([5, 15, 60, 140, 280])
    assert [sampling.allocate(sizes, rows).sum() for rows in (7, 40, 499, 500, 900)] == [7, 40, 499, 500, 500]
    assert (sampling.allocate(sizes, 40) >= 4).all()


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
    jackknife = found.stderr / (1 - 1 / 21 / 20)  # less what each row has to say in the mean, as one of 20
    assert found.interval == pytest.approx(_logit_interval(0.3, jackknife, 3), rel=1e-9)


def test_interval_by_hand():
    """Four of ten rows with denominators of 1: mean, finite population, Student's t with three degrees, logit."""
    shares = np.array([0.1, 0.2, 0.4, 0.5])
    found = sampling.ratio(shares, np.ones(4), [Stratum(10, np.arange(4))])
    variance = ((0.2**2 + 0.1**2 + 0.1**2 + 0.2**2) / 3) / 4 * (1 - 4 / 10)
    assert found.value == pytest.approx(0.3, rel=1e-12)
    assert found.stderr == pytest.approx(math.sqrt(variance), rel=1e-12)
    jackknife = math.sqrt(variance) / (1 - (1 - 4 / 10) / 4)  # less a quarter of the part that is not certain
    reach = 3.182446305284263 * jackknife / (0.3 * 0.7)  # a table's t(0.975, 3)
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
        leverages = [(1 - n / 20) * 20 / n * x / (20 + 20 * mass) for x in (1.0, mass)]
        without = [part / (1 - leverage) ** 2 for part, leverage in zip(parts, leverages, strict=True)]
        masses = [n * (20 / n) ** 2, n * (20 / n * mass) ** 2]
        by_deviations, by_mass = (sum(x) ** 2 * (n - 1) / sum(y**2 for y in x) for x in (without, masses))
        assert (by_deviations < by_mass) is deviations
        found = sampling.ratio(numerator, denominator, strata)
        assert found.stderr == pytest.approx(math.sqrt(sum(parts)) / (20 + 20 * mass), rel=1e-12)
        jackknife = math.sqrt(sum(without)) / (20 + 20 * mass)
        expected = _logit_interval(0.3, jackknife, min(by_deviations, by_mass))
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


@pytest.mark.parametrize("part", [0.1, 0.3, 0.6, 1.0])
def test_intervals_of_a_beginning_cover(part):
    rng = np.random.default_rng(5)
    top, bottom = _population(rng, 1500, decades=1.0)
    truth = top.sum() / bottom.sum()
    groups = np.split(np.arange(1500), [40, 700, 720, 1300])
    inside = 0
    for _ in range(400):
        draw = Draw.of(np.ones(1500), rng)
        order = draw.order(groups, sampling.BEGINNING)[: int(1500 * part)]
        strata = _strata(draw, groups, order)
        low, high = sampling.ratio(top[order], bottom[order], strata).interval
        inside += low - 1e-12 <= truth <= high + 1e-12
    assert 0.92 <= inside / 400 <= (0.99 if part < 1 else 1.0)


def test_stopping_early_leaves_every_group_represented():
    groups = [np.arange(1000), np.arange(1000, 1010), np.arange(1010, 1400)]
    order = Draw.of(np.ones(1400), np.random.default_rng(3)).order(groups, 8)
    assert sorted(order.tolist()) == list(range(1400))
    first = np.digitize(order[:24], [1000, 1010])
    assert first.tolist() == [0, 1, 2] * 8
    half = np.digitize(order[:700], [1000, 1010])
    assert 485 <= (half == 0).sum() <= 505
    assert 185 <= (half == 2).sum() <= 200
