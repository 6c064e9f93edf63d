import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from hessdiag.theory.convolution import padding_matrix, zero_padding_decay


def energy_map(energy, depth, kernel=3):
    """Expected energy at each pixel behind `depth` zero-padded layers."""
    down, across = (np.linalg.matrix_power(padding_matrix(size, kernel), depth) for size in energy.shape)
    return down @ energy @ across.T


@pytest.mark.parametrize("resolution", [1, 2, 3, 7, 14, 32, 100])
def test_closed_form_of_three_taps(resolution):
    closed = ((1 + 2 * math.cos(math.pi / (resolution + 1))) / 3) ** 2
    assert zero_padding_decay(resolution) == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize(("resolution", "kernel"), [(5, 1), (9, 3), (9, 5), (4, 7)])
def test_decay_is_the_limit_of_the_energy_map(resolution, kernel):
    deep, deeper = (energy_map(np.ones((resolution, resolution)), depth, kernel).sum() for depth in (400, 401))
    assert deeper / deep == pytest.approx(zero_padding_decay(resolution, kernel), rel=1e-10)


def test_the_matrix_is_what_a_convolution_does_to_energy():
    energy = torch.rand(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    direct = F.conv2d(energy[None, None], torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9, padding=1)[0, 0]
    assert energy_map(energy.numpy(), 1) == pytest.approx(direct.numpy(), rel=1e-12)


@pytest.mark.parametrize(("gain", "relu"), [(1, False), (2, True)])
def test_random_networks_have_the_expected_energy(gain, relu):
    """Exact for every depth: the mean over networks within four standard errors, at each of three layers."""
    nets, c, r = 3000, 6, 5
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(1, c, r, r, dtype=torch.float64, generator=generator).expand(nets, c, r, r)
    start = h[0].square().sum(0).numpy()
    for depth in range(1, 4):
        weights = torch.randn(nets * c, c, 3, 3, dtype=torch.float64, generator=generator) * (gain / (9 * c)) ** 0.5
        h = F.conv2d(h.reshape(1, nets * c, r, r), weights, padding=1, groups=nets).reshape(nets, c, r, r)
        h = h.relu() if relu else h
        energies = h.square().sum((1, 2, 3)).numpy()
        expected = energy_map(start, depth).sum()
        assert abs(energies.mean() - expected) <= 4 * energies.std() / nets**0.5


@pytest.mark.parametrize(("resolution", "kernel"), [(0, 3), (5, 2), (5, 0)])
def test_wrong_sizes(resolution, kernel):
    with pytest.raises(ValueError, match="odd kernel"):
        padding_matrix(resolution, kernel)


@pytest.mark.parametrize("kernel", [1, 5, 7])
def test_other_windows(kernel):
    energy = torch.rand(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    window = torch.ones(1, 1, kernel, kernel, dtype=torch.float64) / kernel**2
    once = F.conv2d(energy[None, None], window, padding=kernel // 2)
    twice = F.conv2d(once, window, padding=kernel // 2)
    assert energy_map(energy.numpy(), 1, kernel) == pytest.approx(once[0, 0].numpy(), rel=1e-12)
    assert energy_map(energy.numpy(), 2, kernel) == pytest.approx(twice[0, 0].numpy(), rel=1e-12)
