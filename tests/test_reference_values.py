"""Every number of the project's list of reference values, 1 to 40, against what the product computes.

A value is held to the digits that are printed here: half a unit of the last, and six significant digits at least. Where
an independent closed form is known, the product's value is held to that too, to 1e-9.
"""

import math
from decimal import Decimal
from itertools import product

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import digamma, gammaincinv, polygamma

from hessdiag.curvature.dense import hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.linalg import blocks, inclusion
from hessdiag.linalg.tridiagonal import tridiagonalize
from hessdiag.nets.chain import Chain
from hessdiag.problem.problem import Problem
from hessdiag.questions.forward.measure import forward
from hessdiag.theory.chain import (
    critical_scale,
    diagonal_size,
    gradient_size,
    inertia,
    offdiagonal_size,
    product_size,
)
from hessdiag.theory.chain_plateau import blow_up_time, flow_time_bound
from hessdiag.theory.convolution import zero_padding_decay
from hessdiag.theory.expectations import (
    expected_block_norm2,
    expected_gradient_norm2,
    expected_trace,
)
from hessdiag.theory.gaussian_nets import (
    dead_probability,
    log_factor_cumulants,
    median_log_norm2,
    median_stabilizing_variance,
    moments,
    quantile_log_norm2,
    vjp_median_log_norm2,
)
from hessdiag.theory.product_law import Law
from hessdiag.theory.wigner_ols import (
    data_share,
    folded_normal_mean,
    gaussian_product_mean,
    ols_share_clt,
    ols_share_gaussian,
    wigner_share,
    wigner_share_mean,
)
from tests.reference import brute_force_hessian, cosine_problem, half_squared_error, net_a, share

ROOT2, ROOT3 = math.sqrt(2), math.sqrt(3)
LINEAR, RELU = 1.0, 0.0
GAIN = {LINEAR: 1, RELU: 2}  # d * variance at which the mean square is kept
GAUSSIAN, UNIFORM = 3.0, 1.8  # kurtosis of the weights


def holds(found, printed):
    """Hold numbers against a text of as many."""
    for value, text in zip(np.ravel(found), printed.split(), strict=True):
        half_unit = 0.5 * 10.0 ** Decimal(text).as_tuple().exponent
        bound = min(half_unit, 5e-6 * abs(float(text)) or half_unit) * (1 + 1e-6)
        assert abs(float(value) - float(text)) <= bound, (float(value), text)


def case(name, printed, found, exact=None):
    return pytest.param(found, printed, exact, id=name)


def sign_sum_mean(n):
    """`E|x_1 y_1 + ... + x_n y_n|` of random signs: the share of all sign vectors as columns is n over 2^n times it."""
    columns = np.array(list(product((-1.0, 1.0), repeat=n))).T
    return n / (2**n * data_share(columns))


def signs_share(n, d):
    return n / (n + (d - 1) * sign_sum_mean(n))


def chi_square_product_median(length):
    """Of log|v| for independent standard normal factors: a linear network of width one."""
    return median_log_norm2([1] * length, 1.0, LINEAR) / 2


def normal_log_moment(power):
    """`E (log|w|)^power`, by quadrature of the density."""
    return quad(lambda y: y**power * 2 * math.exp(y - math.exp(2 * y) / 2) / math.sqrt(2 * math.pi), -45, 4, epsabs=1e-13, limit=400)[0]  # fmt: skip


def deep_moments(slope, kurtosis, width, depth):
    return moments([width] * depth, GAIN[slope] / width, kurtosis, slope, start=(1, 1, 1 / width))


def among_live(q, dead):
    """Where the q-quantile of all networks is, among those that are not dead."""
    return (q - dead) / (1 - dead)


def expectations(widths, variance, slope):
    """Squared norms of gradients and of Hessian blocks (upper triangle, row by row), and the trace."""
    setting = (widths, variance, slope)
    upper = expected_block_norm2(*setting)[np.triu_indices(len(widths) - 1)]
    return [*expected_gradient_norm2(*setting), *upper, expected_trace(*setting)]


def corners(slope):
    """Of eight layers of width 16: gradients at both ends, four blocks, the whole Hessian, the trace."""
    setting = ([16] * 9, GAIN[slope] / 16, slope)
    g, H = expected_gradient_norm2(*setting), expected_block_norm2(*setting)
    total = H.sum()
    return [g[0], g[-1], H[0, 0], H[0, 1], H[0, 7], H[7, 7], total, expected_trace(*setting)]


def lanczos(steps):
    A = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    return tridiagonalize(A, torch.ones(4, dtype=torch.float64), steps)


def quadrature(steps):
    """Ritz values, their weights, and four times the quadrature of the log: log det."""
    values, vectors = torch.linalg.eigh(lanczos(steps).matrix())
    weights = vectors[0].square()
    return [*values, *weights, 4 * float(weights @ values.log())]


gamma = np.euler_gamma
CLOSED_FORMS = [
    case("1 Wigner, equal variances", "0.1", lambda: wigner_share(10), 0.1),
    case("2 GOE, d 10", "0.135796", lambda: wigner_share(10, ROOT2), ROOT2 / (ROOT2 + 9)),
    case("3 diagonal three times as large", "0.136364", lambda: wigner_share(20, 3), 3 / 22),
    case("4 GOE, d 1000", "0.00141363", lambda: wigner_share(1000, ROOT2), ROOT2 / (ROOT2 + 999)),
    case("5 mean and deviation of the share", "0.100514 0.0237716", lambda: wigner_share_mean(10)),
    case(
        "6 means of Gaussian products",
        "0.636620 1 1.27324 2.18750 4.47840 9.00942",
        lambda: [gaussian_product_mean(n) for n in (1, 2, 3, 8, 32, 128)],
        [2 / math.pi, 1, 4 / math.pi, 35 / 16, *(n * math.comb(n, n // 2) / 2**n for n in (32, 128))],
    ),
    *(
        case(f"7 OLS n {n}, d {d}", printed, lambda n=n, d=d: [ols_share_gaussian(n, d), ols_share_clt(n, d)])
        for n, d, printed in (
            (32, 100, "0.0673172 0.0668284"),
            (128, 64, "0.184016 0.183722"),
            (1, 10, "0.148598 0.122235"),
            (2, 10, "0.181818 0.164536"),
            (512, 1000, "0.0276171 0.0276040"),
        )
    ),
    *(
        case(
            f"8 OLS and Wigner, d {d}",
            printed,
            lambda d=d: [ols_share_gaussian(32, d), ols_share_clt(32, d), wigner_share(d)],
        )
        for d, printed in (
            (62006, "1.15226e-4 1.14330e-4 1.61275e-5"),
            (411146, "1.73790e-5 1.72438e-5 2.43223e-6"),
        )
    ),
    case(
        "8 asymptote of many columns",
        "1.14341e-4",
        lambda: ols_share_clt(32, 10**12) * 10**12 / 62006,
        math.sqrt(16 * math.pi) / 62006,
    ),
    case("9 random signs, n 8, d 20", "0.161412", lambda: signs_share(8, 20), 8 / (8 + 19 * 8 * 35 / 128)),
    case("9 random signs, n 3, d 10", "0.181818", lambda: signs_share(3, 10), 2 / 11),
    case("10 folded normal", "1.79119", lambda: folded_normal_mean(1, 4)),
    case(
        "11 medians of Gamma laws",
        "0.693147 1.67835 4.67091 9.66871 49.6671 127.667",
        lambda: [-Law(length).log_median for length in (1, 2, 5, 10, 50, 128)],
        gammaincinv([1, 2, 5, 10, 50, 128], 0.5),
    ),
    case(
        "12 median of the product",
        "0.0153652 0.0647486 1.39276 2.27981e-10",
        lambda: [math.exp(Law(*law).log_median) for law in ((10, ROOT3), (10, 2), (10, math.e), (50, ROOT3))],
    ),
    case(
        "13 its mean, mean square and kurtosis",
        "0.237305 17.7577 357.047",
        lambda: [
            math.exp(Law(10, ROOT3).log_moment(1)),
            math.exp(Law(10, 2).log_moment(2)),
            math.exp(Law(10).log_moment(4) - 2 * Law(10).log_moment(2)),
        ],
        [(ROOT3 / 2) ** 10, (4 / 3) ** 10, 1.8**10],
    ),
    case(
        "14 how rare averages are",
        "0.0534184 7.14481e-5 0.162624",
        lambda: [*(product_size(Law(n, 1.7)).above_rms for n in (10, 50)), product_size(Law(10, 1.7)).above_mean],
    ),
    case(
        "15 scale that keeps the median",
        "2.62970 2.70924",
        lambda: [critical_scale(0, "uniform", n) for n in (10, 100)],
    ),
    case(
        "16 log of a normal factor",
        "-0.635181 1.23370",
        lambda: (lambda c: [c.mean / 2, c.variance / 4])(log_factor_cumulants(1, 1.0, LINEAR)),
        [normal_log_moment(1), normal_log_moment(2) - normal_log_moment(1) ** 2],
    ),
    case(
        "16 critical scales of normal factors",
        "1.88736 1.25331",
        lambda: [critical_scale(0, "normal"), critical_scale(1, "normal")],
        [math.sqrt(2 * math.exp(gamma)), math.sqrt(math.pi / 2)],
    ),
    case(
        "17 median of normal products",
        "-2.89982 -6.07158 -12.4214 -31.4757",
        lambda: [Law(length, 1.0, "normal").log_median for length in (5, 10, 20, 50)],
        [chi_square_product_median(length) for length in (5, 10, 20, 50)],
    ),
    case(
        "18 derivatives, exact",
        "5.81214e-4 198.359 441.798",
        lambda: [
            math.exp(diagonal_size(Law(10, ROOT3)).log_median),
            math.exp(2 * diagonal_size(Law(10, ROOT3)).log_rms),
            math.exp(2 * offdiagonal_size(Law(10, ROOT3)).log_rms),
        ],
        [3**9 * math.exp(-2 * gammaincinv(9, 0.5)), 1.8**9, 4 * 1.8**8 + 1],
    ),
    case(
        "18 derivatives while v is small",
        "0.0241084 0.0378244",
        lambda: [math.exp(Law(10, ROOT3).shorter(removed).log_median) for removed in (1, 2)],
    ),
    case(
        "19 plateau time",
        "32 31.875",
        lambda: [blow_up_time(10, 0.5), flow_time_bound(10, 0.5, 1.0)],
        [32, 31.875],
    ),
    *(
        case(
            f"{number} log F of a {kind} layer, width {width}",
            printed,
            lambda slope=slope, width=width: log_factor_cumulants(width, GAIN[slope] / width, slope)[:2],
            [math.log(2 / width) + digamma(width / 2), polygamma(1, width / 2)] if slope == LINEAR else None,
        )
        for number, kind, slope, rows in (
            (
                22,
                "linear",
                LINEAR,
                (
                    "-0.130177 0.283823",
                    "-0.0638001 0.133137",
                    "-0.0315754 0.0644938",
                    "-0.0157064 0.0317434",
                    "-0.00783284 0.0157477",
                ),
            ),
            (
                23,
                "ReLU",
                RELU,
                (
                    "-0.398777 1.24699",
                    "-0.176397 0.419593",
                    "-0.0825402 0.177498",
                    "-0.0401086 0.0829974",
                    "-0.0197864 0.0402340",
                ),
            ),
        )
        for width, printed in zip((8, 16, 32, 64, 128), rows, strict=True)
    ),
    case(
        "24 medians of linear networks",
        "-4.03091 -0.999918 -0.248027 -2.03599 -0.928598",
        lambda: [
            median_log_norm2([d] * depth, 1 / d, LINEAR)
            for depth, d in ((128, 32), (64, 64), (32, 128), (16, 8), (2, 2))
        ],
    ),
    case(
        "25 medians of live ReLU networks",
        "-10.5256 -2.54924 -0.624727 -6.03266",
        lambda: [median_log_norm2([d] * depth, 2 / d, RELU) for depth, d in ((128, 32), (64, 64), (32, 128), (16, 8))],
    ),
    case(
        "25 dead networks",
        "-6.38358 0.0607019",
        lambda: [
            quantile_log_norm2(among_live(0.5, dead_probability([8] * 16, RELU)), [8] * 16, 2 / 8, RELU),
            dead_probability([8] * 16, RELU),
        ],
    ),
    case("25 dead networks, closed form", "0.0607019", lambda: dead_probability([8] * 16, RELU), 1 - (1 - 2**-8) ** 16),
    case("25 gradient of a fixed cotangent", "-5.53653", lambda: vjp_median_log_norm2(33, 16, 2 / 16, RELU)),
    *(
        case(
            f"26 fourth moments, {kind}",
            printed,
            lambda slope=slope, kurtosis=kurtosis: [
                deep_moments(slope, kurtosis, 8, 6).norm4[-1],
                deep_moments(slope, kurtosis, 8, 6).sum4[-1],
                deep_moments(slope, kurtosis, 32, 128).norm4[-1],
            ],
        )
        for kind, slope, kurtosis, printed in (
            ("linear, uniform", LINEAR, UNIFORM, "3.17026 0.875054 1595.71"),
            ("ReLU, Gaussian", RELU, GAUSSIAN, "18.4128 8.49822 1.17659e8"),
            ("ReLU, uniform", RELU, UNIFORM, "11.9857 4.99402 3.28724e7"),
        )
    ),
    case(
        "26 fourth moments, linear, Gaussian",
        "3.81470 2344.79",
        lambda: [deep_moments(LINEAR, GAUSSIAN, 8, 6).norm4[-1], deep_moments(LINEAR, GAUSSIAN, 32, 128).norm4[-1]],
        [1.25**6, (1 + 2 / 32) ** 128],
    ),
    case(
        "27 variance that keeps the median, linear",
        "3.56214 1.13903 1.03208 1.00786",
        lambda: [median_stabilizing_variance(d, LINEAR) for d in (1, 8, 32, 128)],
        [d / 2 * math.exp(-digamma(d / 2)) for d in (1, 8, 32, 128)],
    ),
    case(
        "27 variance that keeps the median, ReLU",
        "1.78107 1.49000 1.08604 1.01998",
        lambda: [median_stabilizing_variance(d, RELU) for d in (1, 8, 32, 128)],
    ),
    case(
        "27 variance that keeps the median of 128 layers",
        "1.03199 1.08571",
        lambda: [median_stabilizing_variance(32, slope, depth=128) for slope in (LINEAR, RELU)],
    ),
    case(
        "29 expectations, linear",
        "1.96 1.896 1.784 4.8 12.68 11.08 4.48 11.72 3.92 6",
        lambda: expectations([5, 5, 5, 2], 1 / 5, LINEAR),
        [1.96, 1.896, 1.784, 4.8, 12.68, 11.08, 4.48, 11.72, 3.92, 6],
    ),
    case(
        "30 expectations, ReLU",
        "5.096 4.84 4.2 10.24 17.86 14.02 9.6 15.3 8 6",
        lambda: expectations([5, 5, 5, 2], 2 / 5, RELU),
        [5.096, 4.84, 4.2, 10.24, 17.86, 14.02, 9.6, 15.3, 8, 6],
    ),
    case(
        "31 expectations, LeCun",
        "0.0378520 0.0377991 0.0377144 0.0375790 "
        "0.0146700 0.690672 0.686100 0.681260 0.0137174 0.688005 0.682213 0.0121933 0.683737 0.00975461 0.444444",
        lambda: expectations([6, 6, 6, 6, 3], 1 / 18, LINEAR),
    ),
    case(
        "32 expectations, eight ReLU layers",
        "75.1499 14.4192 593.199 1044.55 157.927 107.353 33902.4 128",
        lambda: corners(RELU),
    ),
    case(
        "33 expectations, eight linear layers",
        "11.5017 3.28070 168.027 314.148 71.4442 36.4912 10314.2 128",
        lambda: corners(LINEAR),
    ),
    case(
        "38 Lanczos coefficients",
        "2.5 2.5 2.5 1.25 0.8 0.45",
        lambda: [*lanczos(3).alphas[0], *lanczos(3).betas[0].square()],
        [2.5, 2.5, 2.5, 1.25, 0.8, 0.45],
    ),
    case(
        "38 two nodes",
        "1.38197 3.61803 0.5 0.5 3.21888",
        lambda: quadrature(2),
        [(5 - math.sqrt(5)) / 2, (5 + math.sqrt(5)) / 2, 0.5, 0.5, 2 * math.log(5)],
    ),
    case(
        "38 three nodes",
        "1.06822 2.5 3.93178 0.304878 0.390244 0.304878 3.18041",
        lambda: quadrature(3),
        [
            2.5 - math.sqrt(2.05),
            2.5,
            2.5 + math.sqrt(2.05),
            25 / 82,
            16 / 41,
            25 / 82,
            50 / 41 * math.log(4.2) + 64 / 41 * math.log(2.5),
        ],
    ),
    case("38 all nodes", "3.17805", lambda: quadrature(4)[-1], math.log(24)),
    case(
        "39 Cauchy sketch",
        "0.951819 0.322854",
        lambda: [inclusion.sketch_correction(25), inclusion.sketch_relative_stderr(25)],
    ),
    case(
        "40 zero padding",
        "0.901081 0.993972",
        lambda: [zero_padding_decay(7), zero_padding_decay(32)],
        [((1 + 2 * math.cos(math.pi / (r + 1))) / 3) ** 2 for r in (7, 32)],
    ),
]


@pytest.mark.parametrize(("found", "printed", "exact"), CLOSED_FORMS)
def test_closed_form(found, printed, exact):
    values = found()
    holds(values, printed)
    if exact is not None:
        assert np.ravel(values) == pytest.approx(np.ravel(exact), rel=1e-9)


def test_5_simulated_mean_of_the_share():
    assert abs(wigner_share_mean(10)[0] - 0.100469) < 4 * 0.000054


def test_18_small_products_are_a_good_guess():
    """At length 10 the output is not always small: the exact medians are a few percent off."""
    law = Law(10, ROOT3)
    assert math.exp(gradient_size(law).log_median) == pytest.approx(0.0241084, rel=0.02)
    assert math.exp(offdiagonal_size(law).log_median) == pytest.approx(0.0378244, rel=0.06)


def chain(weights, x, y):
    model = Chain(len(weights))
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), weights, strict=True):
            parameter.fill_(weight)
    batch = (torch.tensor([[x]], dtype=torch.float64), torch.tensor([[y]], dtype=torch.float64))
    return Problem(model, data=[batch], loss=half_squared_error, reduction="mean")


NETWORKS = {
    "20 chain of three": (lambda: chain([1.1, 0.9, 1.2], 1.0, 0.5), {
        "loss": "0.236672", "gradients": "0.743040 0.908160 0.681120",
        "blocks": "1.1664 2.2512 1.6884 1.7424 2.0636 0.9801", "extremes": "-0.848607 5.34944", "inertia": (1, 2, 0),
        "share": "0.244657",
    }),
    "21 chain of five": (lambda: chain([0.5, -0.8, 1.2, 0.9, -1.1], 1.0, 1.0), {
        "loss": "0.137708", "extremes": "0.126174 0.916758", "inertia": (5, 0, 0), "share": "0.733627",
        "frobenius": "1.05081",
    }),
    "34 NET-A": (net_a, {
        "loss": "50", "gradients": "31.6228 41.2311", "blocks": "10 30.4959 17", "trace": "27", "share": "0.134328",
        "abs_diagonal": "27", "abs_sum": "201", "extremes": "-14.1421 40.7443", "inertia": (2, 2, 2),
        "gershgorin": "-32 64", "brauer": "-30.1814 47.1814", "perron": "-25.0998 40.7443",
        "block_norm": "-30.4959 44.1961",
    }),
    "35 NET-B, ReLU": (lambda: cosine_problem([3, 4, 3, 2], 5, "relu"), {
        "loss": "0.596536", "gradients": "0.782990 0.445372 0.240851",
        "blocks": "3.88469 2.69962 1.11854 2.24450 0.826486 0.331460", "frobenius": "6.21955", "trace": "9.26641",
        "abs_sum": "98.7368", "share": "0.0938497", "extremes": "-0.560445 5.29841", "inertia": (11, 13, 6),
        "gershgorin": "-6.13733 7.68432", "brauer": "-6.07617 7.55237", "perron": "-4.43421 5.68097",
        "block_norm": "-3.27794 6.21479",
    }),
    "35 NET-B, linear": (lambda: cosine_problem([3, 4, 3, 2], 5, "linear"), {
        "loss": "0.908841", "gradients": "2.05978 2.05196 1.26151",
        "blocks": "8.27554 6.48385 4.83868 7.74340 5.12997 3.11623", "frobenius": "17.9359", "trace": "23.6765",
        "share": "0.0576442", "extremes": "-2.10925 15.5421", "inertia": (12, 12, 6),
    }),
    "35 NET-B, tanh": (lambda: cosine_problem([3, 4, 3, 2], 5, "tanh"), {
        "loss": "0.626644", "gradients": "0.498210 0.376797 0.365969",
        "blocks": "3.09202 1.51658 0.910897 1.79163 1.20656 1.06439", "frobenius": "4.80360", "trace": "5.94258",
        "abs_diagonal": "6.19215", "share": "0.0595032", "extremes": "-0.862935 3.81253",
    }),
    "35 NET-B, ReLU, cross-entropy": (lambda: cosine_problem([3, 4, 3, 2], 5, "relu", classes=True), {
        "loss": "0.625501", "gradients": "0.144706 0.183134 0.106645",
        "blocks": "1.10680 0.780123 0.296890 0.651332 0.285776 0.109590", "frobenius": "1.79389", "trace": "2.62509",
        "share": "0.0903752", "extremes": "-0.254711 1.51206",
    }),
    "35 NET-B, tanh, cross-entropy": (lambda: cosine_problem([3, 4, 3, 2], 5, "tanh", classes=True), {
        "loss": "0.681471", "frobenius": "2.21959", "trace": "2.04332", "abs_diagonal": "2.29396",
        "extremes": "-0.610327 1.69034",
    }),
    "36 NET-C": (lambda: cosine_problem([2, 3, 3, 3, 1], 4, "relu"), {
        "loss": "0.433405", "frobenius": "3.36025", "trace": "2.40309", "share": "0.0838814",
        "extremes": "-0.660769 3.15345",
        "blocks": "0.560522 0.748315 1.19500 0.961898 0.263030 0.787758 0.657596 0.810382 1.01085 0.524484",
    }),
}  # fmt: skip


def block_norms(H, layers):
    parts = [slice(layer.start, layer.stop) for layer in layers]
    return np.array([[float(H[rows, columns].norm()) for columns in parts] for rows in parts])


def measured(problem, H, quantity):
    norms = block_norms(H, problem.layer_slices)
    g = HessianOperator(problem).gradient()
    return {
        "loss": lambda: float(problem.evaluate(problem.data[0]).detach()),
        "gradients": lambda: [float(g[layer.start : layer.stop].norm()) for layer in problem.layer_slices],
        "blocks": lambda: norms[np.triu_indices(len(norms))],
        "frobenius": H.norm,
        "trace": H.trace,
        "share": lambda: share(H),
        "abs_sum": H.abs().sum,
        "abs_diagonal": H.diagonal().abs().sum,
        "extremes": lambda: torch.linalg.eigvalsh(H)[[0, -1]],
        "gershgorin": lambda: inclusion.discs(*inclusion.radii(H)),
        "brauer": lambda: inclusion.brauer(*inclusion.radii(H)),
        "perron": lambda: inclusion.perron(H),
        # Frobenius norms of the blocks, and diagonal blocks that are not negative
        "block_norm": lambda: blocks.norm_matrix(np.zeros(len(norms)), np.diag(norms), norms),
    }[quantity]()


def signs(H):
    """Numbers of positive, negative and zero eigenvalues."""
    eigenvalues = torch.linalg.eigvalsh(H)
    return tuple(int(sign.sum()) for sign in (eigenvalues > 1e-9, eigenvalues < -1e-9, eigenvalues.abs() <= 1e-9))


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    make, expected = NETWORKS[name]
    problem = make()
    H = hessian(problem)
    torch.testing.assert_close(H, brute_force_hessian(problem), rtol=1e-9, atol=1e-11)
    for quantity, value in expected.items():
        if quantity == "inertia":
            assert signs(H) == value
        else:
            holds(measured(problem, H, quantity), value)


def test_20_21_inertia_of_a_chain_follows_from_its_output():
    assert inertia(1.1 * 0.9 * 1.2, 3) == (1, 2)
    assert inertia(0.5 * -0.8 * 1.2 * 0.9 * -1.1, 5) == (5, 0)


def test_34_entries():
    entries = [[1, -1, -2, 2, -11, 4], [-1, 1, 2, -2, 11, -4], [-2, 2, 4, -4, 2, -18], [2, -2, -4, 4, -2, 18], [-11, 11, 2, -2, 1, -4], [4, -4, -18, 18, -4, 16]]  # fmt: skip
    torch.testing.assert_close(hessian(net_a()), torch.tensor(entries).double(), rtol=1e-12, atol=1e-12)


def test_36_norm_beyond_the_trace_proves_a_negative_eigenvalue():
    H = hessian(cosine_problem([2, 3, 3, 3, 1], 4, "relu"))
    assert H.norm() > H.trace()
    assert torch.linalg.eigvalsh(H)[0] < 0


def test_37_matrix():
    A = torch.tensor([[4, 1, 0, -0.5], [1, -2, 0.3, 0], [0, 0.3, 1, 0.2], [-0.5, 0, 0.2, 7]], dtype=torch.float64)
    holds(torch.linalg.eigvalsh(A), "-2.19018 1.01900 4.08107 7.09011")
    a, R = inclusion.radii(A)
    found = inclusion.components(a, R)
    assert [component.count for component in found] == [1, 1, 1, 1]
    intervals = [-3.3, -0.7, 0.5, 1.5, 2.5, 5.5, 6.3, 7.7]
    assert np.ravel([component.interval for component in found]) == pytest.approx(intervals, rel=1e-12)
    holds(inclusion.brauer(a, R), "-2.30908 7.31659")
    holds(inclusion.perron(A), "-2.19082 7.09082")
    holds(share(A), "0.777778")
    assert share(A) == pytest.approx(7 / 9, rel=1e-12)


@pytest.mark.parametrize(
    ("init", "activation", "depth", "width", "seeds", "reference", "error"),
    [
        ("xavier_uniform", "linear", 128, 32, 400, -3.809, 0.025),
        ("he_uniform", "relu", 128, 32, 400, -9.765, 0.041),
        ("xavier_uniform", "linear", 16, 8, 8000, -1.736, 0.006),
        ("he_uniform", "relu", 16, 8, 8000, -4.965, 0.012),
    ],
)
def test_28_simulated_medians_of_uniform_networks(init, activation, depth, width, seeds, reference, error):
    """Both sides are simulations of log squared norms, over live networks."""
    last = forward(depth=depth, width=width, init=init, activation=activation, seeds=seeds, seed=1).inits[0].last
    assert abs(2 * last.log_median - reference) < 4 * math.hypot(2 * last.log_median_stderr, error)
