"""Both ends of prescribed spectra against LAPACK, and ARPACK as a second opinion."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh

from hessdiag.linalg.eigenpairs import ROUNDING, dense_eigenpairs, padded
from hessdiag.linalg.eigensolver import extreme_eigenpairs, smallest_basis
from hessdiag.linalg.krylov import KrylovSpace
from tests.linalg.test_lanczos import Counting, rotated

N = 400


def normal(count, scale=1.0):
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


SPECTRA = {
    "wide": torch.cat([torch.logspace(-12, 6, N // 2), -torch.logspace(-8, 3, N // 2)]),
    "outliers": torch.cat([normal(N - 8).clamp(-2, 2), torch.tensor([5.0, 6, 8, 10, 20, -3, -4, -2.5])]),
    "clustered": torch.cat([normal(N - 10, 0.1), 1 + 1e-6 * torch.arange(5), -1 - 1e-6 * torch.arange(5)]),
    "pairs": torch.cat([normal(N - 8, 0.3), torch.tensor([3.0, 3, 2, 2, -3, -3, -2, -2])]),
    "fivefold": torch.cat([normal(N - 10, 0.3), torch.full((5,), 2.0), torch.full((5,), -2.0)]),
    "twentyfold": torch.cat([normal(N - 40, 0.1), torch.full((20,), 2.0), torch.full((20,), -2.0)]),
    "low rank": torch.cat([torch.zeros(N - 50), torch.logspace(-3, 1, 50)]),
    "near zero": torch.cat([1e-14 * normal(N - 6), torch.tensor([1.0, 2, 3, 4, 5, 6])]),
    "positive": torch.linspace(1, 100, N).square(),
    "identity": torch.ones(N),
    "zero": torch.zeros(N),
    "tiny": 1e-30 * torch.linspace(-1, 3, N),
}


def expected(spectrum, lowest=5, highest=5):
    ordered = spectrum.double().sort()[0]
    return torch.cat([ordered[:lowest], ordered[len(ordered) - highest :]])


@pytest.mark.parametrize("block", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", SPECTRA)
def test_prescribed_spectra(name, dtype, block):
    A = Counting(rotated(SPECTRA[name], dtype))
    pairs = extreme_eigenpairs(A, lowest=5, highest=5, block=block)
    norm = float(SPECTRA[name].abs().max())
    true = expected(torch.linalg.eigvalsh(A.A.double()))
    assert pairs.converged.all()
    assert sum(A.widths) == pairs.products
    # A residual of tol |theta| puts the value within it; 32 units of rounding of the norm are always allowed.
    allowed = (1e-3 * true.abs()).clamp(min=1.1 * ROUNDING * torch.finfo(dtype).eps * norm)
    assert ((pairs.values - true).abs() <= allowed).all(), (pairs.values, true)
    V = pairs.vectors.double()
    residuals = (A.A.double() @ V - V * pairs.values).norm(dim=0)
    noise = 10 * torch.finfo(dtype).eps * norm
    assert ((residuals - pairs.residuals).abs() <= noise).all(), "the reported residuals are the true ones"
    assert float((V.T @ V - torch.eye(10)).abs().max()) < (1e-10 if dtype == torch.float64 else 1e-4)
    assert (pairs.values.diff() >= 0).all()


@pytest.mark.parametrize("name", ["wide", "outliers", "fivefold", "positive"])
def test_bounded_memory_and_restarts_change_nothing_but_the_cost(name):
    spectrum = SPECTRA[name]
    pairs = extreme_eigenpairs(rotated(spectrum), lowest=5, highest=5, max_basis=40)
    assert pairs.restarts > 0
    assert pairs.basis <= 40
    assert pairs.converged.all()
    true = expected(spectrum)
    assert ((pairs.values - true).abs() <= 1e-3 * true.abs()).all()


class Imprecise(Counting):
    """Products of float32 in float64."""

    def __init__(self, A):
        super().__init__(A)
        self.dtype = torch.float64

    def __matmul__(self, V):
        return super().__matmul__(V.float()).double()


def test_imprecise_products_are_not_asked_for_more_than_they_know():
    A = Imprecise(rotated(SPECTRA["low rank"], torch.float32))  # beside eigenvalues of zero, no residual is small
    known = extreme_eigenpairs(A, lowest=5, highest=5, precision=torch.finfo(torch.float32).eps)
    assert known.converged.all()
    assert known.rounding == pytest.approx(32 * 2**-23 * 10, rel=0.2)  # of a lower bound of the norm
    assert known.products < N
    unknown = extreme_eigenpairs(A, lowest=5, highest=5, max_products=2 * N)
    assert not unknown.converged.all()
    assert dense_eigenpairs(A.A, lowest=1, highest=1, precision=1e-3).rounding == pytest.approx(0.32, rel=1e-5)


def test_a_tight_tolerance_is_reached_through_restarts():
    pairs = extreme_eigenpairs(rotated(SPECTRA["outliers"]), lowest=3, highest=3, tol=1e-11, max_basis=18)
    true = expected(SPECTRA["outliers"], 3, 3)
    assert pairs.restarts > 5
    assert pairs.values.tolist() == pytest.approx(true.tolist(), rel=1e-12)
    V = pairs.vectors
    assert float((V.T @ V - torch.eye(6)).abs().max()) < 1e-12


def test_arpack_agrees_and_needs_no_fewer_products_than_one_vector_at_a_time():
    A = rotated(SPECTRA["outliers"])
    ours = extreme_eigenpairs(A, lowest=5, highest=5, block=1)
    count = [0]

    def product(v):
        count[0] += 1
        return A.numpy() @ v

    theirs = eigsh(LinearOperator((N, N), product, dtype=np.float64), k=10, which="BE", tol=1e-3, v0=np.ones(N))[0]
    assert np.sort(theirs) == pytest.approx(ours.values.numpy(), rel=1e-4)
    assert ours.products <= count[0]


def test_rounding_that_forbids_the_tolerance_is_said():
    """Products with noise of 1e-5: the residuals cannot fall below it, and must not be claimed to."""

    class Noisy(Counting):
        def __matmul__(self, vectors):
            product = super().__matmul__(vectors)
            noise = torch.randn(product.shape, generator=torch.Generator().manual_seed(len(self.widths)))
            return product + 1e-5 * noise / N**0.5

    A = Noisy(rotated(SPECTRA["outliers"]))
    pairs = extreme_eigenpairs(A, lowest=2, highest=2, tol=1e-9, max_basis=60, max_products=600)
    V = pairs.vectors
    true = (A.A @ V - V * pairs.values).norm(dim=0)
    assert not pairs.converged.any()
    assert pairs.products >= 600
    assert (pairs.residuals > 0.1 * true).all()


def test_the_product_limit_ends_the_run_unconverged():
    pairs = extreme_eigenpairs(rotated(SPECTRA["positive"]), lowest=5, highest=5, max_products=30)
    assert pairs.products == 30
    assert len(pairs.values) == 10
    assert not pairs.converged.all()


def test_the_keyboard_keeps_the_ritz_pairs():
    A = Counting(rotated(SPECTRA["outliers"]))

    def stop(products, converged):
        if products >= 60:
            raise KeyboardInterrupt

    pairs = extreme_eigenpairs(A, lowest=5, highest=5, tol=1e-10, progress=stop)
    assert pairs.interrupted
    assert float(pairs.values[-1]) == pytest.approx(20.0, rel=1e-6)
    V = pairs.vectors
    assert (A.A @ V - V * pairs.values).norm(dim=0).tolist() == pytest.approx(pairs.residuals.tolist(), abs=1e-12)


def test_an_interrupt_before_the_first_product_is_passed_on():
    class Interrupted(Counting):
        def __matmul__(self, vectors):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extreme_eigenpairs(Interrupted(torch.eye(N)), lowest=1, highest=1)


@pytest.mark.parametrize(("lowest", "highest"), [(0, 3), (3, 0), (1, 1), (1, 12)])
def test_one_end_alone(lowest, highest):
    pairs = extreme_eigenpairs(rotated(SPECTRA["outliers"]), lowest=lowest, highest=highest)
    assert (pairs.lowest, pairs.highest) == (lowest, highest)
    assert pairs.values.tolist() == pytest.approx(expected(SPECTRA["outliers"], lowest, highest).tolist(), rel=1e-3)


@pytest.mark.parametrize("n", [1, 2, 7, 90, 91, 95])
def test_small_matrices(n):
    spectrum = torch.linspace(-1, 2, n)
    pairs = extreme_eigenpairs(rotated(spectrum), lowest=5, highest=5)
    assert (pairs.lowest, pairs.highest) == (min(5, n), min(5, n))
    ends = expected(spectrum, 5, 5) if n >= 10 else spectrum
    assert pairs.values.tolist() == pytest.approx(ends.tolist(), abs=2e-3)
    assert (pairs.spectrum is not None) is (n <= 3 * smallest_basis(5, 5))
    assert pairs.interrupted is False


@pytest.mark.parametrize(("lowest", "highest"), [(0, 0), (-1, 2)])
def test_nothing_wanted_is_refused(lowest, highest):
    with pytest.raises(ValueError, match="cannot be computed"):
        extreme_eigenpairs(torch.eye(200), lowest=lowest, highest=highest)


def test_the_same_seed_gives_the_same_bits():
    A = rotated(SPECTRA["outliers"])
    first, again, other = (extreme_eigenpairs(A, lowest=2, highest=2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.vectors, again.vectors)
    assert not torch.equal(first.vectors, other.vectors)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6), st.sampled_from([1e-12, 1.0, 1e6]))
def test_random_matrices_against_lapack(seed, lowest, highest, scale):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((150, 150)) * scale
    A = A + A.T
    pairs = extreme_eigenpairs(torch.from_numpy(A), lowest=lowest, highest=highest, seed=seed)
    values = np.linalg.eigvalsh(A)
    true = np.concatenate([values[:lowest], values[len(values) - highest :]])
    assert pairs.converged.all()
    assert pairs.values.numpy() == pytest.approx(true, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 15), st.integers(0, 2**31))
def test_dense_residuals_and_spectrum(n, seed):
    A = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, n)))
    A = A + A.T
    pairs = dense_eigenpairs(A, lowest=2, highest=2)
    torch.testing.assert_close(pairs.spectrum, torch.linalg.eigvalsh(A))
    assert pairs.converged.all()
    assert (pairs.residuals <= pairs.rounding).all()


@pytest.mark.parametrize("block", [1, 2, 5])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_basis_stays_orthogonal_through_restarts_and_a_wider_block(name, block):
    A = rotated(SPECTRA[name])
    space = KrylovSpace(A, 200, block, 7, seed=0)

    def check():
        Q = space._basis[: space.size]
        assert float((Q @ Q.T - torch.eye(space.size)).abs().max()) < 1e-12
        apart = Q @ A @ Q.T - space._projected[: space.size, : space.size]
        assert float(apart.abs().max()) <= 1e-12 * float(SPECTRA[name].abs().max())

    for _ in range(2):
        while space.grow():
            pass
        check()
        values, vectors, _ = space.ritz()
        space.restart(values[:40], vectors[:, :40])
    space.grow()
    space.widen(7)
    while space.grow():
        pass
    check()


@pytest.mark.parametrize("zeros", [1, 2, 3, 7])
@pytest.mark.parametrize("signs", [(1, 1, 1, 1), (-1, -1, -1, -1), (1, -1, 1, -1)])
@pytest.mark.parametrize(("lowest", "highest"), [(2, 3), (4, 1), (0, 4), (1, 2)])
def test_fewer_zero_rows_than_pairs_are_wanted(zeros, signs, lowest, highest):
    diagonal = torch.tensor([4.0, 3.0, 2.0, 1.0]).double() * torch.tensor(signs)
    found = padded(
        dense_eigenpairs(torch.diag(diagonal), lowest=lowest, highest=highest), zeros, lowest=lowest, highest=highest
    )
    everything = torch.cat([diagonal, torch.zeros(zeros).double()]).sort().values
    expected = torch.cat([everything[:lowest], everything[len(everything) - highest :]])
    torch.testing.assert_close(found.values, expected)
    assert found.vectors.shape == (4 + min(zeros, lowest + highest), lowest + highest)
    if lowest + highest <= len(everything):
        torch.testing.assert_close(found.vectors.T @ found.vectors, torch.eye(lowest + highest).double())


def test_restarts_are_counted(monkeypatch):
    calls = []
    restart = KrylovSpace.restart

    def counted(self, *arguments):
        calls.append(len(arguments[0]))
        restart(self, *arguments)

    monkeypatch.setattr(KrylovSpace, "restart", counted)
    pairs = extreme_eigenpairs(rotated(torch.linspace(-1, 2, 400)), lowest=1, highest=1, tol=1e-8, max_basis=20)
    assert bool(pairs.converged.all())
    assert pairs.restarts == len(calls) > 1
    assert max(calls) < pairs.basis <= 20


@pytest.mark.parametrize("n", [20, 400])
def test_the_precision_of_products_sets_what_counts_as_rounding(n):
    """In matrices that are formed and in those that are not."""
    A = torch.diag(torch.linspace(-1, 2, n, dtype=torch.float64))
    for precision in (1e-3, 1e-9):
        pairs = extreme_eigenpairs(A, lowest=1, highest=1, precision=precision)
        assert 0.6 < pairs.rounding / (32 * precision * 2) < 1.001  # of a lower bound of the norm
        assert (pairs.spectrum is not None) is (n == 20)
    assert extreme_eigenpairs(A, lowest=1, highest=1).rounding == pytest.approx(64 * 2.2e-16, rel=0.05)
