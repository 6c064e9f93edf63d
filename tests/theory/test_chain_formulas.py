"""The chain's formulas, each against another way to the same number. Tests are numbered as in the theory notes, B.1 to B.6.

`f(w) = (x v - y)^2 / 2` with `v = w_1 ... w_L`; the median of a Gamma(L) variable is called nu(L).
"""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import gammaincinv, ndtr, zeta

from hessdiag.curvature.dense import hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.linalg import inclusion
from hessdiag.theory.chain import (
    critical_scale,
    diagonal_size,
    gradient_size,
    inertia,
    inertia_shares,
    offdiagonal_size,
    peak,
    product_size,
)
from hessdiag.theory.chain_plateau import blow_up_time, flow_time, flow_time_bound, rmsprop_time_bound
from hessdiag.theory.gaussian_nets import log_factor_cumulants
from hessdiag.theory.product_law import Law
from tests.test_reference_values import chain, holds

ROOT3 = math.sqrt(3)
nu = gammaincinv


@pytest.mark.parametrize("order", [0.5, 1, 2, 3, 4])
def test_b1_moments_of_a_factor(order):
    uniform = quad(lambda w: w**order / 1.7, 0, 1.7)[0]
    normal = quad(lambda w: 2 * w**order * math.exp(-((w / 0.8) ** 2) / 2) / (0.8 * math.sqrt(2 * math.pi)), 0, 20)[0]
    assert Law(6, 1.7).log_moment(order) == pytest.approx(6 * math.log(uniform), rel=1e-9)
    assert Law(6, 0.8, "normal").log_moment(order) == pytest.approx(6 * math.log(normal), rel=1e-9)


def test_b1_named_moments():
    uniform, normal = Law(1, 1.7), Law(1, 0.8, "normal")
    known = {uniform: [1.7 / 2, 1.7**2 / 3, 1.7**4 / 5], normal: [0.8 * math.sqrt(2 / math.pi), 0.64, 3 * 0.8**4]}
    for law, values in known.items():
        assert [math.exp(law.log_moment(order)) for order in (1, 2, 4)] == pytest.approx(values, rel=1e-12)


def test_b2_density_of_a_uniform_product():
    tau, length, v = 1.3, 4, 0.2
    said = math.log(tau**length / v) ** (length - 1) / (2 * tau**length * math.factorial(length - 1))
    # the product's density is that of log|v|, on both signs together
    assert math.exp(Law(length, tau).log_density(math.log(v))) / (2 * v) == pytest.approx(said, rel=1e-9)


@pytest.mark.parametrize("length", [1, 2, 3, 10, 100])
def test_b2_median_of_a_gamma_law(length):
    """Choi, "On the medians of gamma distributions" (Proc. AMS 1994)."""
    found, third = -Law(length).log_median, length - 1 / 3
    assert third < found <= min(length - 1 + math.log(2), third + 1 / (2 * length)) * (1 + 1e-12)
    assert found == pytest.approx(third + 8 / (405 * length) + 184 / (25515 * length**2), abs=4e-3 / length**3)


def test_b2_asymptote_of_the_median():
    assert Law(1000, 2.0).log_median == pytest.approx(1 / 3 + 1000 * math.log(2 / math.e), abs=1e-4)


def test_b2_cumulants_of_the_log_of_a_normal_factor():
    mean, variance, third = log_factor_cumulants(1, 1.0, 1.0)
    holds([mean / 2, third / 8, -third / 8 / (6 * variance / 4)], "-0.6351814 -2.1035996 0.2841856")
    exact = [-(np.euler_gamma + math.log(2)) / 2, math.pi**2 / 8, -7 / 4 * zeta(3)]
    assert [mean / 2, variance / 4, third / 8] == pytest.approx(exact, rel=1e-9)
    assert Law(400, 1.3, "normal").log_median == pytest.approx(400 * (math.log(1.3) - 0.6351814) + 0.2841856, abs=1e-3)


def test_b2_critical_scales():
    holds([critical_scale(order, "normal") for order in (2, 1, 0)], "1 1.25331 1.88736")
    exact = [ROOT3, 2, math.e]
    assert [critical_scale(order, "uniform") for order in (2, 1, 0)] == pytest.approx(exact, rel=1e-12)
    for order in (0.5, 3, 7):
        assert critical_scale(order, "uniform") == pytest.approx((order + 1) ** (1 / order), rel=1e-12)
    assert critical_scale(1e-4, "uniform") == pytest.approx(math.e, rel=1e-4)
    assert critical_scale(0, "uniform", length=10) == pytest.approx(math.exp(nu(10, 0.5) / 10), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "share", "rate"), [("above_rms", math.log(3) / 2, "0.148405"), ("above_mean", math.log(2), "0.0596601")]
)
def test_b2_rates_at_which_averages_become_atypical(name, share, rate):
    """Of `P(Gamma(L) <= share L)`: Cramer's `a - 1 - log a`, and a square root of L in front."""
    holds(share - 1 - math.log(share), rate)
    short, long = (math.log(getattr(product_size(Law(length)), name)) for length in (1000, 2000))
    assert (short - long - math.log(2) / 2) / 1000 == pytest.approx(share - 1 - math.log(share), rel=3e-4)


@pytest.mark.parametrize(
    ("distribution", "kurtosis", "third"), [("uniform", 9 / 5, "1.29904"), ("normal", 3, "1.59577")]
)
def test_b3_fat_tails(distribution, kurtosis, third):
    law = Law(1, 1.4, distribution)
    assert law.log_moment(4) - 2 * law.log_moment(2) == pytest.approx(math.log(kurtosis), rel=1e-12)
    holds(math.exp(law.log_moment(3) - 1.5 * law.log_moment(2)), third)


def test_b3_the_log_is_nearly_normal():
    """Kolmogorov distance 0.1330 / sqrt(L), below the Berry-Esseen bound 1.1464 / sqrt(L)."""
    length = 10_000
    deviations = np.linspace(-3, 3, 2001)
    distance = np.abs(Law(length).cdf(-length + math.sqrt(length) * deviations) - ndtr(deviations)).max()
    assert distance * math.sqrt(length) == pytest.approx(0.1330, abs=5e-5)
    assert distance < 1.1464 / math.sqrt(length)
    assert 0.4748 * (12 / math.e - 2) == pytest.approx(1.1464, abs=5e-5)


@pytest.mark.parametrize("length", [2, 5])
def test_b4_derivatives(length):
    w, x, y = np.random.default_rng(length).uniform(-1.5, 1.5, length), 0.7, -1.2
    problem = chain(w.tolist(), x, y)
    H, g, v = hessian(problem).numpy(), HessianOperator(problem).gradient().numpy(), math.prod(w)
    expected = x * (2 * x * v - y) * v / np.outer(w, w)
    np.fill_diagonal(expected, (x * v / w) ** 2)
    np.testing.assert_allclose(H, expected, rtol=1e-9)
    np.testing.assert_allclose(g, x * (x * v - y) * v / w, rtol=1e-9)
    assert np.trace(H) == pytest.approx((x * v) ** 2 * (1 / w**2).sum(), rel=1e-12)


@pytest.mark.parametrize(("length", "tau"), [(2, 1.1), (5, 1.7), (10, ROOT3)])
def test_b4_exact_averages(length, tau):
    law, m2, m4 = Law(length, tau), tau**2 / 3, tau**4 / 5
    assert math.exp(diagonal_size(law).log_mean) == pytest.approx(m2 ** (length - 1), rel=1e-9)
    assert math.exp(2 * diagonal_size(law).log_rms) == pytest.approx(m4 ** (length - 1), rel=1e-9)
    off = 4 * m2**2 * m4 ** (length - 2) + m2 ** (length - 2)
    assert math.exp(2 * offdiagonal_size(law).log_rms) == pytest.approx(off, rel=1e-9)
    gradient = m2 * m4 ** (length - 1) + m2 ** (length - 1)
    assert math.exp(2 * gradient_size(law).log_rms) == pytest.approx(gradient, rel=1e-9)
    mean, low = math.exp(gradient_size(law).log_mean), (tau / 2) ** (length - 1)
    assert low <= mean <= low + tau / 2 * m2 ** (length - 1)


@pytest.mark.parametrize("length", [3, 10, 40])
def test_b4_medians_of_entries(length):
    """The diagonal's is exact; the others where the output is small, as at scale 1."""
    law = Law(length, 1.0)
    assert diagonal_size(law).log_median == pytest.approx(-2 * nu(length - 1, 0.5), rel=1e-9)
    if length > 10:
        assert gradient_size(law).log_median == pytest.approx(-nu(length - 1, 0.5), rel=1e-9)
        assert offdiagonal_size(law).log_median == pytest.approx(-nu(length - 2, 0.5), rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_b5_determinant_signs_and_discs(seed):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(2, 6))
    w, x, y = rng.uniform(-1.6, 1.6, length), rng.uniform(0.5, 2), rng.uniform(-2, 2)
    H, v = hessian(chain(w.tolist(), x, y)), math.prod(w)
    alpha, beta = x * v * (2 * x * v - y), (x * v) ** 2
    one, others = alpha * (length - 1) + beta, beta - alpha
    assert one == pytest.approx(x * v * ((2 * length - 1) * x * v - (length - 1) * y), rel=1e-9)
    assert others == pytest.approx(x * v * (y - x * v), rel=1e-9)
    assert float(torch.linalg.det(H)) == pytest.approx(one * others ** (length - 1) / (w**2).prod(), rel=1e-9)
    eigenvalues = torch.linalg.eigvalsh(H)
    assert int((eigenvalues > 0).sum()) == (one > 0) + (length - 1) * (others > 0)
    u = v / w
    reach = abs(x * (2 * x * v - y)) * np.array(
        [sum(abs(v / (w[i] * w[k])) for k in range(length) if k != i) for i in range(length)]
    )
    a, R = inclusion.radii(H)
    np.testing.assert_allclose(a, (x * u) ** 2, rtol=1e-9)
    np.testing.assert_allclose(R, reach, rtol=1e-9)


def test_b5_equal_weights():
    length, w = 5, 0.8
    v = w**length
    expected = sorted([v * ((2 * length - 1) * v - (length - 1)), *[v * (1 - v)] * (length - 1)])
    eigenvalues = torch.linalg.eigvalsh(hessian(chain([w] * length, 1.0, 1.0)))
    np.testing.assert_allclose(eigenvalues, np.array(expected) / w**2, rtol=1e-9)


def test_b5_kinds_of_hessians():
    edge = peak(7)
    assert edge == 6 / 13
    assert [inertia(v, 7) for v in (-0.1, edge - 1e-9, edge + 1e-9, 1 - 1e-9, 1 + 1e-9)] == [
        (1, 6), (6, 1), (7, 0), (7, 0), (1, 6),
    ]  # fmt: skip
    assert inertia_shares(Law(10, ROOT3)).definite == pytest.approx(0.024, abs=5e-4)
    assert inertia_shares(Law(3, ROOT3)).definite == pytest.approx(0.12, abs=5e-3)


def test_b6_plateau():
    holds(flow_time(10, 0.5, 0.5), "32.1444")
    assert flow_time_bound(10, 0.5, 0.5) == pytest.approx(31.782, abs=5e-4)
    for length, start in ((4, 0.3), (10, 0.5), (25, 0.9)):
        assert blow_up_time(length, start) == pytest.approx(start ** (2 - length) / (length - 2), rel=1e-12)
        unit = (start ** (2 - length) - 1) / (length - 2)
        assert flow_time_bound(length, start, 1.0) == pytest.approx(unit, rel=1e-9)
    assert rmsprop_time_bound(1000, 0.5, 0.4) < 0.5  # whatever the depth
