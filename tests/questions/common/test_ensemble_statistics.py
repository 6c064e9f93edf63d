"""Standard errors of ensembles, and what blocks of a definite matrix allow, against other routes."""

import math

import numpy as np
import pytest

from hessdiag.questions.chain.sample import sample
from hessdiag.questions.forward.norms import ratio_statistics
from hessdiag.questions.vanishing.norms import _cannot_be_definite
from hessdiag.questions.vanishing.statistics import norm_statistics

AVERAGES = {
    "mean": lambda r, w: (w * r).sum(),
    "rms": lambda r, w: math.sqrt((w * r**2).sum()),
    "kurtosis": lambda r, w: (w * r**4).sum() / (w * r**2).sum() ** 2,
}


def infinitesimal_jackknife(statistic, values, step=1e-6):
    """The standard error of a function of weighted averages, from its slope in each network's weight."""
    n = len(values)
    even = np.full(n, 1 / n)
    slopes = []
    for index in range(n):
        towards = np.eye(n)[index] - even
        ahead, behind = (statistic(values, even + side * step * towards) for side in (1, -1))
        slopes.append((ahead - behind) / (2 * step))
    return math.sqrt(np.square(slopes).sum()) / n


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("scale", [1.0, 1e-200])
def test_errors_of_averages_are_their_slopes_in_the_weights(name, scale):
    networks = 200
    ratios = np.random.default_rng(0).lognormal(0.5, 0.4, networks)  # enough carry both averages
    ratios[:3] = 0.0  # dead networks count as zero
    with np.errstate(divide="ignore"):
        found = ratio_statistics(np.log(ratios) + math.log(scale))
    unit = 1.0 if name == "kurtosis" else scale
    even = np.full(networks, 1 / networks)
    assert getattr(found, name) == pytest.approx(AVERAGES[name](ratios, even) * unit, rel=1e-12)
    expected = infinitesimal_jackknife(AVERAGES[name], ratios) * unit
    assert getattr(found, f"{name}_stderr") == pytest.approx(expected, rel=1e-7)


def test_errors_of_averages_are_not_given_where_few_networks_carry_them():
    logs = np.random.default_rng(0).normal(0.5, 0.8, 40)
    found = ratio_statistics(logs)
    assert (found.mean_stderr, found.rms_stderr) == (None, None)
    assert found.kurtosis_stderr > 0


def test_errors_of_averages_are_how_averages_scatter():
    rng = np.random.default_rng(1)
    found = [ratio_statistics(np.log(rng.uniform(1, 3, 200))) for _ in range(1500)]
    for name in ("mean", "rms", "median"):
        scatter = np.std([getattr(each, name) for each in found])
        said = np.mean([getattr(each, f"{name}_stderr") for each in found])
        assert said == pytest.approx(scatter, rel=0.08), name


def test_errors_of_median_norms_are_how_medians_scatter():
    rng = np.random.default_rng(2)
    found = [norm_statistics(np.exp(2 * rng.normal(-1, 0.7, 300)), np.ones(300, bool)) for _ in range(1500)]
    said = np.mean([each.log_median_stderr for each in found])
    assert said == pytest.approx(np.std([each.log_median for each in found]), rel=0.08)


@pytest.mark.parametrize("networks", [20, 100])
def test_errors_of_medians_cover(networks):
    rng = np.random.default_rng(3)
    logs = rng.normal(0.0, 0.7, (1500, networks))
    for summary in (ratio_statistics, sample, lambda each: norm_statistics(np.exp(2 * each), np.ones(networks, bool))):
        found = [summary(each) for each in logs]
        held = np.mean([abs(each.log_median) <= 1.96 * each.log_median_stderr for each in found])
        assert 0.918 <= held <= 0.975


def squared_blocks(H, sizes):
    """Squared norms of the diagonal blocks, and of all others together."""
    stops = np.cumsum(sizes)
    own = np.array([np.square(H[s - k : s, s - k : s]).sum() for s, k in zip(stops, sizes, strict=True)])
    return own[None], np.array([np.square(H).sum() - own.sum()])


@pytest.mark.parametrize("seed", range(20))
def test_blocks_of_semidefinite_matrices_are_never_called_indefinite(seed):
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((9, int(rng.integers(1, 9)))) * rng.lognormal(0, 2, (9, 1))
    assert not _cannot_be_definite(*squared_blocks(factor @ factor.T, [2, 4, 3]))[0]


def test_blocks_beyond_the_largest_that_a_definite_matrix_can_have():
    """With blocks a_l a_m' the norms are |a_l| |a_m|: the most that is allowed, and anything more has a negative end."""
    a = np.random.default_rng(0).standard_normal(9)
    H = np.outer(a, a)
    own, between = squared_blocks(H, [2, 4, 3])
    assert not _cannot_be_definite(own, between * (1 - 1e-6))[0]
    assert _cannot_be_definite(own, between * (1 + 1e-6))[0]
    more = 1.001 * H
    for start, stop in ((0, 2), (2, 6), (6, 9)):
        more[start:stop, start:stop] = H[start:stop, start:stop]
    assert np.linalg.eigvalsh(more)[0] < 0
    assert _cannot_be_definite(*squared_blocks(more, [2, 4, 3]))[0]
    by_hand = _cannot_be_definite(np.array([[4.0, 9.0]] * 2), np.array([11.999, 12.001]))  # (2 + 3)^2 - 4 - 9 = 12
    assert by_hand.tolist() == [False, True]
