import math

import numpy as np
import pytest
import torch
from scipy import stats

from hessdiag.linalg import densities
from hessdiag.linalg.densities import Density
from hessdiag.linalg.quadrature import spectral_density

N = 400


def with_spectrum(values, seed=0):
    g = torch.Generator().manual_seed(seed)
    values = torch.as_tensor(values, dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=torch.float64))[0]
    A = (Q * values) @ Q.T
    return (A + A.T) / 2, Q


SPECTRA = {
    "uniform": np.linspace(-1, 2, N),
    "semicircle": np.sort(2 * np.cos(np.linspace(0, math.pi, N))),
    "clusters": np.repeat([-1.0, 0.0, 0.5, 3.0], N // 4) + 1e-3 * np.linspace(-1, 1, N),
    "twelve decades and signs": np.r_[-np.logspace(-9, 0, N // 2), np.logspace(-6, 3, N // 2)],
    "bulk and outliers": np.r_[np.linspace(-0.5, 0.5, N - 4), -30.0, 20.0, 50.0, 100.0],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_smoothed_density_agrees_with_lapack_within_its_error(name):
    values = SPECTRA[name]
    A, _ = with_spectrum(values)
    found = spectral_density(A, probes=20, steps=60, seed=1)
    exact = np.linalg.eigvalsh(A.numpy())
    grid = found.grid()
    truth = densities.gaussian(grid, exact, found.width).mean(0)
    curve = found.density(grid)
    assert np.trapezoid(curve.value, grid) == pytest.approx(1.0, abs=1e-4)
    z = (curve.value - truth) / (curve.stderr + 1e-3 * truth.max())
    assert np.abs(z).max() < 5
    assert np.mean(z**2) < 2


@pytest.mark.parametrize("name", SPECTRA)
def test_cumulative_distribution_lies_within_its_brackets(name):
    values = SPECTRA[name]
    A, _ = with_spectrum(values)
    found = spectral_density(A, probes=20, steps=60, seed=2)
    for point in np.quantile(values, [0.1, 0.3, 0.5, 0.8]) + 1e-7:
        truth = (values < point).mean()
        low, high = found.share_bounds(-math.inf, point)
        sampling = math.sqrt(2 * truth * (1 - truth) / N / 20)
        assert low - 2 * sampling <= truth <= high + 2 * sampling
        share = found.share(-math.inf, point)
        assert (share.low, share.high) == (low, high)
        assert low - sampling <= share.value <= high + sampling
        assert math.isnan(share.stderr)
    assert found.share_bounds(-math.inf, values.min() - 1) == (0.0, 0.0)
    assert found.share_bounds(-math.inf, values.max() + 1) == (1.0, 1.0)


def test_shares_by_hand():
    """Nodes 0, 1, 2 with weights 1/4, 1/2, 1/4: half of a node's weight is below it, and straight lines between."""
    nodes, weights = np.array([[0.0, 1.0, 2.0]]), np.array([[0.25, 0.5, 0.25]])
    found = Density(nodes, weights, np.zeros(0), 1000, 0.1, 3, anti=(nodes, weights))
    points = np.array([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    np.testing.assert_allclose(found.cumulative(points), [0, 0.125, 0.3125, 0.5, 0.6875, 0.875, 1])
    slack = 1.959963984540054 * math.sqrt(2 * 0.25 / 1002)  # of a share of a half, one probe
    assert found.share_bounds(-math.inf, 0.5) == pytest.approx((0.0, 0.75 + slack))
    assert found.share_bounds(-math.inf, 1.5) == pytest.approx((0.25 - slack, 1.0))
    assert found.share_bounds(0.5, 1.5) == pytest.approx((0.0, 1.0))


def test_zeros_and_outliers_are_known_shares():
    """Half of 1,000 eigenvalues are zero, 100 are 5: the probes see 400, and their sphere has that dimension."""
    nodes, weights = np.tile([1.0, 2.0], (2, 1)), np.full((2, 2), 0.2)
    found = Density(nodes, weights, np.full(100, 5.0), 1000, 0.1, 3, zeros=500, anti=(nodes, weights))
    assert found.dimension == 400
    assert found.share(-1.0, 0.5).value == pytest.approx(0.5)
    assert found.moments(1).value[0] == pytest.approx(0.4 * 1.5 + 0.1 * 5)
    assert found.moments(1).stderr[0] == pytest.approx(0.4 * math.sqrt(2 / 402 * 0.25 / 2))
    assert found.share_bounds(-1.0, 0.5)[0] == pytest.approx(0.5)


def test_quadrature_is_exact_up_to_degree_2m_minus_1():
    """And the first error is the product of the squared betas."""
    A, _ = with_spectrum(np.linspace(-1, 1.5, 60))
    m = 6
    found = spectral_density(A, probes=1, steps=m, seed=3)
    start = torch.Generator().manual_seed(3)
    v = torch.randn(60, 1, generator=start, dtype=torch.float64)[:, 0]
    v = v / v.norm()
    for power in range(2 * m):
        quadrature = (found.weights[0] * found.nodes[0] ** power).sum()
        assert quadrature == pytest.approx(float(v @ torch.linalg.matrix_power(A, power) @ v), rel=1e-10, abs=1e-12)
    from hessdiag.linalg.tridiagonal import tridiagonalize

    error = float(v @ torch.linalg.matrix_power(A, 2 * m) @ v) - (found.weights[0] * found.nodes[0] ** (2 * m)).sum()
    assert error == pytest.approx(float(tridiagonalize(A, v, m).betas.square().prod()), rel=1e-6)


def test_known_quadrature():
    found = spectral_density(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]).double()), probes=3, steps=4, seed=0)
    np.testing.assert_allclose(found.nodes, [[1, 2, 3, 4]] * 3, rtol=1e-9)
    np.testing.assert_allclose(found.weights.sum(1), 1.0)


def test_moments_agree_within_their_errors():
    A, _ = with_spectrum(SPECTRA["uniform"])
    truth = [np.mean(SPECTRA["uniform"] ** power) for power in (1, 2, 3, 4)]
    z = []
    for seed in range(30):
        found = spectral_density(A, probes=10, steps=10, seed=seed).moments()
        z.append((found.value - truth) / found.stderr)
    assert np.abs(np.mean(z, axis=0)).max() < 4 / math.sqrt(30) * 1.2
    assert 0.7 < np.std(z) < 1.6


def test_outliers_are_exact_and_none_is_lost():
    values = SPECTRA["bulk and outliers"]
    A, Q = with_spectrum(values)
    order = [N - 4, N - 3, N - 2, N - 1]
    found = spectral_density(A, probes=10, steps=40, seed=0, deflate=(torch.tensor(values[order]), Q[:, order]))
    assert found.support == pytest.approx((-30.0, 100.0))
    assert np.nanmax(np.abs(found.nodes)) < 0.51
    assert found.width < 0.03
    assert found.outliers.tolist() == pytest.approx([-30, 20, 50, 100])
    np.testing.assert_allclose(found.weights.sum(1), 1 - 4 / N)
    grid = found.grid()
    curve = found.density(grid)
    assert np.trapezoid(curve.value, grid) == pytest.approx(1.0, abs=1e-4)
    for value in (20.0, 100.0):
        near = np.abs(grid - value) < 6 * found.width
        assert np.trapezoid(curve.value[near], grid[near]) == pytest.approx(1 / N, rel=1e-4)
        assert curve.stderr[near].max() < 1e-12
    first, plain = found.moments(), spectral_density(A, probes=10, steps=40, seed=0).moments()
    assert first.value[1] == pytest.approx(np.mean(values**2), abs=4 * first.stderr[1])
    assert first.stderr[1] < plain.stderr[1] / 100


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_negative_fraction_and_mass(share):
    below = int(share * N)
    values = np.r_[np.linspace(-1, -0.05, below), np.linspace(0.05, 2, N - below)]
    A, _ = with_spectrum(values)
    found = spectral_density(A, probes=20, steps=80, seed=0)
    negative = found.negative(1e-10)
    assert negative.low - 1e-12 <= share <= negative.high + 1e-12
    assert negative.high - negative.low < 0.1
    assert negative.value == pytest.approx(share, abs=0.02)
    mass = found.negative_mass()
    truth = -values[values < 0].sum() / np.abs(values).sum()
    assert mass.value == pytest.approx(truth, abs=4 * float(mass.stderr) + 1e-9)


def test_zeros_are_not_negative():
    values = np.r_[np.zeros(N // 2), -np.linspace(0.5, 1, N // 8), np.linspace(0.5, 2, N - N // 2 - N // 8)]
    A, _ = with_spectrum(values)
    found = spectral_density(A, probes=20, steps=80, seed=0).negative(1e-10)
    assert found.value == pytest.approx(1 / 8, abs=0.02)


def test_logarithmic_density_keeps_signs_and_decades_apart():
    values = np.r_[-(10.0 ** np.linspace(-1, 0, N // 4)), 10.0 ** np.linspace(0, 1, N - N // 4)]
    A, _ = with_spectrum(values)
    found = spectral_density(A, probes=20, steps=80, seed=0)
    grid = found.log_grid()
    decades = found.log_density(grid)
    positive, negative = decades.positive, decades.negative
    for curve, sign, share in ((positive, 1, 0.75), (negative, -1, 0.25)):
        logs = np.log10(sign * values[sign * values > 0])
        truth = share * densities.gaussian(grid, logs, densities.LOG_WIDTH).mean(0)
        known = ~np.isnan(curve.value)
        assert np.trapezoid(np.where(known, truth, 0.0), grid) > 0.7 * share
        assert np.trapezoid(np.where(known, curve.value - truth, 0.0), grid) == pytest.approx(0, abs=0.02)
    assert positive.value[np.abs(grid - 0.5).argmin()] == pytest.approx(0.75, rel=0.15)
    assert not positive.value[np.abs(grid + 0.5).argmin()] >= 0.02  # nothing, or not resolved


@pytest.mark.parametrize("A", [torch.zeros(5, 5), torch.eye(6) * 3.0, torch.tensor([[2.0]]), torch.ones(8, 8)])
def test_degenerate_matrices(A):
    A = A.double()
    found = spectral_density(A, probes=3, steps=20, seed=0)
    values = np.linalg.eigvalsh(A.numpy())
    assert found.support == pytest.approx((values[0], values[-1]), abs=1e-9)
    grid = found.grid()
    assert np.trapezoid(found.density(grid).value, grid) == pytest.approx(1.0, abs=1e-4)
    decades = found.log_density(found.log_grid())
    assert np.isfinite(decades.positive.value).all()
    assert not decades.negative.value.any()
    assert decades.unresolved_below == 0


def test_everything_may_be_deflated():
    A, Q = with_spectrum([1.0, 2.0, 3.0])
    found = spectral_density(A, probes=2, steps=5, seed=0, deflate=(torch.tensor([1.0, 2.0, 3.0]), Q))
    assert found.moments(2).value == pytest.approx([2.0, 14 / 3])
    assert found.products == 0


def test_probes_in_groups_give_the_same_numbers():
    A, _ = with_spectrum(SPECTRA["uniform"])
    together = spectral_density(A, probes=5, steps=20, seed=0)
    apart = spectral_density(A, probes=5, steps=20, seed=0, at_once=2)
    np.testing.assert_allclose(together.nodes, apart.nodes, atol=1e-8)
    assert together.products == apart.products == 100


def test_interrupt_keeps_the_probes_that_are_done():
    A, _ = with_spectrum(SPECTRA["uniform"])

    def stop(after):
        def progress(done):
            if done >= after:
                raise KeyboardInterrupt

        return progress

    found = spectral_density(A, probes=9, steps=10, seed=0, at_once=2, progress=stop(4))
    assert found.nodes.shape == (4, 10)
    with pytest.raises(KeyboardInterrupt):
        spectral_density(A, probes=9, steps=10, seed=0, at_once=1, progress=stop(1))


def test_no_seed_is_fresh():
    A, _ = with_spectrum(SPECTRA["uniform"])
    first, second = (spectral_density(A, probes=2, steps=5).nodes for _ in range(2))
    assert (first != second).all()


def test_exact_eigenvalues_make_a_density_too():
    values = np.linspace(0, 1, 50)
    found = Density(values[None], np.full((1, 50), 1 / 50), np.zeros(0), 50, 0.05, 50)
    assert np.isnan(found.moments().stderr).all()
    assert found.moments(1).value == pytest.approx([0.5])


def test_what_nodes_do_not_resolve_is_unknown():
    """Eigenvalues of 1e-3 to 1e-6 of the norm and both signs, between nodes that are farther apart."""
    values = np.r_[
        np.linspace(-1, -0.1, 100), -np.logspace(-6, -3, 100), np.logspace(-6, -3, 100), np.linspace(0.1, 1, 100)
    ]
    A = torch.diag(torch.tensor(values))
    found = spectral_density(A, probes=10, steps=30, seed=0)
    grid = found.log_grid()
    decades = found.log_density(grid)
    inside = 10**grid < 1e-4
    assert np.isnan(decades.positive.value[inside]).all()
    assert np.isnan(decades.negative.low[inside]).all()
    assert 1e-3 < decades.unresolved_below < 0.3
    low, high = decades.unresolved_share
    assert low <= (np.abs(values) < decades.unresolved_below).mean() <= high
    outside = np.abs(10**grid - 0.5).argmin()
    assert decades.positive.low[outside] < decades.positive.value[outside] < decades.positive.high[outside]


def test_each_sign_is_resolved_by_its_own_nodes():
    """Negative nodes end at -0.1, positive ones at 0.001: between them, only positive eigenvalues are resolved."""
    row = np.r_[-np.logspace(0, -1, 30), np.logspace(-3, 0, 90)]
    nodes, weights = np.tile(row, (2, 1)), np.full((2, 120), 1 / 120)
    found = Density(nodes, weights, np.zeros(0), 10_000, 0.1, 0, anti=(nodes, weights))
    grid = np.linspace(-2.5, 0, 251)
    decades = found.log_density(grid)
    between = (grid > -2.4) & (grid < -1.05)
    assert np.isfinite(decades.positive.value[between]).all()
    assert np.isnan(decades.negative.value[between]).all()
    assert decades.unresolved_below == pytest.approx(0.1, rel=0.03)
    assert decades.unresolved_share == found.share_bounds(-decades.unresolved_below, decades.unresolved_below)
    assert decades.unresolved_share[0] < 60 / 120 < decades.unresolved_share[1]


def test_plug_in_variance_by_hand():
    """For v on the unit sphere, v'Av has the variance 2 / (n + 2) (mean of squares - square of mean)."""
    values = np.linspace(-1, 2, 50)
    nodes, weights = np.tile(values, (4, 1)), np.full((4, 50), 1 / 50)
    found = Density(nodes, weights, np.zeros(0), 50, 0.1, 0, anti=(nodes, weights)).moments(2)
    for index, f in enumerate((values, values**2)):
        assert found.stderr[index] == pytest.approx(math.sqrt(2 / 52 * f.var() / 4), rel=1e-12)
    nu = 2 * np.mean(values**2) ** 2 / found.stderr[1] ** 2
    ends = [nu * found.value[1] / quantile for quantile in stats.chi2.ppf([0.975, 0.025], nu)]
    assert (found.low[1], found.high[1]) == pytest.approx(ends, rel=1e-9)


def test_error_of_the_negative_mass_by_hand():
    """Of a ratio of two means, linearized: that of (1 - s) max(-x, 0) - s max(x, 0), over the mean of |x|."""
    values = np.linspace(-0.3, 0.6, 50)
    nodes, weights = np.tile(values, (4, 1)), np.full((4, 50), 1 / 50)
    found = Density(nodes, weights, np.zeros(0), 50, 0.1, 0, anti=(nodes, weights)).negative_mass()
    share = -values[values < 0].sum() / np.abs(values).sum()
    f = np.where(values < 0, -(1 - share) * values, -share * values)
    assert found.value == pytest.approx(share, rel=1e-12)
    assert found.stderr == pytest.approx(math.sqrt(2 / 52 * f.var() / 4) / np.abs(values).mean(), rel=1e-9)
    half = 1.959963984540054 * found.stderr
    assert (found.low, found.high) == pytest.approx((max(share - half, 0.0), share + half), rel=1e-9)


def test_deflation_counts_in_the_plug_in_variance():
    values = np.linspace(0.5, 2, 40)
    nodes, weights = np.tile(values, (3, 1)), np.full((3, 40), 1 / 50)
    outliers = np.linspace(5, 6, 10)
    found = Density(nodes, weights, outliers, 50, 0.1, 0, anti=(nodes, weights)).moments(1)
    assert found.value[0] == pytest.approx((values.sum() + outliers.sum()) / 50)
    assert found.stderr[0] == pytest.approx(0.8 * math.sqrt(2 / 42 * values.var() / 3), rel=1e-12)


@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_errors_of_moments_scale_with_the_matrix(size):
    A, _ = with_spectrum(SPECTRA["uniform"])
    plain, found = (spectral_density(c * A, probes=4, steps=10, seed=0).moments(2) for c in (1.0, size))
    np.testing.assert_allclose(found.stderr / [size, size**2], plain.stderr, rtol=1e-6)
