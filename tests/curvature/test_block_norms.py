"""Exact block norms from pairs of samples, against dense matrices and against sums over all entries."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.curvature import block_norms, exact
from hessdiag.curvature.dense import hessian
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import measure as module
from hessdiag.questions.blocks.exact import affordable
from hessdiag.questions.blocks.measure import blocks
from tests.curvature.test_exact import CASES


@pytest.fixture
def by_pairs(monkeypatch):
    """`blocks`, as beyond the size up to which whole matrices are computed."""

    def measure(problem, **options):
        with monkeypatch.context() as patch:
            patch.setattr(module, "EXACT_UP_TO", 0)
            return blocks(problem, **options)

    return measure


def _tanh(widths, samples, dtype=torch.float64, loss="ce"):
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
    model = nn.Sequential(*layers[:-1]).to(dtype)
    x = torch.randn(samples, widths[0], dtype=dtype)
    y = torch.arange(samples) % widths[-1] if loss == "ce" else torch.randn(samples, widths[-1], dtype=dtype)
    return Problem(model, data=[(x, y)], loss=loss)


def _norms(matrix, problem):
    layers = problem.layer_slices
    return [[float(matrix[a.start : a.stop, b.start : b.stop].norm()) for b in layers] for a in layers]


def _agree(found, expected, scale):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13 * scale)


@pytest.mark.parametrize("name", CASES)
def test_all_that_the_whole_matrices_tell(name, by_pairs):
    problem = CASES[name]()
    found, expected = by_pairs(problem), blocks(problem)
    assert found.method == expected.method == "exact"
    assert found.engine.startswith("pairs of samples in neuron space")
    for key in ("frobenius", "gauss_newton", "residual", "norm", "gauss_newton_norm", "residual_norm"):
        _agree(getattr(found, key), getattr(expected, key), expected.norm)
        assert getattr(found, f"{key}_stderr") is None
    for key in ("trace", "diagonal_mass", "between_layers", "residual_share", "eigenvalue_bounds"):
        _agree(getattr(found, key), getattr(expected, key), expected.norm)
    assert found.residual_diagonal_vanishes is expected.residual_diagonal_vanishes
    assert (found.indefinite_pair is None) is (expected.indefinite_pair is None)


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_three_thousand_parameters_against_dense_matrices(loss, by_pairs):
    problem = _tanh([20, 30, 30, 30, 10], 40, loss=loss)
    found = by_pairs(problem)
    H = hessian(problem)
    G = GaussNewtonOperator(problem) @ torch.eye(problem.n_parameters).double()
    for key, matrix in (("frobenius", H), ("gauss_newton", G), ("residual", H - G)):
        _agree(getattr(found, key), _norms(matrix, problem), found.norm)


def test_an_objective_has_no_split(by_pairs):
    problem = _tanh([4, 6, 3], 5)
    whole = Problem(problem.model, data=problem.data, objective=lambda m, b: m(b[0]).square().sum(1).exp().mean())
    found, expected = by_pairs(whole), blocks(whole)
    assert found.engine.startswith("pairs of samples")
    assert found.residual is None
    _agree(found.frobenius, expected.frobenius, expected.norm)


def test_larger_than_is_held():
    """|H|^2 is the sum of squares of all 436 million entries, seen panel by panel."""
    problem = _tanh([48, 96, 96, 64, 10], 24)
    found = blocks(problem)
    space = exact.neuron_space(HessianOperator(problem))
    square = sum(float(panel.block.square().sum()) * (1 + panel.mirrored) for panel in space.panels())
    assert (problem.n_parameters, found.method) == (20_874, "exact")
    assert found.norm**2 == pytest.approx(square, rel=1e-10)
    assert np.square(found.frobenius).sum() == pytest.approx(square, rel=1e-10)
    estimate = blocks(problem, probes=8)
    assert estimate.method == "probes"
    for key in ("norm", "gauss_newton_norm", "residual_norm"):
        value, error, truth = getattr(estimate, key), getattr(estimate, f"{key}_stderr"), getattr(found, key)
        assert abs(value - truth) <= 4 * error


def test_single_precision(by_pairs):
    problem = _tanh([8, 12, 12, 3], 16, torch.float32)
    found = by_pairs(problem)
    wide = Problem(problem.model.double(), data=[(problem.data[0][0].double(), problem.data[0][1])], loss="ce")
    np.testing.assert_allclose(found.frobenius, blocks(wide).frobenius, rtol=1e-5)
    relu = Problem(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        data=[(torch.randn(9, 6), torch.arange(9) % 3)],
        loss="ce",
    )
    assert by_pairs(relu).residual_diagonal_vanishes is True


def test_where_it_cannot_serve_there_are_probes(by_pairs):
    data = [(torch.randn(9, 6).double(), torch.arange(9) % 3)]
    norm = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    assert by_pairs(Problem(norm, data=data, loss="ce", train_mode=True)).method == "probes"
    assert by_pairs(Problem(norm, data=data, loss="ce")).method == "exact"
    assert by_pairs(Problem(norm, data=data, loss="ce"), probes=3).method == "probes"
    assert not affordable(_tanh([64, 700, 700, 700, 10], 32))
    assert not affordable(Problem(nn.Conv1d(6, 3, 1), data=[(torch.randn(4, 6, 2), torch.zeros(4, 3, 2))], loss="mse"))


def test_samples_that_cancel_are_noticed():
    large = torch.ones(3, 2, 2, dtype=torch.float64)
    block_norms.refuse_cancelled(large, 1e3 * large)
    kinds = torch.tensor([1.0, 1.0, 1e-30], dtype=torch.float64)[:, None, None]
    block_norms.refuse_cancelled(kinds * large, 1e3 * kinds * large)
    with pytest.raises(NotInNeuronSpaceError, match="nearly cancel"):
        block_norms.refuse_cancelled(1e-9 * large, large)
