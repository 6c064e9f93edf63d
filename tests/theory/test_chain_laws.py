"""The chain's laws against tabulated values, quadrature, autograd and simulation."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from hessdiag.errors import SpecError
from hessdiag.nets.chain import Chain
from hessdiag.theory.chain import (
    critical_scale,
    diagonal_size,
    gradient_size,
    inertia,
    inertia_shares,
    offdiagonal_size,
    product_size,
)
from hessdiag.theory.chain_plateau import flow_time, flow_time_bound, rmsprop_time_bound
from hessdiag.theory.product_law import Law

ROOT3 = math.sqrt(3)
DISTRIBUTIONS = ("uniform", "normal")


def draw(law, count, seed):
    """Weights (count, L)."""
    rng, shape = np.random.default_rng(seed), (count, law.length)
    if law.distribution == "uniform":
        return rng.uniform(-law.scale, law.scale, shape)
    return rng.normal(0, law.scale, shape)


def test_critical_scales():
    gamma = 0.57721566490153286
    for distribution, scales in (
        ("uniform", (ROOT3, 2, math.e)),
        ("normal", (1, math.sqrt(math.pi / 2), math.sqrt(2 * math.exp(gamma)))),
    ):
        for order, scale in zip((2, 1, 0), scales, strict=True):
            assert critical_scale(order, distribution) == pytest.approx(scale, rel=1e-12)
            if order:
                assert Law(30, scale, distribution).log_moment(order) == pytest.approx(0, abs=1e-12)
        finite = critical_scale(0, distribution, length=30)
        assert Law(30, finite, distribution).log_median == pytest.approx(0, abs=1e-12)
        assert critical_scale(0, distribution, length=4000) == pytest.approx(scales[2], rel=1e-3)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("length", [1, 2, 3, 10, 60, 1000])
def test_median_tail_and_density_agree(length, distribution):
    """Medians of normal chains come from another inversion than tails and densities."""
    law = Law(length, 1.3, distribution)
    assert float(law.tail(law.log_median)) == pytest.approx(0.5, abs=1e-10)
    assert float(law.cdf(law.log_median)) == pytest.approx(0.5, abs=1e-10)
    inside = quad(lambda y: math.exp(law.log_density(y)), law.log_median - 1, law.log_median, epsabs=1e-12)[0]
    assert inside == pytest.approx(0.5 - float(law.cdf(law.log_median - 1)), abs=1e-9)


def test_far_tails_keep_their_digits():
    # Two standard normals: P(|ab| > t) = (2/pi) int_t^inf K_0
    assert float(Law(2, 1.0, "normal").tail(math.log(40.0))) == pytest.approx(5.2e-19, rel=0.05)
    law = Law(3, 1.0, "normal")
    rate = float(law.tail(math.log(1e3)))
    inner = quad(lambda w: stats.norm.pdf(w) * 2 * float(Law(2, 1.0, "normal").tail(math.log(1e3 / w))), 1, 60)[0]
    assert rate == pytest.approx(inner, rel=1e-6)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(("length", "scale"), [(1, 1.2), (2, 1.5), (3, 0.3), (5, 1.7), (10, 3.0), (20, ROOT3)])
def test_sizes_agree_with_simulation(length, scale, distribution):
    law = Law(length, scale, distribution)
    w = draw(law, 100_000, seed=length)
    v = w.prod(1)
    quantities = {
        product_size: v,
        diagonal_size: w[:, 1:].prod(1) ** 2,
        gradient_size: (v - 1) * w[:, 1:].prod(1),
    }
    if length > 1:
        quantities[offdiagonal_size] = (2 * v - 1) * w[:, 2:].prod(1)
    for size_of, values in quantities.items():
        size, magnitude = size_of(law), np.abs(values)
        if magnitude.min() < magnitude.max():
            for log, above in (
                (size.log_median, 0.5),
                (size.log_mean, size.above_mean),
                (size.log_rms, size.above_rms),
            ):
                error = math.sqrt(max(above * (1 - above), 1e-5) / len(w))
                assert abs((magnitude >= math.exp(log)).mean() - above) < 4 * error, size_of
        if length <= 3 and distribution == "uniform":  # light tails: averages can be averaged
            assert magnitude.mean() == pytest.approx(math.exp(size.log_mean), abs=4 * magnitude.std() / len(w) ** 0.5)


def test_derivatives_of_a_long_chain_are_products_of_fewer_weights():
    deep = Law(100, ROOT3)  # the output is small
    assert gradient_size(deep).log_median == pytest.approx(deep.shorter(1).log_median, abs=1e-3)
    assert offdiagonal_size(deep).log_median == pytest.approx(deep.shorter(2).log_median, abs=1e-3)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_one_integral_by_hand(distribution):
    """Two weights: the off-diagonal entry is 2 w_1 w_2 - 1, the gradient (w_1 w_2 - 1) w_2."""
    law = Law(2, 1.1, distribution)
    if distribution == "normal":

        def integrand(u):  # the mean of a folded normal
            a = 1.1 * u
            folded = a * math.sqrt(2 / math.pi) * math.exp(-1 / (2 * a * a)) + math.erf(1 / (a * math.sqrt(2)))
            return 2 * math.exp(-((u / 1.1) ** 2) / 2) / (1.1 * math.sqrt(2 * math.pi)) * u * folded
    else:

        def integrand(u):
            a = 1.1 * u
            return u * (1 if a <= 1 else (a + 1 / a) / 2) / 1.1 * (u <= 1.1)

    mean = quad(integrand, 1e-9, 15, points=[1 / 1.1, 1.1], epsabs=1e-11, limit=200)[0]
    assert math.exp(gradient_size(law).log_mean) == pytest.approx(mean, rel=1e-7)


def brute_force(w, x, y):
    """Loss, gradient and Hessian of the network by autograd."""
    chain = Chain(len(w))

    def loss(theta):
        names = [name for name, _ in chain.named_parameters()]
        values = dict(zip(names, theta.reshape(-1, 1, 1), strict=True))
        output = torch.func.functional_call(chain, values, torch.full((1, 1), x, dtype=torch.float64))
        return ((output - y) ** 2).sum() / 2

    theta = torch.tensor(w, dtype=torch.float64)
    return float(loss(theta)), torch.func.grad(loss)(theta).numpy(), torch.func.hessian(loss)(theta).numpy()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 10])
def test_derivatives_and_inertia_against_autograd(length):
    for w in draw(Law(length, 2.2), 8, seed=length):
        v = math.prod(w)
        _, gradient, H = brute_force(w, 1.0, 1.0)
        assert gradient == pytest.approx((v - 1) * v / w, rel=1e-10)
        expected = (2 * v - 1) * v / np.outer(w, w)
        np.fill_diagonal(expected, (v / w) ** 2)
        assert pytest.approx(expected, rel=1e-9, abs=1e-12) == H
        scaled = H * np.outer(w, w) / abs(v)  # congruent: the same signs, better conditioned
        eigenvalues = np.linalg.eigvalsh(scaled)
        assert inertia(v, length) == ((eigenvalues > 0).sum(), (eigenvalues < 0).sum())


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_inertia_shares_are_those_of_random_chains(length, distribution):
    law = Law(length, ROOT3, distribution)
    v = draw(law, 40_000, seed=3).prod(1)
    kinds = np.array([inertia(value, length) for value in v])
    measured = [(kinds[:, 1] == 0).mean(), (kinds[:, 1] == 1).mean(), ((kinds[:, 0] == 1) & (kinds[:, 1] > 1)).mean()]
    assert sum(inertia_shares(law)) == pytest.approx(1, abs=1e-12)
    for share, expected in zip(measured, inertia_shares(law), strict=True):
        assert abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / len(v))


@pytest.mark.parametrize(("length", "start", "target"), [(3, 0.2, 0.4), (10, 0.8, 0.5), (40, 0.7, 0.9)])
def test_flow_time_is_the_integral(length, start, target):
    exact = quad(
        lambda w: 1 / (w ** (length - 1) * (1 - w**length)),
        start,
        target ** (1 / length),
        epsabs=0,
        epsrel=1e-12,
        limit=500,
    )[0]
    assert flow_time(length, start, target) == pytest.approx(exact, rel=1e-9)
    assert flow_time_bound(length, start, target) < exact


def test_a_time_beyond_all_numbers_is_infinite():
    assert flow_time(3000, 0.5, 0.4) == math.inf
    assert rmsprop_time_bound(3000, 0.5, 0.4) < 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Law(-1),
        lambda: Law(3, 0.0),
        lambda: Law(3, math.nan),
        lambda: Law(3, 1.0, "cauchy"),
        lambda: offdiagonal_size(Law(1)),
        lambda: flow_time(2, 0.5, 0.5),
        lambda: flow_time(5, 1.5, 0.5),
        lambda: flow_time(5, 0.9, 0.5),
        lambda: flow_time(5, 0.5, 1.0),
        lambda: rmsprop_time_bound(5, 0.5, 0.5),
    ],
)
def test_refusals(wrong):
    with pytest.raises(SpecError):
        wrong()


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("scale", [0.6, 1.0, 2.5])
def test_excess_is_the_integral_of_the_density(distribution, length, scale):
    law = Law(length, scale, distribution)
    ends = np.log([1e-3, 0.2, 0.9])
    found = np.exp(law.log_excess(ends))
    top = law.log_scale if distribution == "uniform" else 5.0
    for end, excess in zip(ends, found, strict=True):
        expected, _ = quad(lambda y: np.exp(y + law.log_density(y)), min(end, top), top, epsabs=1e-12, limit=400)
        assert excess == pytest.approx(expected, rel=1e-7)
