"""The formulas for norms in random networks, each against another way to the same number: C.1 to C.5 of the theory notes.

rho is `p d sigma^2`, the growth of the mean square per layer.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import digamma, k1, polygamma
from scipy.stats import binom
from torch import nn

from hessdiag.nets.initializers import law
from hessdiag.theory.gaussian_nets import (
    dead_probability,
    gate_moments,
    log_factor_cumulants,
    median_log_norm2,
    median_stabilizing_variance,
    moments,
    vjp_median_log_norm2,
)
from hessdiag.theory.rates import fourth_moment_growth, growth
from tests.test_reference_values import holds

LINEAR, RELU = 1.0, 0.0
GAIN = {LINEAR: 1, RELU: 2}


@pytest.mark.parametrize(
    ("init", "bound", "linear", "relu"),
    [
        ("lecun", math.sqrt(1 / 48), 1 / 3, 1 / 6),
        ("lecun_variance", math.sqrt(3 / 48), 1, 1 / 2),
        ("xavier_uniform", math.sqrt(6 / 96), 1, 1 / 2),
        ("he_uniform", math.sqrt(6 / 48), 2, 1),
    ],
)
def test_c1_which_initialization_is_which(init, bound, linear, relu):
    weights = law(init, 48, 48)
    assert math.sqrt(3 * weights.variance) == pytest.approx(bound, rel=1e-12)
    for slope, rho in ((LINEAR, linear), (RELU, relu)):
        assert gate_moments(slope)[0] * 48 * weights.variance == pytest.approx(rho, rel=1e-12)
        assert growth(48, weights.variance, slope).rms == pytest.approx(math.log(rho) / 2, abs=1e-12)


def test_c1_lecun_is_what_torch_does():
    weight = nn.Linear(48, 4000).weight.detach().double()
    assert float(weight.abs().max()) * math.sqrt(48) == pytest.approx(1.0, abs=1e-3)
    z = (float(weight.square().mean()) / law("lecun", 48, 4000).variance - 1) / math.sqrt((9 / 5 - 1) / weight.numel())
    assert abs(z) < 4


@pytest.mark.parametrize("width", [8, 32, 500])
def test_c2_growth_of_the_fourth_moment(width):
    for slope, linear in ((LINEAR, 2), (RELU, 5)):
        found = math.exp(fourth_moment_growth(width, GAIN[slope] / width, slope))
        assert found == pytest.approx(1 + linear / width, rel=1e-12)
        uniform = math.exp(fourth_moment_growth(width, GAIN[slope] / width, slope, kurtosis=1.8))
        second = {LINEAR: 3.6, RELU: 14.4}[slope]
        assert uniform == pytest.approx(1 + linear / width - second / width**2, abs=12 * second / width**3)
    p, p2 = gate_moments(0.3)
    leaky = math.exp(fourth_moment_growth(width, 1 / (p * width), 0.3))
    assert leaky == pytest.approx((width - 1) / width + 3 * p2 / (p**2 * width), rel=1e-12)


@pytest.mark.parametrize("kurtosis", [1, 1.8, 3, 7])
def test_c2_a_linear_output(kurtosis):
    c, variance = 4, 0.3
    result = moments([6, c], [0.2, variance], kurtosis, [RELU, LINEAR], start=(2, 4, 1.5))
    s4, q = result.norm4[1], result.sum4[1]
    assert result.norm4[2] == pytest.approx(variance**2 * (c * (c + 2) * s4 + c * (kurtosis - 3) * q), rel=1e-12)


def test_c2_mean_squares_are_dominated_by_a_few_networks():
    result = moments([32] * 128, 2 / 32, 3, RELU, start=(1, 1, 1 / 32))
    assert result.norm4[-1] / result.norm2[-1] ** 2 == pytest.approx(1.18e8, rel=5e-3)


def test_c2_changing_widths():
    """Fan-in variances keep the mean square per neuron, Xavier's keep neither it nor the norm."""
    widths = [12, 5, 20]
    he = [law("he_normal", fan_in, fan_out).variance for fan_in, fan_out in pairwise(widths)]
    xavier = [law("xavier_normal", fan_in, fan_out).variance for fan_in, fan_out in pairwise(widths)]
    start = (1, 1, 1 / 12)
    assert moments(widths[1:], he, 3, RELU, start).norm2 == pytest.approx([1, 5 / 12, 20 / 12], rel=1e-12)
    first, second = 2 * 5 / 17, 2 * 20 / 25
    assert moments(widths[1:], xavier, 3, LINEAR, start).norm2 == pytest.approx([1, first, first * second], rel=1e-12)


@pytest.mark.parametrize("width", [2, 6, 40])
def test_c2_squares_of_one_layer_are_correlated(width):
    """In the second layer of a linear Gaussian network by 1 / (d + 3): `E a_i^2 a_k^2 = sigma^4 S4`, `E a_i^4 = 3 sigma^4 S4`."""
    result = moments([width], 1 / width, 3, LINEAR, start=(1, 1, 1))
    s2, s4 = result.norm2[1], result.norm4[1]
    assert (s4 - s2**2) / (3 * s4 - s2**2) == pytest.approx(1 / (width + 3), rel=1e-12)
    g = torch.Generator().manual_seed(width)
    h = torch.randn(100_000, width, generator=g, dtype=torch.float64) / width**0.5
    a = torch.randn(100_000, 2, generator=g, dtype=torch.float64) * h.norm(dim=1, keepdim=True)
    pairs = a.square() - a.square().mean(0)
    products, variances = pairs.prod(1), pairs.square().mean(0)
    influence = products - products.mean() / 2 * (pairs.square() / variances).sum(1)
    correlation = float(products.mean() / variances.prod().sqrt())
    error = float(influence.std() / variances.prod().sqrt()) / math.sqrt(len(a))
    assert abs(correlation - 1 / (width + 3)) < 4 * error


@pytest.mark.parametrize(
    ("slope", "ratio", "printed"), [(LINEAR, math.log(2) / 2, "0.346574"), (RELU, math.log(2) / 5, "0.138629")]
)
def test_c3_bound_by_the_variance(slope, ratio, printed):
    """Mallows: the median lies within a deviation of the mean, which says something up to a ratio of depth to width."""
    holds(ratio, printed)
    width = 4000
    per_layer = fourth_moment_growth(width, GAIN[slope] / width, slope)
    assert math.log(2) / per_layer / width == pytest.approx(ratio, rel=1e-3)
    for depth in (1, 2, 3, 4):
        g = math.exp(fourth_moment_growth(32, GAIN[slope] / 32, slope))
        if g**depth < 2:
            median = math.exp(median_log_norm2([32] * depth, GAIN[slope] / 32, slope))
            assert median >= 1 - math.sqrt(g**depth - 1)


@pytest.mark.parametrize("variance", [0.05, 0.7])
def test_c4_cumulants_of_a_layer(variance):
    """Linear: polygammas. ReLU: their mixture over the number of active units, by moments about 0."""
    d = 9
    linear = [math.log(2 * variance) + digamma(d / 2), *(float(polygamma(order, d / 2)) for order in (1, 2))]
    assert log_factor_cumulants(d, variance, LINEAR) == pytest.approx(linear, rel=1e-9)
    k = np.arange(1, d + 1)
    weight = binom.pmf(k, d, 0.5) / (1 - 2.0**-d)
    psi, first, second = math.log(2 * variance) + digamma(k / 2), polygamma(1, k / 2), polygamma(2, k / 2)
    m1, m2, m3 = weight @ psi, weight @ (first + psi**2), weight @ (second + 3 * first * psi + psi**3)
    relu = [m1, m2 - m1**2, m3 - 3 * m2 * m1 + 2 * m1**3]
    assert log_factor_cumulants(d, variance, RELU) == pytest.approx(relu, rel=1e-9)


@pytest.mark.parametrize("width", [64, 1024])
def test_c4_expansions_in_the_width(width):
    mean, variance, _ = log_factor_cumulants(width, 1 / width, LINEAR)
    assert mean == pytest.approx(-1 / width - 1 / (3 * width**2), abs=1 / width**3)
    assert variance == pytest.approx(2 / width + 2 / width**2, abs=2 / width**3)
    mean, variance, _ = log_factor_cumulants(width, 2 / width, RELU)
    assert mean == pytest.approx(-5 / (2 * width), abs=6 / width**2)
    assert variance == pytest.approx(5 / width, abs=20 / width**2)


@pytest.mark.parametrize("slope", [LINEAR, RELU])
def test_c4_median_of_many_layers(slope):
    cumulants = log_factor_cumulants(32, GAIN[slope] / 32, slope)
    estimate = 128 * cumulants.mean - cumulants.third / (6 * cumulants.variance)
    assert median_log_norm2([32] * 128, GAIN[slope] / 32, slope) == pytest.approx(estimate, abs=2e-3)


def test_c4_two_layers_of_two_units():
    """`F` is exponential: the product of two exceeds t with probability `2 sqrt(t) K_1(2 sqrt(t))`."""
    median = brentq(lambda log: 2 * math.exp(log / 2) * k1(2 * math.exp(log / 2)) - 0.5, -5, 2, xtol=1e-14)
    assert median_log_norm2([2, 2], 1 / 2, LINEAR) == pytest.approx(median, abs=1e-9)
    holds(median, "-0.928598")


def test_c4_dead_networks():
    widths, dead = [4, 6, 5], 1 - (1 - 2**-4) * (1 - 2**-6) * (1 - 2**-5)
    assert dead_probability(widths, RELU) == pytest.approx(dead, rel=1e-12)


def test_c4_the_variance_that_keeps_a_chain_s_median():
    assert median_stabilizing_variance(1, LINEAR) == pytest.approx(2 * math.exp(np.euler_gamma), rel=1e-9)


@pytest.mark.parametrize(
    ("slope", "depth", "width", "simulated", "error"),
    [
        (LINEAR, 128, 32, -4.036, 0.026),
        (RELU, 128, 32, -10.583, 0.043),
        (LINEAR, 64, 64, -0.986, 0.016),
        (RELU, 64, 64, -2.597, 0.026),
        (LINEAR, 32, 128, -0.259, 0.010),
        (RELU, 32, 128, -0.598, 0.016),
        (LINEAR, 16, 8, -2.024, 0.006),
        (RELU, 16, 8, -6.024, 0.013),
    ],
)
def test_c4_recorded_simulations(slope, depth, width, simulated, error):
    """Of 8,000 to 200,000 networks, made once with other code."""
    assert abs(median_log_norm2([width] * depth, GAIN[slope] / width, slope) - simulated) < 4 * error


@pytest.mark.parametrize("slope", [LINEAR, RELU, 0.2])
def test_c5_gradient_of_a_fixed_cotangent(slope):
    """One factor less than there are layers."""
    assert vjp_median_log_norm2(7, 5, 0.3, slope) == pytest.approx(median_log_norm2([5] * 6, 0.3, slope), abs=1e-12)
