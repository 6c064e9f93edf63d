"""Jensen-Shannon distances against scipy and closed forms, and from quadrature against LAPACK."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from hessdiag.linalg.quadrature import spectral_density
from hessdiag.questions.blocks.by.spectra import LINEAR_BELOW, WIDTH, Axis, Spectrum, compare, distances
from hessdiag.questions.blocks.by.together import spread
from tests.benchmarks.block_spectra import HELD_OUT, errors


def test_distances_are_scipys():
    densities = np.random.default_rng(0).random((4, 30))
    densities /= densities.sum(1, keepdims=True) * 0.1
    expected = [[jensenshannon(p, q, base=2) for q in densities] for p in densities]
    assert np.allclose(distances(densities, 0.1), expected, atol=1e-9)


def test_densities_are_mixtures_of_gaussians_on_the_axis():
    axis = Axis.of(4.0)
    assert axis.linear_below == LINEAR_BELOW * 4
    density = Spectrum(3, np.array([4.0, -0.4]), zeros=1).densities(axis)[0]
    centres = [math.asinh(x / 0.008) / math.log(10) for x in (4.0, -0.4, 0.0)]
    expected = sum(np.exp(-(((axis.grid - c) / WIDTH) ** 2) / 2) for c in centres) / (
        3 * WIDTH * math.sqrt(2 * math.pi)
    )
    assert np.allclose(density, expected, atol=1e-12)
    assert density.sum() * axis.step == pytest.approx(1.0, abs=1e-6)
    assert np.allclose(axis.position(axis.eigenvalues), axis.grid, atol=1e-9)


def test_two_shifted_spectra_have_the_distance_of_two_gaussians():
    """Of two equal normal densities a width apart: by quadrature of the definition."""
    axis = Axis.of(100.0)
    found = compare([Spectrum(1, np.array([100.0])), Spectrum(1, np.array([100.0 / 10**WIDTH]))], axis)
    x = np.linspace(-12, 12, 200_001)
    p, q = (np.exp(-((x - c) ** 2) / 2) / math.sqrt(2 * math.pi) for c in (0.0, 1.0))
    kl = [np.trapezoid(a * np.log2(a / ((p + q) / 2)), x) for a in (p, q)]
    assert found.heterogeneity == pytest.approx(math.sqrt(sum(kl) / 2), abs=1e-3)
    assert found.stderr is None


def test_the_order_of_blocks_does_not_matter_and_alike_ones_are_at_zero():
    one, other = Spectrum(2, np.array([1.0, 0.1])), Spectrum(2, np.array([1.0, -1.0]))
    axis = Axis.of(1.0)
    found, turned = compare([one, one, other], axis), compare([other, one, one], axis)
    assert found.heterogeneity == pytest.approx(turned.heterogeneity)
    assert found.distances == pytest.approx(turned.distances[::-1])
    assert found.distances[2] == pytest.approx(2 * found.distances[0])
    assert found.heterogeneity == pytest.approx(found.distances.mean())


def test_what_quadrature_leaves_uncertain_is_told():
    """Probes that differ, and Gauss and anti-Gauss rules that differ, each make an error."""
    generator = torch.Generator().manual_seed(0)
    values = torch.logspace(-6, 0, 400, dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(400, 400, generator=generator, dtype=torch.float64))[0]
    A, flat = Q @ torch.diag(values) @ Q.T, Spectrum(1, np.array([1.0]))
    axis, truth = Axis.of(1.0), Spectrum(400, values.numpy())
    errors = []
    for steps in (4, 12):
        density = spectral_density(A, probes=8, steps=steps, seed=1)
        found = compare([Spectrum.of(density), flat], axis)
        errors.append(found.stderr)
        assert abs(found.heterogeneity - compare([truth, flat], axis).heterogeneity) < 3 * found.stderr
    assert errors[0] > errors[1] > 0


def test_blocks_are_chosen_among_the_largest_and_over_the_rest():
    sizes = np.array([5.0, 9.0, 1.0, 3.0, 7.0, 2.0])
    assert spread(sizes, 10) == [0, 1, 2, 3, 4, 5]
    chosen = spread(sizes, 4)
    assert len(chosen) == 4
    assert {1, 4, 2} <= set(chosen), "the two largest and the smallest"


@pytest.mark.parametrize("name", ["gpt", "tanh"])
def test_quadrature_is_within_two_hundredths_of_lapack(name):
    """Of the ten networks of the benchmark, two."""
    found = errors(HELD_OUT[name]())
    assert found.blocks >= 2
    assert abs(found.sampled - found.exact) <= 0.02
    assert found.exact > 0.05
