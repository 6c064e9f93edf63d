"""Solvers on operators whose vectors are spread over processes, against the same on one process, and how often they sum."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from hessdiag import linalg
from hessdiag.linalg import krylov, spread, tridiagonal
from hessdiag.linalg.eigensolver import extreme_eigenpairs
from hessdiag.linalg.quadratic.cg import conjugate_gradients
from hessdiag.linalg.quadrature import spectral_density
from hessdiag.machine import collectives
from hessdiag.machine.ranks import ranks
from tests.linalg.spreading import Forgetful, Meeting, Pieces, Reflected, gathered, in_order, parameters, together
from tests.shards.forks import on_ranks

N = 400
SPECTRA = {
    "cubic": torch.linspace(-1, 3, N) ** 3,
    "copies": torch.cat([torch.tensor([-3.0, -2, 50, 20, 20, 20, 11]), torch.linspace(-0.1, 0.1, N - 7)]),
    "low rank": torch.cat([torch.tensor([5.0, 4, 3, -2]), torch.zeros(N - 4)]),
    "small": torch.linspace(-1, 2, 40),
}
NEAR = {"rtol": 1e-12, "atol": 1e-12}


@dataclass
class Found:
    """What a solver gave: numbers, and vectors put together."""

    numbers: list
    vectors: list
    products: int


def same(found, alone, near=1e-12):
    """Whether every process has the numbers of one, relative to their size, and the same number of products."""
    for rank in found:
        assert rank.products == alone.products
        for mine, expected, first in zip(*(map(np.asarray, of.numbers) for of in (rank, alone, found[0])), strict=True):
            assert np.array_equal(mine, first, equal_nan=True), "processes have the same, to the bit"
            np.testing.assert_allclose(mine, expected, rtol=near, atol=near * np.nanmax(np.abs(expected), initial=0.0))
        for mine, expected in zip(rank.vectors, alone.vectors, strict=True):
            signs = (mine * expected).sum(0).sign() if mine.ndim > 1 else 1.0
            torch.testing.assert_close(mine * signs, expected, rtol=0, atol=1e4 * near * float(expected.abs().max()))


def compared(values, solve, size, kind=Pieces, near=1e-12):
    """A solver on an operator of these eigenvalues, on one process and on several."""

    def alone():
        A = Reflected(values)
        numbers, vectors = solve(A, lambda whole: whole)
        return Found(numbers, vectors, A.products)

    def piece(own):
        A = Reflected(values, own)
        numbers, vectors = solve(A, lambda whole: own.kept(in_order(whole)))
        return Found(numbers, [gathered(own, vector) for vector in vectors], A.products)

    same(together(size, len(values), piece, kind), alone(), near)


def ends(A, piece):
    pairs = linalg.eigsh(A, lowest=2, highest=4, tol=1e-4)
    assert bool(pairs.converged.all())
    return [pairs.values, pairs.basis, pairs.restarts, pairs.ritz_range], [pairs.vectors[:, [0, 1, 5]]]


def ends_with_restarts(A, piece):
    pairs = extreme_eigenpairs(A, lowest=2, highest=4, tol=1e-5, max_basis=30, images=False)
    return [pairs.values, pairs.basis, pairs.restarts], []


def density(A, piece):
    found = linalg.slq(A, probes=3, steps=12, seed=1)
    return [found.nodes, found.weights, found.moments().value, found.moments().low], []


def density_of_the_rest(A, piece):
    pairs = linalg.eigsh(A, lowest=1, highest=2, tol=1e-9)
    found = linalg.slq(A, probes=3, steps=12, seed=1, deflate=(pairs.values, pairs.vectors))
    return [found.nodes[:, -4:], found.moments().value, found.moments().low], []


def tridiagonals(A, piece):
    start = torch.randn(A.shape[0], 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = linalg.lanczos(A, piece(start), 10, keep_basis=True)
    return [found.alphas, found.betas, found.steps], [found.basis[1]]


def traces(A, piece):
    found = linalg.trace(A, 20, 5)
    sketched = linalg.trace(A, 20, 5, sketch=4)
    exact = linalg.trace(A, A.shape[0])
    return [(of.value, of.stderr, *of.interval) for of in (found, sketched)] + [exact.value], []


def norms(A, piece):
    found = [linalg.frobenius(A, 20, 5), linalg.frobenius(A, 20, 5, sketch=4), linalg.frobenius(A, A.shape[0])]
    return [(of.value, of.stderr, *of.interval) for of in found], []


def diagonals(A, piece):
    found = [linalg.diagonal(A, 20, 5, sketch=4), linalg.diagonal(A, A.shape[0])]
    return [], [part for of in found for part in (of.values, of.stderr, of.interval[1])]


def steps(A, piece):
    g = torch.randn(A.shape[0], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    cg = conjugate_gradients(A, piece(g), damping=2.0)
    found = [linalg.steihaug(A, piece(g), 0.5), linalg.gltr(A, piece(g), 0.5), linalg.cubic(A, piece(0 * g), 0.5)]
    numbers = [(of.decrease, of.length, of.products) for of in found]
    return [*numbers, (cg.slope, cg.curvature, cg.products)], [cg.step, cg.residual, *(of.step for of in found[:2])]


SOLVERS = [ends, ends_with_restarts, density, density_of_the_rest, tridiagonals, traces, norms, diagonals, steps]


@pytest.mark.parametrize("solve", SOLVERS, ids=lambda solve: solve.__name__)
def test_three_processes_find_what_one_does(solve):
    compared(SPECTRA["cubic"], solve, 3)


# Not the density of what has copies: from step 9 on, rounding of 1e-16 in the start moves it by 1e-9.
OTHERS = [
    *(("copies", solve) for solve in (ends, traces, norms, diagonals)),
    *(("small", solve) for solve in (ends, density, tridiagonals, traces, norms, diagonals)),
]


@pytest.mark.parametrize(("name", "solve"), OTHERS, ids=lambda value: getattr(value, "__name__", value))
def test_other_spectra(name, solve):
    compared(SPECTRA[name], solve, 2)


def exhausted(A, piece):
    """Krylov spaces that end: blocks lose rows, which random ones replace, and vectors stop one by one."""
    pairs = extreme_eigenpairs(A, lowest=2, highest=2, tol=1e-8, max_products=60)
    start = torch.zeros(A.shape[0], 3, dtype=torch.float64)
    start[:, 1] = 1.0
    start[:5, 2] = 2.0
    found = linalg.lanczos(A, piece(start), 10)
    assert found.steps.tolist()[0] == 0
    assert found.terminated.all()
    return [pairs.values, pairs.converged, found.steps, found.alphas[:, :4], found.betas[:, :4]], []


def test_exhausted_spaces():
    compared(SPECTRA["low rank"], exhausted, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_whole_basis_is_orthonormal_and_its_memory_is_shared(dtype):
    def basis(own):
        space = krylov.KrylovSpace(Reflected(SPECTRA["cubic"], own, dtype), 60, 3, 4, seed=0)
        while space.grow():
            pass
        assert space._basis.shape == (60 + 4, own.own)
        assert space._images.shape == (60, own.own)
        held = space._basis[: space.size + 3]
        return gathered(own, held.T).double(), own.own

    found = together(3, N, basis)
    Q, eps = found[0][0], torch.finfo(dtype).eps
    assert Q.shape == (N, 63)
    assert float((Q.T @ Q - torch.eye(63)).abs().max()) < 20 * eps
    assert sum(own for _, own in found) < N + 3 * (1 + len(parameters(N)))


def test_a_step_sums_twice():
    """The coefficients of the last two vectors with the norms before them, then of all; for every vector together."""

    def sums(own):
        start = own.kept(in_order(torch.randn(N, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)))
        tridiagonal.tridiagonalize(Reflected(SPECTRA["cubic"], own), start, 5)
        return own.sums

    by_hand = [3]
    for step in range(1, 6):
        by_hand += [3 + 3 * min(step, 2), 3 + 3 * step]
    assert together(2, N, sums) == [by_hand, by_hand]


def test_a_step_of_a_block_sums_twice():
    def sums(own):
        space = krylov.KrylovSpace(Reflected(SPECTRA["cubic"], own), 20, 2, 2, seed=0)
        before = len(own.sums)
        for _ in range(8):
            space.grow()
        return own.sums[before:]

    first, second = together(2, N, sums)
    assert first == second
    twice = [count for step in range(1, 9) for count in (4 + 2 * min(2 * step, 4), 4 + 4 * step)]
    factors = [count for count in first if count == 4]  # of rows that are nearly dependent, once more
    assert [count for count in first if count != 4] == twice
    assert len(factors) <= 8


@pytest.mark.parametrize("solve", SOLVERS, ids=lambda solve: solve.__name__)
def test_a_spread_that_forgets_a_process_is_noticed(solve):
    with pytest.raises((AssertionError, ValueError)):
        compared(SPECTRA["cubic"], solve, 2, Forgetful)


class Kept:
    """What one process kept of an iteration: as it stood when it saved last."""

    def __init__(self, arrays=None):
        self.arrays = arrays or {}

    def save(self, units, arrays):
        self.last = {name: array.copy() for name, array in arrays().items()}


@pytest.mark.parametrize("apart", [False, True])
def test_pieces_of_a_space_are_taken_up_where_all_kept_the_same(apart):
    wanted = {"lowest": 1, "highest": 1, "tol": 1e-6}

    def run(own):
        A, kept, early = Reflected(SPECTRA["cubic"], own), Kept(), Kept()
        whole = extreme_eigenpairs(A, **wanted, kept=kept)
        extreme_eigenpairs(A, **wanted, max_products=30, kept=early)
        A.products = 0
        again = extreme_eigenpairs(A, **wanted, kept=Kept(early.last if apart and own.rank else kept.last))
        assert early.last["basis"].shape[1] == own.own
        assert torch.equal(again.values, whole.values)
        return A.products, whole.products

    for again, whole in together(2, N, run):
        assert again == whole if apart else 0 < again < whole


def test_an_interrupt_ends_all_processes_and_keeps_what_one_alone_has(monkeypatch):
    class Interrupted(Reflected):
        def __matmul__(self, vectors):
            if self.products >= 40:
                raise KeyboardInterrupt
            return super().__matmul__(vectors)

    def ended(own):
        pairs = extreme_eigenpairs(Interrupted(SPECTRA["cubic"], own), lowest=1, highest=1, tol=1e-9)
        assert pairs.interrupted
        return len(spectral_density(Interrupted(SPECTRA["cubic"], own), probes=6, steps=10, at_once=2).nodes)

    assert together(1, N, ended) == [4]
    monkeypatch.setattr(spread, "ranks", lambda: (0, 2))
    for solve in (
        lambda own: extreme_eigenpairs(Interrupted(SPECTRA["cubic"], own), lowest=1, highest=1, tol=1e-9),
        lambda own: spectral_density(Interrupted(SPECTRA["cubic"], own), probes=6, steps=10, at_once=2),
    ):
        with pytest.raises(KeyboardInterrupt):
            together(2, N, solve)


def test_what_needs_whole_vectors_is_refused():
    def refused(own):
        A = linalg.LinearCombination(((2.0, Reflected(SPECTRA["small"], own)),))
        assert A.trace() == pytest.approx(2 * float(SPECTRA["small"].double().sum()), rel=1e-12)
        for call in (lambda: linalg.gershgorin(A), A.to_scipy):
            with pytest.raises(ValueError, match="spread"):
                call()
        with pytest.raises(ValueError, match="no sum"):
            linalg.LinearCombination(((1.0, Reflected(SPECTRA["small"], own)), (1.0, torch.eye(40))))
        with pytest.raises(ValueError, match=f"this process has {own.own} numbers"):
            linalg.lanczos(A, torch.ones(40), 3)
        return True

    assert together(2, 40, refused) == [True, True]


def test_an_operator_that_is_not_symmetric_is_refused_by_all():
    class Shifted(Reflected):
        def __matmul__(self, vectors):
            return super().__matmul__(vectors) + self.values.abs() * self._summed(self.spread, vectors.sum(0)[None])

    with pytest.raises(ValueError, match="not symmetric"):
        together(2, N, lambda own: linalg.eigsh(Shifted(SPECTRA["cubic"], own)))


def test_long_products_fold_alike_however_they_are_spread():
    """A different fold from that of one process, which nobody could hold: its variance is right all the same."""
    values = torch.linspace(-1, 3, 1200) ** 3

    def estimate(own):
        found = linalg.frobenius(Reflected(values, own), 60, 5)
        return found.value, found.stderr

    alone = linalg.frobenius(Reflected(values), 60, 5)
    one, two, three = (together(size, 1200, estimate)[0] for size in (1, 2, 3))
    assert one == pytest.approx(two, rel=1e-12)
    assert three == pytest.approx(two, rel=1e-12)
    assert one[0] == pytest.approx(alone.value, rel=1e-12)
    assert one[1] == pytest.approx(alone.stderr, rel=0.1)


class Gloo:
    """A spread over processes of their own."""

    def __init__(self, n):
        self.rank, self.meeting = ranks()[0], self
        self._pieces = Pieces(parameters(n), self.rank, Meeting(ranks()[1]))
        self.n, self.own, self.kept, self.where = n, self._pieces.own, self._pieces.kept, self._pieces.where

    def summed(self, *numbers):
        return collectives.summed(numbers[-1])


def test_two_processes_find_what_one_does():
    def work():
        found = []
        for solve in (ends, density, traces):
            A = Reflected(SPECTRA["cubic"], Gloo(N))
            numbers, _ = solve(A, None)
            found.append(([np.asarray(of).tolist() for of in numbers], A.products))
        return found

    ranked = on_ranks(2, work)
    for index, solve in enumerate((ends, density, traces)):
        A = Reflected(SPECTRA["cubic"])
        alone = Found(solve(A, None)[0], [], A.products)
        same([Found([np.array(of) for of in rank[index][0]], [], rank[index][1]) for rank in ranked], alone)


def test_what_each_computes_for_itself_is_taken_from_the_first(monkeypatch):
    here = threading.local()
    monkeypatch.setattr(spread, "ranks", lambda: (here.rank, 3))

    def told(own):
        here.rank = own.rank
        return spread.agreed(torch.tensor([[1.0, 2.0], [-3.0, 0.0]]) + 10 * own.rank, own).tolist()

    assert together(3, 40, told) == [[[1.0, 2.0], [-3.0, 0.0]]] * 3


def test_one_process_has_the_numbers_that_it_had():
    """As they were before there were spreads: to the bit on one machine, and to rounding on any."""
    before = [13.06886543697596, 12.752883438021462, 6.6946773922688445, 6.909879985520955, -0.9999999988597115]
    before += [26.999999999999996, 2013.4156396193719, 18.657332960702863, 177.30425037420397, 0.927702926085939]
    before += [79.52023903272739]
    A = Reflected(SPECTRA["cubic"])
    g = torch.randn(N, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    lanczos, pairs = linalg.lanczos(A, g, 6), linalg.eigsh(A, lowest=1, highest=1, tol=1e-4)
    trace, norm = linalg.trace(A, 20, 5, sketch=4), linalg.frobenius(A, 20, 5)
    found = [
        *lanczos.alphas[1, -2:].tolist(),
        *lanczos.betas[0, -2:].tolist(),
        *pairs.values.tolist(),
        *(trace.value, trace.stderr, norm.value, norm.stderr),
        float(linalg.slq(A, probes=3, steps=12, seed=1).moments().value[1]),
    ]
    assert found == pytest.approx(before, rel=1e-12)
    assert pairs.products == 172
