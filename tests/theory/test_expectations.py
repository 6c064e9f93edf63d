"""Expected gradient and Hessian block norms against tabulated values and simulated Hessians."""

import math

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, vmap

from hessdiag.errors import SpecError
from hessdiag.theory.expectations import (
    expected_block_norm2,
    expected_gradient_norm2,
    expected_trace,
    target_block_norm2,
    target_gradient_norm2,
)

LINEAR, RELU = 1.0, 0.0
SMALL = [3, 2, 4, 3, 2]  # uneven widths and variances, so that no index can be confused with another
VARIANCES = [0.3, 0.5, 0.2, 0.4]
X, Y = (1.0, -0.5, 2.0), (0.7, -1.5)


def simulate(objective, draw, slope, nets):
    """Squared norms of gradients (nets, L) and Hessian blocks (nets, L, L), and traces (nets,)."""
    sizes = [a * b for a, b in zip(SMALL[1:], SMALL[:-1], strict=True)]
    scale = torch.cat(
        [torch.full((n,), math.sqrt(v), dtype=torch.float64) for n, v in zip(sizes, VARIANCES, strict=True)]
    )

    def loss(theta):
        h = torch.tensor(X, dtype=torch.float64)
        for i, part in enumerate(theta.split(sizes)):
            a = part.view(SMALL[i + 1], SMALL[i]) @ h
            h = a if i == len(sizes) - 1 else torch.where(a > 0, a, slope * a)
        return objective(h, torch.tensor(Y, dtype=torch.float64))

    theta = draw(nets, sum(sizes)) * scale
    g, H = vmap(grad(loss))(theta).numpy(), vmap(hessian(loss))(theta).numpy()
    starts = np.cumsum([0, *sizes[:-1]])
    blocks = np.add.reduceat(np.add.reduceat(H**2, starts, axis=1), starts, axis=2)
    return np.add.reduceat(g**2, starts, axis=1), blocks, np.trace(H, axis1=1, axis2=2)


def gaussian(nets, size):
    return torch.randn(nets, size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def uniform(nets, size):
    unit = torch.rand(nets, size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return (2 * unit - 1) * math.sqrt(3)


def largest_z(sample, expected):
    error = sample.std(0) / math.sqrt(len(sample))
    exact = error == 0
    assert np.array_equal(np.broadcast_to(expected, error.shape)[exact], sample.mean(0)[exact])
    return np.abs((sample.mean(0) - expected) / np.where(exact, 1, error)).max()


@pytest.mark.parametrize("slope", [LINEAR, RELU, 0.4])
def test_expectations_agree_with_simulated_hessians(slope):
    gradients, blocks, traces = simulate(lambda z, y: ((z - y) ** 2).sum() / 2, gaussian, slope, 20_000)
    setting = (SMALL, VARIANCES, slope)
    norms = {"x_norm2": sum(v**2 for v in X), "y_norm2": sum(v**2 for v in Y)}
    assert largest_z(gradients, expected_gradient_norm2(*setting, **norms)) < 4
    assert largest_z(blocks, expected_block_norm2(*setting, **norms)) < 4
    assert largest_z(blocks.sum((1, 2)), expected_block_norm2(*setting, **norms).sum()) < 4
    assert largest_z(traces, expected_trace(*setting, x_norm2=norms["x_norm2"])) < 4


@pytest.mark.parametrize("slope", [LINEAR, RELU, 0.4])
def test_second_moment_parts_hold_for_uniform_weights(slope):
    gradients, blocks, _ = simulate(lambda z, y: -(z * y).sum(), uniform, slope, 20_000)
    setting = (SMALL, VARIANCES, slope, sum(v**2 for v in X), sum(v**2 for v in Y))
    assert largest_z(gradients, target_gradient_norm2(*setting)) < 4
    assert largest_z(blocks, target_block_norm2(*setting)) < 4


def test_trace_holds_for_uniform_weights():
    _, _, traces = simulate(lambda z, y: ((z - y) ** 2).sum() / 2, uniform, RELU, 20_000)
    assert largest_z(traces, expected_trace(SMALL, VARIANCES, RELU, x_norm2=5.25)) < 4


def test_one_layer_is_least_squares():
    assert expected_block_norm2([3, 2], 0.1, RELU, x_norm2=2.0) == pytest.approx(np.array([[8.0]]))
    assert expected_gradient_norm2([3, 2], 0.1, RELU, 2.0, 5.0) == pytest.approx([2 * (5 + 0.1 * 2 * 2)])


def test_great_depth_underflows_to_zero_without_a_warning():
    with np.errstate(all="raise", under="ignore"):
        blocks = expected_block_norm2([4] * 2001, 1 / 12, RELU)
    assert np.isfinite(blocks).all()


@pytest.mark.parametrize(
    ("widths", "variances"), [([3], 1.0), ([3, 0, 1], 1.0), ([3, 3, 1], [1.0, 1.0, 1.0]), ([3, 3, 1], 0.0)]
)
def test_what_makes_no_sense_is_refused(widths, variances):
    with pytest.raises(SpecError):
        expected_trace(widths, variances, LINEAR)
