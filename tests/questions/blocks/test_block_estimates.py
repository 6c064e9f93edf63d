"""Standard errors and intervals of block norms and traces, from samples of their squares."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from hessdiag.linalg import pairs
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import estimates
from hessdiag.questions.blocks.measure import blocks
from hessdiag.questions.common.block_squares import Squares, by_layer
from tests.reference import brute_force_hessian


def _x(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_errors_of_norms_by_hand():
    """Three samples of each square; a pair of layers is the mean of what both see of it, its variance a quarter of two."""
    own, ahead, back = np.array([4.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
    samples = np.stack([np.stack([own, ahead], 1), np.stack([back, own], 1)], 1)
    found = estimates.norms(samples, np.array([0.0, 9.0]))
    value, error = found.value, found.stderr
    widening = 4.302652729696142 / 1.959963984540054  # a table's t(0.975, 2) over that of a normal variable
    assert value[0] == pytest.approx([5**0.5, 3**0.5])
    assert error[0, 0] == pytest.approx(widening * (1 / 3) ** 0.5 / (2 * 5**0.5))
    assert error[1, 1] == pytest.approx(3**0.5 / (2 * 5**0.5))  # what pairs of samples say is more
    assert found.high[1, 1] == pytest.approx((50 / 3 * 5 / stats.chi2.ppf(0.025, 50 / 3)) ** 0.5)  # 2 5^2 / 3
    assert error[0, 1] == error[1, 0] == pytest.approx(widening * ((1 / 3 + 4 / 3) / 4) ** 0.5 / (2 * 3**0.5))


@pytest.mark.parametrize("probes", [8, 32])
def test_intervals_of_norms_and_traces_cover(probes):
    """400 groups of probes, on the Hessian of a deep network; neither much less nor much more than 95 %."""
    torch.manual_seed(3)
    widths = [8, 8, 8, 8, 8, 4]
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
    problem = Problem(nn.Sequential(*layers[:-1]).double(), data=[(_x(24, 8), torch.arange(24) % 4)], loss="ce")
    H, count = brute_force_hessian(problem).detach(), len(problem.executed_layers)
    true = blocks(problem)

    hits, inside = np.zeros((count, count)), np.zeros(count)
    rng, folds = np.random.default_rng(0), [pairs.Fold.of(layer.size, H.device) for layer in problem.executed_layers]
    for _ in range(400):
        parts, traces = np.zeros((probes, 1, count, count)), np.zeros((probes, count))
        known = []
        for m, layer in enumerate(problem.executed_layers):
            own = slice(layer.start, layer.stop)
            signs = torch.from_numpy(rng.choice([-1.0, 1.0], (probes, layer.size)))
            products = signs @ H[own]
            parts[:, 0, m] = by_layer(products.T, problem.executed_layers).T
            traces[:, m] = (signs * products[:, own]).sum(1)
            seen = [pairs.folded(folds[m], v, y[None, own]) for v, y in zip(signs, products, strict=True)]
            known.append(pairs.variances(folds[m], np.stack(seen)))
        own_variances, trace_variances = np.array([k[0] for k in known]).T, np.array([k[1][0] for k in known])
        norms = estimates.norms(parts[:, 0], own_variances[0])
        squares = Squares(parts, traces, 0, False, own_variances, trace_variances)
        sums = estimates.traces(squares)
        hits += (norms.low <= true.frobenius) & (true.frobenius <= norms.high)
        inside += (sums.low <= true.trace) & (true.trace <= sums.high)
    for rate in (hits / 400, inside / 400):
        assert rate.min() >= 0.91  # 92 % less what 400 groups may be off
        assert rate.mean() <= 0.98
