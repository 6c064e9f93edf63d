"""Rates against the finite-depth formulas, tabulated simulations and simulated deep networks."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from hessdiag.errors import SpecError
from hessdiag.theory.expectations import expected_block_norm2, expected_gradient_norm2
from hessdiag.theory.gaussian_nets import median_log_norm2, moments
from hessdiag.theory.rates import fourth_moment_growth, growth, inverse_participation, rates

LINEAR, RELU = 1.0, 0.0


@pytest.mark.parametrize("width", [1, 3, 40, 2000])
def test_inverse_participation_has_its_closed_forms(width):
    k = np.arange(1, width + 1)
    relu = binom.pmf(k, width, 0.5) @ (3 / (k + 2)) / (1 - 2.0**-width)
    assert inverse_participation(width, LINEAR) == pytest.approx(3 / (width + 2), rel=1e-10)
    assert inverse_participation(width, RELU) == pytest.approx(relu, rel=1e-10)


@pytest.mark.parametrize("slope", [0.01, 0.2, 3.0])
def test_inverse_participation_agrees_with_simulation(slope):
    a = np.random.default_rng(0).standard_normal((50_000, 5))
    h2 = np.where(a > 0, a, slope * a) ** 2
    sample = (h2**2).sum(1) / h2.sum(1) ** 2
    error = sample.std() / math.sqrt(len(sample))
    assert abs(sample.mean() - inverse_participation(5, slope)) < 4 * error


@pytest.mark.parametrize(
    ("slope", "variance", "per_layer"),
    [
        (LINEAR, 1 / 96, -math.log(3) / 2),
        (RELU, 1 / 96, -math.log(6) / 2),
        (LINEAR, 1 / 32, 0),
        (RELU, 2 / 32, 0),
    ],
)
def test_mean_square_growth_of_the_named_initializations(slope, variance, per_layer):
    assert growth(32, variance, slope).rms == pytest.approx(per_layer, abs=1e-12)


@pytest.mark.parametrize("slope", [LINEAR, RELU, 0.3])
def test_median_growth_is_that_of_the_exact_median(slope):
    setting = (6, 0.3, slope)
    deep, deeper = (median_log_norm2([6] * depth, 0.3, slope) for depth in (300, 301))
    assert growth(*setting).median == pytest.approx((deeper - deep) / 2, abs=1e-4)


@pytest.mark.parametrize(
    ("slope", "variance", "depth", "width", "median", "error"),
    [
        (LINEAR, 1 / 32, 128, 32, -3.809, 0.025),
        (RELU, 2 / 32, 128, 32, -9.765, 0.041),
        (LINEAR, 1 / 8, 16, 8, -1.736, 0.006),
        (RELU, 2 / 8, 16, 8, -4.965, 0.012),
    ],
)
def test_uniform_weights_shift_the_median_as_simulated(slope, variance, depth, width, median, error):
    gaussian = median_log_norm2([width] * depth, variance, slope)
    shift = 2 * depth * (growth(width, variance, slope, 1.8).median - growth(width, variance, slope).median)
    tolerance = 0.05 if width >= 32 else 0.25  # first order in 1/width
    assert abs(gaussian + shift - median) < 4 * error + tolerance * abs(shift)
    assert abs(gaussian - median) > 4 * error  # the shift is needed


@pytest.mark.parametrize("kurtosis", [1.0, 1.8, 3.0, 5.0])
@pytest.mark.parametrize("slope", [LINEAR, RELU, 0.3])
def test_fourth_moment_growth_is_that_of_the_recursion(slope, kurtosis):
    fourth = moments([4] * 81, 0.3, kurtosis, slope, start=(1, 1, 0.5)).norm4
    assert fourth_moment_growth(4, 0.3, slope, kurtosis) == pytest.approx(math.log(fourth[-1] / fourth[-2]), abs=1e-9)


@pytest.mark.parametrize("slope", [LINEAR, RELU, 0.3])
@pytest.mark.parametrize("rho", [1 / 6, 1 / 3, 1.0, 1.3])
def test_mean_square_rates_are_the_limits_of_the_exact_expectations(slope, rho):
    width = 5
    variance = rho / ((1 + slope**2) / 2 * width)
    predicted = rates(width, variance, slope)
    nets = [[width] * depth for depth in (91, 92)]
    gradient = [expected_gradient_norm2(net, variance, slope)[0] for net in nets]
    blocks = [expected_block_norm2(net, variance, slope) for net in nets]
    measured = {
        "gradient": gradient,
        "hessian_diagonal_blocks": [b[0, 0] for b in blocks],
        "hessian_offdiagonal_blocks": [b[0, 1] for b in blocks],
    }
    for quantity, (before, after) in measured.items():
        assert predicted[quantity]["rms"] == pytest.approx(math.log(after / before) / 2, abs=1e-6)
    total = [b.sum() for b in blocks]
    assert predicted["hessian"]["rms"] == pytest.approx(math.log(total[1] / total[0]) / 2, abs=0.02)


def simulate_deep(depth, width, variance, slope, nets, rng):
    """Norms of layer 1's gradient, its diagonal block and its block with layer L, over live networks."""
    x = np.ones(width) / math.sqrt(width)
    y = x[::-1]
    h, C = np.tile(x, (nets, 1)), np.tile(np.eye(width), (nets, 1, 1))
    for layer in range(1, depth):
        W = rng.standard_normal((nets, width, width)) * math.sqrt(variance)
        a = np.einsum("nij,nj->ni", W, h)
        gate = np.where(a > 0, 1.0, slope)
        h = gate * a
        C = gate[:, :, None] * (W @ C if layer > 1 else C)  # dh_layer / da_1
    last = rng.standard_normal((nets, width, width)) * math.sqrt(variance)
    residual = np.einsum("nij,nj->ni", last, h) - y
    P = last @ C  # dz / da_1
    gradient = np.linalg.norm(np.einsum("noi,no->ni", P, residual), axis=1)
    diagonal = np.linalg.norm(P.transpose(0, 2, 1) @ P, axis=(1, 2))
    block = np.einsum("noi,nj->nioj", P, h) + np.einsum("no,nji->nioj", residual, C)
    off_diagonal = np.sqrt((block**2).sum((1, 2, 3)))
    alive = np.linalg.norm(h, axis=1) > 0
    return {
        "gradient": gradient[alive],
        "hessian_diagonal_blocks": diagonal[alive],
        "hessian_offdiagonal_blocks": off_diagonal[alive],
    }


@pytest.mark.parametrize(
    ("slope", "width", "variance"),
    [(LINEAR, 3, 1 / 9), (LINEAR, 3, 0.8), (RELU, 12, 1 / 12), (RELU, 12, 0.35)],
)
def test_median_rates_agree_with_simulated_deep_networks(slope, width, variance):
    rng = np.random.default_rng(21)
    nets, depths = 1500, (20, 45)
    shallow, deep = (simulate_deep(depth, width, variance, slope, nets, rng) for depth in depths)
    for quantity, predicted in rates(width, variance, slope).items():
        if quantity not in deep:
            continue
        logs = [np.log(sample[quantity]) for sample in (shallow, deep)]
        rate = (np.median(logs[1]) - np.median(logs[0])) / (depths[1] - depths[0])
        error = math.sqrt(sum(math.pi / 2 * log.var() / len(log) for log in logs)) / (depths[1] - depths[0])
        assert abs(rate - predicted["median"]) < 4 * error + 0.01  # Jacobians still settle at these depths


@pytest.mark.parametrize("slope", [LINEAR, RELU])
def test_the_hessian_follows_its_larger_blocks(slope):
    for variance in (0.05, 0.2, 0.9):
        predicted = rates(8, variance, slope, kurtosis=1.8)
        for kind in ("rms", "median"):
            parts = [predicted[f"hessian_{part}_blocks"][kind] for part in ("diagonal", "offdiagonal")]
            assert predicted["hessian"][kind] == max(parts)


@pytest.mark.parametrize("call", [growth, rates])
@pytest.mark.parametrize("arguments", [(0, 1.0, LINEAR), (3, 0.0, LINEAR), (3, 1.0, LINEAR, 0.5)])
def test_what_makes_no_sense_is_refused(call, arguments):
    with pytest.raises(SpecError):
        call(*arguments)
