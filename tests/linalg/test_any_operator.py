"""The public solvers against closed forms, on tensors, plain classes, and operators of another library."""

import importlib
import inspect
import math

import numpy as np
import pytest
import torch

import hessdiag
from hessdiag import linalg
from hessdiag.linalg import diagonals, sketches
from tests.linalg.prescribed import N, spectra

EXACT = {"rtol": 1e-9, "atol": 1e-9}


class Laplacian:
    """2 on the diagonal, -1 beside it: no more than the four names that an operator needs."""

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, n):
        self.shape, self.products = (n, n), 0

    def __matmul__(self, vectors):
        self.products += 1 if vectors.ndim == 1 else vectors.shape[1]
        found = 2 * vectors
        found[1:] -= vectors[:-1]
        found[:-1] -= vectors[1:]
        return found

    @property
    def eigenvalues(self):
        n = self.shape[0]
        return torch.tensor([2 - 2 * math.cos(math.pi * k / (n + 1)) for k in range(1, n + 1)], dtype=torch.float64)


def dense(operator):
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


def rotated(values, seed=0):
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[0]
    return (Q * torch.as_tensor(values)) @ Q.T


@pytest.mark.parametrize("n", [1, 12, 500])
def test_eigsh_finds_both_ends_of_a_laplacian(n):
    A = Laplacian(n)
    found = linalg.eigsh(A, lowest=2, highest=2, tol=1e-10)
    k = min(n, 2)
    torch.testing.assert_close(found.values[:k], A.eigenvalues[:k], **EXACT)
    torch.testing.assert_close(found.values[-k:], A.eigenvalues[-k:], **EXACT)
    residuals = (A @ found.vectors - found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(found.residuals, residuals, rtol=0, atol=1e-12)


def test_a_tensor_and_a_class_with_the_same_products_have_the_same_pairs():
    A = Laplacian(300)
    one, other = (linalg.eigsh(what, lowest=1, highest=3, tol=1e-10) for what in (A, dense(A)))
    torch.testing.assert_close(one.values, other.values, **EXACT)
    torch.testing.assert_close(one.vectors.abs(), other.vectors.abs(), rtol=0, atol=1e-6)


def test_names_beyond_the_four_are_an_operators_own():
    class Named(Laplacian):
        terms = ("main", "side")

    assert linalg.trace(Named(12), 12).value == pytest.approx(24.0)


def test_exact_numbers_of_a_tensor():
    A = rotated(np.linspace(-3, 5, 40))
    for operator in (A, A.to_sparse(), A.clone().requires_grad_()):
        assert linalg.trace(operator, 40).value == pytest.approx(float(A.trace()), abs=1e-9)
        assert linalg.frobenius(operator, 100).value == pytest.approx(float(A.norm()), abs=1e-9)
        torch.testing.assert_close(linalg.diagonal(operator, 40).values, A.diagonal(), **EXACT)
        assert linalg.trace(operator, 40).stderr == linalg.frobenius(operator, 40).stderr == 0
        assert not linalg.diagonal(operator, 40).stderr.any()


def test_the_diagonal_of_a_tensor_costs_nothing_and_of_an_operator_n():
    A = Laplacian(64)
    assert linalg.diagonal(dense(A), 3).products == 0
    assert linalg.diagonal(A, 64).products == 64
    torch.testing.assert_close(linalg.diagonal(A, 64).values, torch.full((64,), 2.0, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize(("products", "sketch"), [(30, 0), (30, 7)])
def test_products_are_counted_as_they_are_spent(products, sketch):
    for solve in (linalg.trace, linalg.frobenius, linalg.diagonal):
        A = Laplacian(200)
        found = solve(A, products, seed=0, sketch=sketch)
        checked = 2  # the symmetry of the operator
        assert A.products == products + checked
        assert found.products == products


def test_a_sketch_as_wide_as_the_rank_leaves_nothing_to_chance():
    values = np.zeros(100)
    values[[3, 50, 99]] = 5.0, -2.0, 1.0

    class Low:
        shape, dtype, device, A = (100, 100), torch.float64, torch.device("cpu"), rotated(values)

        def __matmul__(self, vectors):
            return self.A @ vectors

    A = Low()
    assert linalg.trace(A, 20, seed=0, sketch=3).value == pytest.approx(4.0, abs=1e-9)
    found = linalg.frobenius(A, 20, seed=0, sketch=3)
    assert found.value == pytest.approx(30**0.5, abs=1e-9)
    assert found.stderr < 1e-9
    entries = linalg.diagonal(A, 20, seed=0, sketch=3)
    torch.testing.assert_close(entries.values, A.A.diagonal(), **EXACT)
    assert entries.stderr.max() < 1e-9


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_estimates_of_matrices_whose_squares_vanish_or_overflow(scale):
    A = rotated(np.linspace(-1, 1, 60))
    for products, sketch in ((20, 0), (20, 4), (60, 0)):
        one, other = (linalg.frobenius(scale**power * A, products, seed=0, sketch=sketch) for power in (0, 1))
        assert other.value / scale == pytest.approx(one.value, rel=1e-6)
        assert other.stderr / scale == pytest.approx(one.stderr, rel=1e-6)
    operators = (hessdiag.linalg.LinearCombination(((scale**power, A.to_sparse()),)) for power in (0, 1))
    one, other = (linalg.diagonal(operator, 20, seed=0) for operator in operators)
    torch.testing.assert_close(other.values / scale, one.values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.stderr / scale, one.stderr, rtol=1e-9, atol=1e-9)


COVERED = ("uniform", "1/i^2", "like a network's", "lognormal, signs")


@pytest.mark.parametrize("sketch", [0, 10])
def test_intervals_of_the_norm_and_of_the_diagonal_cover(sketch):
    norms, entries = [], []
    for name in COVERED:
        A = rotated(spectra()[name], 1)[: N // 2, : N // 2]  # any matrix of that kind
        norm, diagonal = float(A.norm()), A.diagonal()
        sparse = A.to_sparse_csr()  # whose diagonal is not at hand
        found = [sketches.frobenius(A, 40, seed, sketch=sketch) for seed in range(150)]
        norms.append(np.mean([one.interval[0] <= norm <= one.interval[1] for one in found]))
        rows = [diagonals.diagonal(sparse, 40, seed, sketch=sketch) for seed in range(10)]
        entries += [((one.interval[0] <= diagonal) & (diagonal <= one.interval[1])).double().mean() for one in rows]
    assert min(norms) >= 0.9
    assert 0.93 <= np.mean(norms) <= 0.975
    assert 0.93 <= np.mean(entries) <= 0.97


def test_seeds():
    A = Laplacian(200)
    for solve in (linalg.trace, linalg.frobenius):
        assert solve(A, 10, seed=3) == solve(A, 10, seed=3)
        assert solve(A, 10) != solve(A, 10)
    assert not torch.equal(linalg.diagonal(A, 10).values, linalg.diagonal(A, 10).values)
    pairs = [linalg.eigsh(A, lowest=1, highest=1, seed=seed).residuals for seed in (3, 3, None, None)]
    assert torch.equal(pairs[0], pairs[1])
    assert not torch.equal(pairs[2], pairs[3])


def curvlinops_pair():
    curvlinops = pytest.importorskip("curvlinops")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 12), torch.nn.Tanh(), torch.nn.Linear(12, 3)).double()
    data = [(torch.randn(16, 5, dtype=torch.float64), torch.randint(3, (16,)))]
    loss, parameters = torch.nn.CrossEntropyLoss(), list(model.parameters())
    theirs = curvlinops.HessianLinearOperator(model, loss, parameters, data)
    gauss_newton = curvlinops.GGNLinearOperator(model, loss, parameters, data)
    return theirs, gauss_newton, hessdiag.Problem(model, data=data, loss="ce")


def test_operators_of_curvlinops_are_taken_as_they_are():
    theirs, _, problem = curvlinops_pair()
    H = hessdiag.hessian(problem)
    n = len(H)
    torch.testing.assert_close(
        linalg.eigsh(theirs, lowest=2, highest=2, tol=1e-10).values,
        linalg.eigsh(H, lowest=2, highest=2, tol=1e-10).values,
        **EXACT,
    )
    assert linalg.trace(theirs, n).value == pytest.approx(float(H.trace()), abs=1e-9)
    assert linalg.frobenius(theirs, n).value == pytest.approx(float(H.norm()), abs=1e-9)
    torch.testing.assert_close(linalg.diagonal(theirs, n).values, H.diagonal(), **EXACT)
    mine = hessdiag.HessianOperator(problem)
    assert linalg.trace(theirs, 20, seed=1).value == pytest.approx(linalg.trace(mine, 20, seed=1).value, abs=1e-9)


def test_sums_with_operators_of_curvlinops():
    _, gauss_newton, problem = curvlinops_pair()
    H, G = hessdiag.hessian(problem), hessdiag.GaussNewtonOperator(problem)
    residual = hessdiag.HessianOperator(problem) - gauss_newton
    whole = torch.eye(len(H), dtype=torch.float64)
    torch.testing.assert_close(residual @ whole, H - G @ whole, **EXACT)
    found = linalg.eigsh(residual, lowest=1, highest=1, tol=1e-10).values
    torch.testing.assert_close(found, torch.linalg.eigvalsh(H - G @ whole)[[0, -1]], **EXACT)


def test_half_precision_is_computed_in_single():
    A = Laplacian(400)
    found = linalg.eigsh(dense(A).bfloat16(), lowest=1, highest=1)  # 2 and -1 are exact in it
    assert found.values.dtype == torch.float64
    assert found.vectors.dtype == torch.float32
    assert float(found.values[-1]) == pytest.approx(4.0, abs=32 * 4 * 2**-7)


class Wrong(Laplacian):
    def __matmul__(self, vectors):
        return super().__matmul__(vectors)[:-1]


class Skew(Laplacian):
    def __matmul__(self, vectors):
        return super().__matmul__(vectors) + vectors.roll(1, 0)


S = torch.eye(50, dtype=torch.float64)


@pytest.mark.parametrize(
    ("solve", "kind", "says"),
    [
        (lambda: linalg.eigsh(S[:, :40]), ValueError, r"square, not of shape \(50, 40\)"),
        (lambda: linalg.eigsh(S[:0, :0]), ValueError, "square"),
        (lambda: linalg.eigsh(S[0]), ValueError, "square"),
        (lambda: linalg.eigsh(S.numpy()), TypeError, "try: torch.as_tensor"),
        (lambda: linalg.eigsh([[1.0]]), TypeError, "list is no operator: it has no shape"),
        (lambda: linalg.eigsh(S.long()), TypeError, "torch.int64 has no real eigenvalues"),
        (lambda: linalg.eigsh(S + 0j), TypeError, "torch.complex128"),
        (lambda: linalg.trace(S.cumsum(0), 10), ValueError, "not symmetric"),
        (lambda: linalg.frobenius(Skew(50), 10), ValueError, "not symmetric"),
        (lambda: linalg.diagonal(Wrong(50), 10), ValueError, r"makes \(49, 2\) of vectors of shape \(50, 2\)"),
        (lambda: linalg.trace(math.nan * S, 10), ValueError, "NaN or infinite"),
        (lambda: linalg.eigsh(S, lowest=0, highest=0), ValueError, "0 lowest and 0 highest"),
        (lambda: linalg.eigsh(S, tol=0.0), ValueError, "between 0 and 1, not 0.0"),
        (lambda: linalg.eigsh(S, max_products=0), ValueError, "max_products must be at least 1"),
        (lambda: linalg.trace(S, 0), ValueError, "products must be at least 1"),
        (lambda: linalg.frobenius(S, 10, sketch=5), ValueError, "leave 0 random vectors.*\n  try: 12 products or more"),
        (lambda: linalg.diagonal(S, 10, sketch=-1), ValueError, "sketch must be at least 0"),
    ],
)
def test_what_cannot_be_answered_is_refused(solve, kind, says):
    with pytest.raises(kind, match=says):
        solve()


def test_asymmetry_of_rounding_is_no_asymmetry():
    A = rotated(np.linspace(-1, 1, 60)).float()
    noise = torch.finfo(torch.float32).eps * torch.randn(60, 60, generator=torch.Generator().manual_seed(0))
    assert linalg.eigsh(A + noise, lowest=1, highest=0).values[0] == pytest.approx(-1, abs=1e-5)


def test_lanczos_is_orthonormal_and_its_matrix_is_the_projection():
    A = Laplacian(60)
    start = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = linalg.lanczos(A, start, 20, keep_basis=True)
    for index in range(2):
        Q = found.basis[index]
        torch.testing.assert_close(Q.T @ Q, torch.eye(20, dtype=torch.float64), rtol=0, atol=1e-13)
        torch.testing.assert_close(Q.T @ (A @ Q), found.matrix(index), rtol=0, atol=1e-12)
    whole = linalg.lanczos(A, start[:, 0], 60)
    torch.testing.assert_close(torch.linalg.eigvalsh(whole.matrix()), A.eigenvalues, **EXACT)


def test_slq_knows_the_moments_of_a_laplacian():
    A = Laplacian(400)
    density = linalg.slq(A, probes=10, steps=20, seed=0)
    truth = np.array([A.eigenvalues.pow(p).mean().item() for p in (1, 2, 3, 4)])
    moments = density.moments()
    assert np.all(np.abs(moments.value - truth) < 4 * moments.stderr)
    ends = linalg.eigsh(A, lowest=2, highest=2, tol=1e-10)
    deflated = linalg.slq(A, probes=4, steps=20, seed=0, deflate=(ends.values, ends.vectors))
    np.testing.assert_allclose(deflated.support, A.eigenvalues[[0, -1]], atol=1e-9)


def test_slq_of_peers_operators_is_that_of_the_dense_matrix():
    theirs, _, problem = curvlinops_pair()
    one, other = (linalg.slq(A, probes=3, steps=8, seed=0) for A in (theirs, hessdiag.hessian(problem)))
    np.testing.assert_allclose(one.nodes, other.nodes, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-6, atol=1e-9)


def test_gershgorin_of_a_laplacian():
    A = Laplacian(30)
    for operator in (A, dense(A)):
        found = linalg.gershgorin(operator)
        assert (found.interval, found.relative_stderr, found.products) == ((0.0, 4.0), 0.0, 30)
        assert found.brauer == pytest.approx((0.0, 4.0), abs=1e-9)
        assert [(part.interval, part.count) for part in found.components] == [((0.0, 4.0), 30)]
    apart = linalg.gershgorin(torch.diag(torch.tensor([0.0, 5.0])) + 0.1)
    assert [part.count for part in apart.components] == [1, 1]


def test_sketched_discs_hold_what_exact_ones_do():
    A = Laplacian(2000)
    found = linalg.gershgorin(A, products=200, seed=0)
    assert found.products == 200
    sums = np.full(2000, 4.0)
    sums[[0, -1]] = 3.0
    assert np.mean(found.radii / sums) == pytest.approx(1, abs=0.02)
    assert np.std(found.radii / sums) == pytest.approx(found.relative_stderr, rel=0.1)


@pytest.mark.parametrize(
    ("solve", "says"),
    [
        (lambda: linalg.gershgorin(S, products=2), "products must be at least 3"),
        (lambda: linalg.slq(S, probes=1), "probes must be at least 2"),
        (lambda: linalg.slq(S, steps=0), "steps must be at least 1"),
        (lambda: linalg.slq(S, deflate=(S[0, :2], S[:, :3])), r"vectors \(50, r\) with r < 50, not \(2,\)"),
        (lambda: linalg.lanczos(S, S[:40, 0], 3), r"start vectors of shape \(40,\) do not fit"),
        (lambda: linalg.lanczos(S, S[:, 0], 0), "steps must be at least 1"),
    ],
)
def test_starts_and_sizes_that_do_not_fit_are_refused(solve, says):
    with pytest.raises(ValueError, match=says):
        solve()


def test_names_of_functions_are_not_those_of_modules():
    for name in linalg.__all__:
        importlib.import_module("hessdiag.linalg.api")
        assert not inspect.ismodule(getattr(linalg, name)), name
