"""The law of forward norms against tabulated values, closed forms, quadrature and simulated networks."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, binom, chi2

from hessdiag.errors import SpecError
from hessdiag.theory import gaussian_nets
from hessdiag.theory.gaussian_nets import (
    dead_probability,
    log_factor_cumulants,
    median_log_norm2,
    median_stabilizing_variance,
    moments,
    quantile_log_norm2,
    vjp_median_log_norm2,
)

LINEAR, RELU = 1.0, 0.0
GAIN = {LINEAR: 1, RELU: 2}  # d * variance at which the mean square is kept


def simulate(widths, variances, slope, nets, rng, x):
    """Activations h_0 .. h_L of independent networks, each (nets, d_l), and their weights."""
    h, weights = [np.tile(x, (nets, 1))], []
    for width, variance in zip(widths, variances, strict=True):
        W = rng.standard_normal((nets, width, h[-1].shape[1])) * math.sqrt(variance)
        a = np.einsum("nij,nj->ni", W, h[-1])
        h.append(np.where(a > 0, a, slope * a))
        weights.append(W)
    return h, weights


def z_score_of_quantile(sample, value, q):
    return (np.mean(sample <= value) - q) / math.sqrt(q * (1 - q) / len(sample))


@pytest.mark.parametrize("slope", [0.01, 0.3, 2.5])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_leaky_cumulants_agree_with_adaptive_quadrature(slope, width):
    def moment(power):
        """`E log(B + s^2 (1 - B))^power`, the mixing part of log F."""
        total = math.log(slope**2) ** power * 2.0**-width
        for k in range(1, width):
            law = beta(k / 2, (width - k) / 2)

            def integrand(y, law=law):
                b = 1 / (1 + math.exp(-y))
                return math.log(b + slope**2 * (1 - b)) ** power * law.pdf(b) * b * (1 - b)

            total += binom.pmf(k, width, 0.5) * sum(
                quad(integrand, *ends, epsabs=1e-13, limit=400)[0] for ends in [(-70, -9), (-9, 0), (0, 9), (9, 30)]
            )
        return total

    m1, m2, m3 = moment(1), moment(2), moment(3)
    chi_square = log_factor_cumulants(width, 0.7, LINEAR)
    leaky = log_factor_cumulants(width, 0.7, slope)
    assert leaky.mean - chi_square.mean == pytest.approx(m1, abs=1e-10)
    assert leaky.variance - chi_square.variance == pytest.approx(m2 - m1**2, abs=1e-9)
    assert leaky.third - chi_square.third == pytest.approx(m3 - 3 * m1 * m2 + 2 * m1**3, abs=1e-9)


def test_only_relu_layers_die():
    assert dead_probability([8] * 16, 0.01) == dead_probability([], RELU) == 0


def test_the_last_layer_has_no_factor():
    assert vjp_median_log_norm2(1, 16, 2 / 16, RELU) == 0


@pytest.mark.parametrize("slope", [LINEAR, RELU, 0.2])
def test_stabilizing_variance_at_finite_depth_gives_median_one(slope):
    factor = median_stabilizing_variance(32, slope, depth=128)
    p = (1 + slope**2) / 2
    assert median_log_norm2([32] * 128, factor / (p * 32), slope) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("width", [1, 2, 3, 10, 300, 4000])
@pytest.mark.parametrize("q", [1e-4, 0.05, 0.5, 0.95, 1 - 1e-4])
def test_one_linear_layer_is_a_chi_square(width, q):
    expected = math.log(0.3 * chi2.ppf(q, width))
    assert quantile_log_norm2(q, [width], 0.3, LINEAR) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("q", [0.001, 0.3, 0.9])
@pytest.mark.parametrize("width", [1, 2, 7])
def test_one_relu_layer_is_a_mixture_of_chi_squares(width, q):
    x = math.exp(quantile_log_norm2(q, [width], 0.3, RELU)) / 0.3
    k = np.arange(1, width + 1)
    weight = binom.pmf(k, width, 0.5) / (1 - 2.0**-width)
    assert weight @ chi2.cdf(x, k) == pytest.approx(q, abs=1e-11)


@pytest.mark.parametrize("q", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("slope", [0.01, 0.4])
def test_one_leaky_layer_is_a_mixture_of_sums(slope, q):
    width = 4
    x = math.exp(quantile_log_norm2(q, [width], 0.3, slope)) / 0.3

    def cdf(k):
        if k == 0:
            return chi2.cdf(x / slope**2, width)
        if k == width:
            return chi2.cdf(x, width)

        def integrand(w):  # over the root of the part below zero, which is smooth at 0
            return 2 * w * chi2.pdf(w**2, width - k) * chi2.cdf(x - (slope * w) ** 2, k)

        end = min(math.sqrt(x) / slope, 9.0)
        return quad(integrand, 0, end, epsabs=1e-12, limit=200)[0]

    total = sum(binom.pmf(k, width, 0.5) * cdf(k) for k in range(width + 1))
    assert total == pytest.approx(q, abs=1e-9)


@pytest.mark.parametrize("slope", [LINEAR, RELU, 0.01, 0.5])
def test_quantiles_agree_with_simulated_networks_of_mixed_widths(slope):
    rng = np.random.default_rng(17)
    widths, variances = [5, 3, 9, 3], [0.2, 0.9, 0.3, 0.4]
    h, _ = simulate(widths, variances, slope, 20_000, rng, x=np.array([1.0, -2.0, 0.5]))
    norm2 = (h[-1] ** 2).sum(1) / (h[0] ** 2).sum(1)
    dead = dead_probability(widths, slope)
    assert abs(np.mean(norm2 == 0) - dead) <= 4 * math.sqrt(dead * (1 - dead) / 20_000)
    alive = np.log(norm2[norm2 > 0])
    for q in (0.05, 0.5, 0.95):
        assert abs(z_score_of_quantile(alive, quantile_log_norm2(q, widths, variances, slope), q)) < 4
    with np.errstate(divide="ignore"):
        everyone = np.log(norm2)
    value = quantile_log_norm2((0.6 - dead) / (1 - dead), widths, variances, slope)
    assert abs(z_score_of_quantile(everyone, value, 0.6)) < 4


def test_layers_may_have_slopes_of_their_own():
    mixed = quantile_log_norm2(0.5, [6, 6, 2], [0.3, 0.3, 0.5], [RELU, RELU, LINEAR])
    rng = np.random.default_rng(5)
    h, _ = simulate([6, 6], [0.3, 0.3], RELU, 20_000, rng, x=np.ones(3))
    z, _ = simulate([2], [0.5], LINEAR, 20_000, rng, x=np.ones(1))
    norm2 = (h[-1] ** 2).sum(1) / 3 * (z[-1] ** 2).sum(1)
    assert abs(z_score_of_quantile(np.log(norm2[norm2 > 0]), mixed, 0.5)) < 4


def test_order_of_layers_does_not_matter_and_no_layers_change_nothing():
    forward = quantile_log_norm2(0.2, [3, 8, 3], [0.1, 0.2, 0.3], RELU)
    assert forward == pytest.approx(quantile_log_norm2(0.2, [3, 3, 8], [0.3, 0.1, 0.2], RELU), abs=1e-11)
    assert quantile_log_norm2(0.2, [], 1.0, RELU) == 0


@pytest.mark.parametrize("slope", [RELU, 0.3])
def test_median_vjp_agrees_with_simulation_in_every_layer(slope):
    rng = np.random.default_rng(6)
    depth, width, variance, nets = 4, 6, 0.25, 8000
    x = np.array([1.0, 2.0, -1.0, 0.0, 1.0, 1.0])
    h, weights = simulate([width] * (depth - 1), [variance] * (depth - 1), slope, nets, rng, x)
    weights.append(rng.standard_normal((nets, 2, width)) * math.sqrt(variance))
    u = np.tile([0.6, -0.8], (nets, 1))
    median = vjp_median_log_norm2(depth, width, variance, slope)
    for layer in range(depth, 0, -1):
        norm2 = (u**2).sum(1) * (h[layer - 1] ** 2).sum(1) / (x @ x)
        assert abs(z_score_of_quantile(np.log(norm2[norm2 > 0]), median, 0.5)) < 4
        if layer > 1:
            gate = np.where(h[layer - 1] > 0, 1.0, slope)
            u = np.einsum("nij,ni->nj", weights[layer - 1], u) * gate


@pytest.mark.parametrize("slope", [LINEAR, RELU, 0.3])
def test_moments_agree_with_simulated_uniform_networks(slope):
    rng = np.random.default_rng(9)
    x, widths, variances, nets = np.array([1.0, -1.0, 2.0]), [7, 4], [0.3, 0.2], 60_000
    h, predicted = np.tile(x, (nets, 1)), moments(widths, variances, 1.8, slope, start=(6, 36, 18))
    for layer, (width, variance) in enumerate(zip(widths, variances, strict=True), start=1):
        bound = math.sqrt(3 * variance)
        a = np.einsum("nij,nj->ni", rng.uniform(-bound, bound, (nets, width, h.shape[1])), h)
        h = np.where(a > 0, a, slope * a)
        norm2 = (h**2).sum(1)
        for sample, moment in zip((norm2, norm2**2, (h**4).sum(1)), predicted, strict=True):
            assert abs(sample.mean() - moment[layer]) < 4 * sample.std() / math.sqrt(nets)


@pytest.mark.parametrize(
    "call",
    [
        lambda: quantile_log_norm2(0.0, [3], 1.0, LINEAR),
        lambda: quantile_log_norm2(1e-12, [3], 1.0, LINEAR),
        lambda: quantile_log_norm2(0.5, [3, 0], 1.0, LINEAR),
        lambda: quantile_log_norm2(0.5, [3, 3], [1.0, 1.0, 1.0], LINEAR),
        lambda: median_log_norm2([3], -1.0, LINEAR),
        lambda: log_factor_cumulants(3, 0.0, RELU),
        lambda: vjp_median_log_norm2(0, 3, 1.0, RELU),
        lambda: moments([3], 1.0, 0.5, RELU, start=(1, 1, 1)),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(SpecError):
        call()


@pytest.mark.parametrize(("slope", "width"), [(0.0, 1), (0.0, 32), (1.0, 2), (1.0, 32), (0.01, 2), (-0.5, 8)])
def test_medians_of_all_depths_are_those_of_each(slope, width, monkeypatch):
    calls, real = [], gaussian_nets._characteristic
    monkeypatch.setattr(gaussian_nets, "_characteristic", lambda *args: calls.append(args) or real(*args))
    depths = [1, 2, 3, 4, 7, 8, 31, 32, 63, 64, 100, 127, 128, 150]
    found = gaussian_nets.median_log_norms2(150, width, 1.3 / width, slope)
    assert len(calls) == 8  # once per octave
    for depth in depths:
        exact = gaussian_nets.median_log_norm2([width] * depth, 1.3 / width, slope)
        assert found[depth - 1] == pytest.approx(exact, rel=0, abs=1e-10), depth
    assert len(found) == 150
    with pytest.raises(SpecError):
        gaussian_nets.median_log_norms2(0, width, 1.0, slope)
