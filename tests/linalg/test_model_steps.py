"""Steps that minimize a quadratic model: against a dense solve of the optimality conditions, and SciPy."""

import math

import numpy as np
import pytest
import torch

from hessdiag.errors import ComputeError
from hessdiag.linalg import cubic, gltr, steihaug
from hessdiag.linalg.quadratic.least import Ball, Cube, _shifted

N = 30


class Counted:
    """A matrix that counts its products."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.products = matrix, matrix.shape, 0

    def __matmul__(self, vector):
        self.products += 1
        return self.matrix @ vector


def case(kind, seed=0, n=N):
    """A matrix, a gradient and a metric of five decades."""
    generator = np.random.default_rng(seed)
    Q = np.linalg.qr(generator.normal(size=(n, n)))[0]
    values = np.geomspace(0.01, 10, n) if kind == "definite" else np.linspace(-1, 2, n)
    return (Q * values) @ Q.T, generator.normal(size=n), np.exp(generator.uniform(-3, 3, n))


def dense(B, g, M, radius):
    """The least of the model in the ellipsoid by bisection of the multiplier: (decrease, step)."""
    L = np.linalg.cholesky(M if M.ndim == 2 else np.diag(M))
    inverse = np.linalg.inv(L)
    values, U = np.linalg.eigh(inverse @ B @ inverse.T)
    c = U.T @ inverse @ g

    def at(shift):
        return -c / (values + shift)

    low = max(0.0, -values[0])
    if values[0] > 0 and np.linalg.norm(at(0.0)) <= radius:
        y = at(0.0)
    else:
        high = low + np.linalg.norm(c) / radius
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if np.linalg.norm(at(middle)) > radius else (low, middle)
        y = at(high)
    step = inverse.T @ U @ y
    return -(g @ step + step @ B @ step / 2), step


def model(B, g, s):
    return g @ s + s @ B @ s / 2


def solved(solver, B, g, M, radius, **options):
    """The step as numpy, with what was said of it."""
    counted = Counted(torch.from_numpy(B))
    found = solver(counted, torch.from_numpy(g), radius, metric=torch.from_numpy(M), **options)
    assert found.products == counted.products
    return found.step.numpy(), found


def length(s, M):
    return math.sqrt(s @ (M @ s if M.ndim == 2 else M * s))


@pytest.mark.parametrize("kind", ["definite", "indefinite"])
@pytest.mark.parametrize("radius", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("whole", [False, True])
def test_steps_against_the_dense_solution(kind, radius, whole):
    B, g, M = case(kind)
    M = np.diag(M) + np.outer(g, g) if whole else M
    best, exact = dense(B, g, M, radius)
    for solver in (steihaug, gltr):
        s, found = solved(solver, B, g, M, radius, tolerance=1e-11, most=N)
        assert found.decrease == pytest.approx(-model(B, g, s), rel=1e-10)
        assert found.length == pytest.approx(length(s, M), rel=1e-10)
        if found.exit != "interior":
            assert length(s, M) == pytest.approx(radius, rel=1e-10)
    assert found.decrease == pytest.approx(best, rel=1e-9)
    assert s == pytest.approx(exact, abs=1e-6 * np.linalg.norm(exact))


@pytest.mark.parametrize(
    ("kind", "radius", "products"),
    [("definite", 0.01, 3), ("definite", 1.0, 12), ("indefinite", 0.1, 8), ("indefinite", 10.0, 12)],
)
def test_gltr_comes_near_the_optimum_with_few_products(kind, radius, products):
    B, g, M = case(kind, seed=3)
    _, found = solved(gltr, B, g, M, radius, tolerance=0.1)
    assert found.products <= products
    assert found.decrease >= 0.98 * dense(B, g, M, radius)[0]


def test_a_solver_that_stops_early_gets_half_of_the_optimum_where_the_matrix_is_definite():
    for seed in range(5):
        B, g, M = case("definite", seed)
        for radius in (0.01, 0.1, 1.0, 10.0):
            _, found = solved(steihaug, B, g, M, radius, tolerance=0.1)
            assert found.decrease >= 0.5 * dense(B, g, M, radius)[0]


def test_negative_curvature_ends_conjugate_gradients_at_once_and_not_lanczos():
    B, g, M = np.diag([-1.0, 2.0, 3.0]), np.array([1.0, 0.1, 0.1]), np.ones(3)
    s, found = solved(steihaug, B, g, M, 2.0)
    assert (found.exit, found.products) == ("negative curvature", 1)
    assert s == pytest.approx(-2 * g / np.linalg.norm(g), rel=1e-12)
    _, better = solved(gltr, B, g, M, 2.0, tolerance=1e-10)
    assert better.exit == "negative curvature"
    assert better.decrease == pytest.approx(dense(B, g, M, 2.0)[0], rel=1e-10)


def test_an_inner_step_solves_the_linear_system():
    B, g, M = case("definite", seed=1)
    for solver in (steihaug, gltr):
        s, found = solved(solver, B, g, M, 1e6, tolerance=1e-12, most=100)
        assert found.exit == "interior"
        assert np.linalg.norm(B @ s + g) <= 1e-9 * np.linalg.norm(g)


def test_the_tolerance_tightens_with_the_gradient():
    B, g, M = case("definite", seed=2)
    for solver in (steihaug, gltr):
        loose = solved(solver, B, 1e-8 * g, M, 1e6, theta=0.0)[1].products
        assert solved(solver, B, 1e-8 * g, M, 1e6, theta=0.5)[1].products > loose


def test_what_runs_out_of_products_says_so():
    B, g, M = case("definite")
    for solver in (steihaug, gltr):
        _, found = solved(solver, B, g, M, 1e6, tolerance=1e-12, most=4)
        assert (found.exit, found.products) == ("limit", 4)


@pytest.mark.parametrize("kind", ["definite", "indefinite"])
def test_the_ball_as_scipy_sees_it(kind):
    from scipy.optimize._trlib import get_trlib_quadratic_subproblem

    B, g, _ = case(kind, seed=4)
    for radius in (0.1, 1.0):  # beyond, theirs loses orthogonality
        problem = get_trlib_quadratic_subproblem(tol_rel_i=1e-12, tol_rel_b=1e-12)(
            np.zeros(N), lambda x: 0.0, lambda x: g, lambda x: B, lambda x, p: B @ p
        )
        theirs, _ = problem.solve(radius)
        s, _ = solved(gltr, B, g, np.ones(N), radius, tolerance=1e-12)
        assert s == pytest.approx(theirs, abs=1e-6 * radius)


def test_steps_scale_with_the_model_from_1e_minus_30_to_1e30():
    B, g, M = case("indefinite", seed=5)
    for solver in (steihaug, gltr):
        s, found = solved(solver, B, g, M, 0.5)
        for scale in (2.0**-100, 2.0**100):
            same, scaled = solved(solver, scale * B, scale * g, M, 0.5)
            assert np.array_equal(s, same)
            assert scaled.decrease == pytest.approx(scale * found.decrease, rel=1e-12)


def test_float32_stands_entries_whose_squares_vanish():
    B, g, M = (torch.from_numpy(part) for part in case("indefinite", seed=6))
    for solver in (steihaug, gltr):
        exact = solver(B, g, 0.5, metric=M)
        found = solver((1e-25 * B).float(), (1e-25 * g).float(), 0.5, metric=M.float())
        assert found.step.dtype == torch.float32
        assert found.step.double().numpy() == pytest.approx(exact.step.numpy(), abs=1e-4)
        assert found.decrease == pytest.approx(1e-25 * exact.decrease, rel=1e-4)


def test_without_a_gradient_only_lanczos_finds_its_way_down():
    B, _, M = case("indefinite", seed=7)
    zero, lowest = np.zeros(N), np.linalg.eigvalsh(B / np.sqrt(np.outer(M, M)))[0]
    s, found = solved(steihaug, B, zero, M, 0.5)
    assert (np.abs(s).max(), found.decrease, found.products) == (0, 0, 0)
    s, found = solved(gltr, B, zero, M, 0.5, tolerance=1e-9)
    assert found.exit == "negative curvature"
    assert length(s, M) == pytest.approx(0.5, rel=1e-10)
    assert -model(B, zero, s) == pytest.approx(found.decrease, rel=1e-9)
    assert found.decrease == pytest.approx(-lowest * 0.5**2 / 2, rel=1e-6)
    assert s[5] != 0
    B[5], B[:, 5] = 0, 0
    s, _ = solved(gltr, B, zero, M, 0.5, most=5)
    assert s[5] == 0  # what the matrix does not know of stays
    B, _, M = case("indefinite", seed=7)
    s, _ = solved(gltr, B, zero, M, 0.5, tolerance=1e-9)
    again, _ = solved(gltr, B, zero, M, 0.5, tolerance=1e-9)
    assert np.array_equal(s, again)
    B, _, M = case("definite")
    for solver in (gltr, cubic):
        s, found = solved(solver, B, zero, M, 0.5)
        assert (np.abs(s).max(), found.decrease, found.exit) == (0, 0, "interior")


@pytest.mark.parametrize("kind", ["definite", "indefinite"])
@pytest.mark.parametrize("sigma", [1e-4, 1.0, 1e4])
def test_cubic_steps_meet_the_conditions_of_the_global_minimum(kind, sigma):
    B, g, M = case(kind, seed=8)
    for scale in (1.0, 1e-6, 0.0):
        s, found = solved(cubic, B, scale * g, M, sigma, tolerance=1e-12)
        size = length(s, M)
        shifted = B + sigma * size * np.diag(M)
        assert np.linalg.norm(shifted @ s + scale * g) <= 1e-11 * np.linalg.norm(B @ s)
        assert np.linalg.eigvalsh(shifted / np.sqrt(np.outer(M, M)))[0] >= -1e-9
        assert found.length == pytest.approx(size, rel=1e-10)
        assert found.decrease == pytest.approx(-model(B, scale * g, s) - sigma * size**3 / 3, rel=1e-8, abs=1e-300)
        assert found.exit == ("negative curvature" if kind == "indefinite" else "interior")


def test_near_the_hard_case_the_step_goes_along_the_lowest_eigenvector():
    values, c = np.array([-1.0, 1.0, 2.0]), np.array([1e-9, 0.3, 0.3])
    s, found = solved(gltr, np.diag(values), c, np.ones(3), 2.0, tolerance=1e-12)
    inside = -c[1:] / (values[1:] + 1)
    assert s == pytest.approx([-math.sqrt(4 - inside @ inside), *inside], abs=1e-7)
    assert found.exit == "negative curvature"


def test_the_hard_case_itself_fills_the_length_along_the_lowest_eigenvector():
    values, c = np.array([-1.0, 1.0]), np.array([0.0, 0.6])
    found, shift = _shifted(values, c, Ball())
    assert shift == 1
    assert found == pytest.approx([math.sqrt(1 - 0.3**2), -0.3], rel=1e-14)
    found, shift = _shifted(values, c, Cube())  # as long as lambda
    assert np.linalg.norm(found) == pytest.approx(shift, rel=1e-14)


def test_what_is_refused():
    B, g, M = (torch.from_numpy(part) for part in case("definite"))
    for solver in (steihaug, gltr, cubic):
        with pytest.raises(ValueError, match="is 0, and must be positive"):
            solver(B, g, 0.0)
        with pytest.raises(TypeError, match="int64"):
            solver(B, g.long(), 1.0)
        with pytest.raises(ValueError, match="does not fit a matrix"):
            solver(B, g[1:], 1.0)
        with pytest.raises(ValueError, match="the metric is not positive"):
            solver(B, g, 1.0, metric=M - M.min())
        with pytest.raises(ValueError, match="not positive definite"):
            solver(B, g, 1.0, metric=-torch.diag(M))
        with pytest.raises(ComputeError, match="gradient is not finite"):
            solver(B, g * math.nan, 1.0)
        with pytest.raises(ComputeError, match="product with the matrix is not finite"):
            solver(B * math.inf, g, 1.0)
