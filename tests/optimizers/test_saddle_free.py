"""Saddle-free Newton against |H|^-1 g by eigenvalues, and what it does at saddles."""

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.optimizers import SaddleFreeNewton
from tests.optimizers.counting import calls
from tests.optimizers.plateau import backpropagations_to, half_squares, plateau


def indefinite(n=12):
    generator = torch.Generator().manual_seed(3)
    values = torch.tensor([(-1.0) ** i * 1.6**i for i in range(n)], dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    return (Q * values) @ Q.T, torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_in_the_full_krylov_space_it_is_the_inverse_of_the_absolute_hessian(damping):
    A, b = indefinite()
    w = nn.Parameter(torch.zeros(12).double())
    optimizer = SaddleFreeNewton([w], products=12, damping=damping)
    optimizer.step(lambda: w @ A @ w / 2 + b @ w)
    values, vectors = np.linalg.eigh(A.numpy())
    exact = -vectors @ ((vectors.T @ b.numpy()) / (np.abs(values) + damping))
    np.testing.assert_allclose(w.detach(), exact, rtol=1e-8, atol=1e-8)
    last = optimizer.last
    assert (last.exit, last.products, last.gradients, last.evaluations) == ("interior", 12, 1, 2)
    assert last.rho == pytest.approx(1, abs=1e-8)
    assert last.length == pytest.approx(np.linalg.norm(exact))
    assert last.damping == pytest.approx(damping * 2 / 3)


@pytest.mark.parametrize("k", [1, 4])
def test_in_a_smaller_space_it_is_that_of_the_projection(k):
    A, b = indefinite()
    w = nn.Parameter(torch.zeros(12).double())
    optimizer = SaddleFreeNewton([w], products=k, damping=0.3)
    optimizer.step(lambda: w @ A @ w / 2 + b @ w)
    krylov = np.stack([np.linalg.matrix_power(A.numpy() / 100, i) @ b.numpy() for i in range(k)], axis=1)
    Q = np.linalg.qr(krylov)[0]
    values, vectors = np.linalg.eigh(Q.T @ A.numpy() @ Q)
    exact = -Q @ vectors @ ((vectors.T @ Q.T @ b.numpy()) / (np.abs(values) + 0.3))
    np.testing.assert_allclose(w.detach(), exact, rtol=1e-6)
    assert (optimizer.last.exit, optimizer.last.products) == ("limit", k)


def saddle(w):
    return (w[0] ** 2 - w[1] ** 2 + w[1] ** 4 / 2).sum()


def test_it_leaves_a_saddle_from_near_it_where_newton_goes_into_it():
    w = nn.Parameter(torch.tensor([1.0, 1e-6]).double())
    H = torch.diag(torch.tensor([2.0, -2.0]).double())
    newton = w.detach() - torch.linalg.solve(H, torch.tensor([2.0, -2e-6]).double())
    assert newton.abs().max() < 1e-15
    optimizer = SaddleFreeNewton([w])
    for _ in range(45):
        optimizer.step(lambda: saddle(w))
    assert w[1].item() == pytest.approx(1.0, abs=1e-3)
    assert w[0].item() == pytest.approx(0.0, abs=1e-3)


def test_the_distance_from_a_saddle_doubles():
    w = nn.Parameter(torch.tensor([0.5, 1e-6]).double())
    optimizer = SaddleFreeNewton([w], damping=0.0)
    for step in range(1, 8):
        optimizer.step(lambda: saddle(w))
        assert w[1].item() == pytest.approx(1e-6 * 2**step, rel=1e-6)


def test_a_saddle_attracts_what_has_no_gradient_along_its_negative_curvature():
    w = nn.Parameter(torch.tensor([1.0, 0.0]).double())
    optimizer = SaddleFreeNewton([w])
    for _ in range(40):
        optimizer.step(lambda: saddle(w))
    assert w.abs().max() < 1e-6
    w.data.zero_()
    optimizer.step(lambda: saddle(w))
    assert w.tolist() == [0.0, 0.0]
    assert (optimizer.last.accepted, optimizer.last.exit, optimizer.last.products) == (False, "none", 0)


def test_without_curvature_it_goes_downhill_and_without_numbers_nowhere():
    w = nn.Parameter(torch.tensor([1.0, 2.0]).double())
    optimizer = SaddleFreeNewton([w])
    optimizer.step(lambda: 3 * w[0] + 4 * w[1])
    assert w.tolist() == pytest.approx([-2.0, -2.0])
    assert optimizer.last.damping is None
    w.data.copy_(torch.tensor([1.0, 2.0]))
    optimizer.step(lambda: w.sum() + (w - w.detach()).pow(1.5).sum())
    assert w.tolist() == [1.0, 2.0]
    assert not optimizer.last.accepted


@pytest.mark.parametrize("sampled", [False, True])
def test_what_is_reported_is_what_was_done(sampled, monkeypatch):
    w = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]).double())
    optimizer = SaddleFreeNewton([w], products=2)
    for _ in range(3):
        with calls(monkeypatch) as counts:
            optimizer.step(lambda: w.exp().sum(), *([lambda: w[:2].exp().sum()] if sampled else []))
        last = optimizer.last
        assert (last.products, last.gradients) == (2, 1 + sampled)
        assert counts.made == last.gradients + last.products == last.backpropagations


def test_it_leaves_the_plateau_of_the_deep_network():
    model, x, y = plateau(0, "xavier", depth=16, samples=64)
    closure = half_squares(model, x, y)
    assert backpropagations_to(0.9, SaddleFreeNewton(model.parameters()), closure, 150) <= 150
