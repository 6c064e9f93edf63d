"""Laws of tracking a moving minimum, against simulations of the algorithms themselves and numbers of the paper."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import solve_discrete_lyapunov

from hessdiag.errors import SpecError
from hessdiag.theory.lodo import (
    best_gradient_descent,
    bowl_eigenvalues,
    gradient_descent_loss,
    heavy_ball_loss,
    mean_flow,
    newton_loss,
    tracking_loss,
)

BOWL = bowl_eigenvalues()


def tracked(step, steps=20_000, seed=0):
    """Losses of `step(g)`, the move for a gradient, along the bowl in its eigenbasis."""
    x = np.zeros(len(BOWL))
    losses, centre = [], x
    for noise in np.random.default_rng(seed).standard_normal((steps, len(BOWL))):
        centre = centre + noise
        losses.append(BOWL @ (x - centre) ** 2 / 2)
        x = x + step(BOWL * (x - centre))
    return np.array(losses)


def test_newton_bound():
    q = 10 ** (-3 / 99)
    assert newton_loss(BOWL) == pytest.approx((1 - 1e-3 * q) / (1 - q) / 2, rel=1e-12)
    assert newton_loss(BOWL) == pytest.approx(7.41185, abs=5e-6)
    assert newton_loss(BOWL, variance=4.0) == 4 * newton_loss(BOWL)
    assert tracked(lambda g: -g / BOWL).mean() == pytest.approx(7.412, rel=0.01)


def test_gradient_descent_bound():
    lr, loss = best_gradient_descent(BOWL)
    assert (lr, loss) == (pytest.approx(1.75, abs=0.005), pytest.approx(19.087, abs=1e-3))
    assert gradient_descent_loss(BOWL, 0.5) == pytest.approx(sum(1 / (0.5 * (2 - 0.5 * BOWL))) / 2, rel=1e-12)
    assert gradient_descent_loss(BOWL, 2.1) == np.inf
    assert best_gradient_descent(BOWL, variance=3.0) == (pytest.approx(lr, rel=1e-6), pytest.approx(3 * loss))


def test_heavy_ball_of_the_paper():
    loss = heavy_ball_loss(BOWL, 1.394, 0.529)
    assert loss == pytest.approx(16.5856, abs=5e-5)
    speed = np.zeros(len(BOWL))

    def step(g):
        nonlocal speed
        speed = 0.529 * speed - 1.394 * g
        return speed

    assert tracked(step).mean() == pytest.approx(loss, rel=0.015)


@pytest.mark.parametrize(("lr", "momentum"), [(0.3, 0.9), (1.0, 0.0), (2.5, 0.5)])
def test_heavy_ball_is_a_lyapunov_equation(lr, momentum):
    expected = 0.0
    for value in BOWL:
        A = np.array([[1 - lr * value, momentum], [-lr * value, momentum]])
        expected += value * solve_discrete_lyapunov(A, np.diag([2.0, 0.0]))[0, 0] / 2
    assert heavy_ball_loss(BOWL, lr, momentum, variance=2.0) == pytest.approx(expected, rel=1e-9)


def test_heavy_ball_at_its_ends():
    assert heavy_ball_loss(BOWL, 1.2, 0.0) == pytest.approx(gradient_descent_loss(BOWL, 1.2))
    assert heavy_ball_loss(BOWL, 2 * (1 + 0.5) + 1e-9, 0.5) == np.inf  # where the steepest direction oscillates
    assert np.isfinite(heavy_ball_loss(BOWL, 2 * (1 + 0.5) - 1e-3, 0.5))


def test_tracking_by_a_fixed_matrix():
    G = 0.5 / np.sqrt(BOWL)
    expected = tracking_loss(BOWL, 1 - G * BOWL)
    assert tracked(lambda g: -G * g)[2000:].mean() == pytest.approx(expected, rel=0.02)
    assert tracking_loss(BOWL, 0 * BOWL) == newton_loss(BOWL)


FLOW = np.array([1.0, 0.8, 0.6, 0.4, 0.3, 0.2])
START = 1 - 0.3 * FLOW


def test_the_mean_flow_solves_its_equation():
    def slope(_, A):
        return -2e-4 * 1.5 * FLOW**3 * A / (1 - A**2)

    solved = solve_ivp(slope, (0, 20_000), START, rtol=1e-10, atol=1e-12).y[:, -1]
    assert mean_flow(FLOW, START, 2e-4, 20_000, variance=1.5) == pytest.approx(solved, abs=1e-8)
    assert mean_flow(FLOW, -START, 2e-4, 20_000, variance=1.5) == pytest.approx(-solved, abs=1e-8)
    assert mean_flow(FLOW, START, 2e-4, 0) == pytest.approx(START, abs=1e-12)
    with pytest.raises(SpecError, match=r"-1\.5"):
        mean_flow([1.0, 1.0], [0.2, -1.5], 1e-4, 10)


def test_the_mean_flow_is_how_a_dense_matrix_learns():
    """G is learned by its hypergradient -g' g_before, itself: no recursion of I - GH is used."""
    rate, steps, runs = 2e-4, 20_000, 8
    G = np.tile(0.3 * np.eye(6), (runs, 1, 1))
    x = centre = before = np.zeros((runs, 6))
    for noise in np.random.default_rng(0).standard_normal((steps, runs, 6)):
        x = x - np.matmul(G, before[:, :, None])[:, :, 0]
        centre = centre + noise
        g = FLOW * (x - centre)
        G = G + rate * g[:, :, None] * before[:, None, :]
        before = g
    errors = 1 - np.diagonal(G, axis1=1, axis2=2) * FLOW
    flow = mean_flow(FLOW, START, rate, steps)
    assert flow.round(3).tolist() == [0.010, 0.074, 0.255, 0.533, 0.681, 0.817]
    assert np.abs(errors.mean(0) - flow).max() < 0.02
    assert np.abs(mean_flow(FLOW, START, 2 * rate, steps) - errors.mean(0)).max() > 0.1
