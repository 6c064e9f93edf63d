"""Muon's ratios against brute force, eigenvalues, and the edge that its own runs settle at."""

import itertools
import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.optimizers.dual_norm import dual_norm
from hessdiag.optimizers.preconditioning import direction, preconditioning
from hessdiag.problem.problem import Problem
from hessdiag.questions.sharpness.measure import sharpness


class Matrices(nn.Module):
    def __init__(self, *shapes):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ParameterList([nn.Parameter(torch.randn(*shape).double()) for shape in shapes])

    @property
    def w(self):
        return torch.cat([part.reshape(-1) for part in self.parts])


def quadratic(*shapes, seed=1):
    """The loss w'Hw/2 of some matrices, its gradient, and H."""
    model = Matrices(*shapes)
    n = len(model.w)
    root = torch.randn(n, n, generator=torch.Generator().manual_seed(seed)).double()
    matrix = root @ torch.diag(torch.logspace(0, -2, n).double()) @ root.T
    problem = Problem(model, data=[None], objective=lambda model, _: model.w @ matrix @ model.w / 2)
    return problem, matrix @ model.w.detach(), matrix


def test_of_columns_it_is_the_largest_eigenvalue():
    """The spectral norm of a column is its length, and torch scales it by the root of its length."""
    problem, gradient, matrix = quadratic((6, 1))
    found = dual_norm(problem, matrix, gradient, preconditioning(problem, "muon(lr=0.1)"), most=100)
    top = torch.linalg.eigvalsh(matrix).max().item()
    assert found.sharpness == pytest.approx(6 * top, rel=1e-3)
    assert found.dual == pytest.approx(math.sqrt(6) * gradient.norm().item(), rel=1e-12)


def test_of_numbers_it_is_the_largest_over_all_signs():
    problem, gradient, matrix = quadratic(*[(1, 1)] * 6)
    found = dual_norm(problem, matrix, gradient, preconditioning(problem, "muon(lr=0.02)"))
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6))).double()
    assert found.sharpness == pytest.approx(((signs @ matrix) * signs).sum(1).max().item(), rel=1e-9)
    assert found.dual == pytest.approx(gradient.abs().sum().item(), rel=1e-12)
    assert found.products <= 15


def test_the_shape_scales_as_torch_scales_it():
    """The step that S is of has the length of torch's own step, on which all singular values are about one."""
    problem, gradient, _ = quadratic((6, 2), (2, 5))
    identity = torch.eye(22).double()
    found = dual_norm(problem, identity, gradient, preconditioning(problem, "muon(lr=0.3)"))
    assert found.sharpness == pytest.approx(3 * 2 + 2, rel=1e-9)  # squares of sqrt(6 / 2), two each
    matched = preconditioning(problem, "muon(lr=0.3, adjust_lr_fn='match_rms_adamw')")
    assert dual_norm(problem, identity, gradient, matched).sharpness == pytest.approx(0.04 * (12 + 10), rel=1e-9)


def test_without_matrices_or_a_gradient_there_is_none():
    problem, gradient, matrix = quadratic((3, 2))
    assert dual_norm(problem, matrix, gradient, preconditioning(problem, "sgd")) is None
    assert dual_norm(problem, matrix, 0 * gradient, preconditioning(problem, "muon")) is None


def test_the_ratio_of_a_step_is_that_of_the_losses():
    """One step changes the loss by g's (1 - R), exactly on a quadratic: what `sharpness` says of it."""
    problem, gradient, matrix = quadratic((4, 3))
    step = direction(problem, preconditioning(problem, "muon(lr=0.05, weight_decay=0.0)"))
    start = problem.model.w.detach()
    losses = [float(w @ matrix @ w / 2) for w in (start, start + step)]
    expected = 1 - (losses[1] - losses[0]) / float(gradient @ step)
    found = sharpness(problem, optimizer="muon(lr=0.05, weight_decay=0.0)")
    assert found.reading("directional").ratio == pytest.approx(expected, rel=1e-9)


def test_digits_runs_with_exact_polar_factors_settle_at_one():
    """Tanh MLP 64-24-24-10 on 300 digits, learning rate 0.01: S lr / (2 |g|_*) comes to one and stays there."""
    digits = load_digits()
    x = torch.tensor(digits.data[:300] / 16)
    batch = (x - x.mean(0), nn.functional.one_hot(torch.tensor(digits.target[:300]), 10).double())
    torch.manual_seed(0)
    widths = [nn.Linear(a, b, bias=False) for a, b in ((64, 24), (24, 24), (24, 10))]
    model = nn.Sequential(widths[0], nn.Tanh(), widths[1], nn.Tanh(), widths[2]).double()
    problem = Problem(model, data=[batch], objective=lambda model, b: (model(b[0]) - b[1]).square().sum(1).mean() / 2)
    made = preconditioning(problem, "muon(lr=0.01)")
    ratios = []
    for step in range(261):
        gradient = HessianOperator(problem, check=False).gradient()
        if step in (0, 230, 240, 250, 260):
            found = dual_norm(problem, HessianOperator(problem, check=False), gradient, made)
            ratios.append(0.01 * found.sharpness / (2 * found.dual))
        with torch.no_grad():
            for parameter, place in zip(problem.parameters, problem.places(), strict=True):
                left, _, right = torch.linalg.svd(gradient[place].view(parameter.shape), full_matrices=False)
                parameter -= 0.01 * left @ right
    assert ratios[0] < 0.1
    assert sum(ratios[1:]) / 4 == pytest.approx(1.0, abs=0.03)
