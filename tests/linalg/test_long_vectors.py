"""Vectors of half a gigabyte: a step takes no memory beside its basis, which the system would have to clear each time."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from hessdiag.linalg import estimators, krylov, tridiagonal

N = 4_000


class Fresh(TorchDispatchMode):
    """Counts, in vectors, what operations return in memory that none of their arguments had."""

    def __init__(self):
        super().__init__()
        self.vectors = 0.0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        given = [x for x in tree_flatten((arguments, options))[0] if isinstance(x, torch.Tensor)]
        found = function(*arguments, **(options or {}))
        known = {x.untyped_storage().data_ptr() for x in given}
        for tensor in tree_flatten(found)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self.vectors += tensor.numel() // (N // 2) * tensor.itemsize / 8 / 2
        return found


@pytest.fixture(autouse=True)
def all_are_long(monkeypatch):
    for module in (tridiagonal, krylov, estimators):
        monkeypatch.setattr(module, "LONG", N // 8)
    monkeypatch.setattr(tridiagonal, "PIECE", N // 16)


class Diagonal:
    """A diagonal matrix whose products are counted apart."""

    def __init__(self, fresh):
        self.values = torch.linspace(-1.0, 3.0, N, dtype=torch.float64) ** 3
        self.shape, self.dtype, self.device = (N, N), torch.float64, torch.device("cpu")
        self.fresh, self.own = fresh, 0.0

    def __matmul__(self, vectors):
        before = self.fresh.vectors
        found = self.values[:, None] * vectors
        self.own += self.fresh.vectors - before
        return found


def test_steps_of_a_krylov_space():
    with Fresh() as fresh:
        matrix = Diagonal(fresh)
        space = krylov.KrylovSpace(matrix, 20, 2, 2, 0, images=False)
        before = fresh.vectors - matrix.own
        while space.grow():
            pass
        assert space.size == 20
        assert fresh.vectors - matrix.own == before
        assert matrix.own == 20
    basis = space._basis[:20]
    assert torch.allclose(basis @ basis.T, torch.eye(20, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("probes", [1, 3])
def test_steps_of_a_tridiagonalization(probes):
    def beside(steps):
        with Fresh() as fresh:
            matrix = Diagonal(fresh)
            start = estimators.probes(matrix, probes, seed=0)
            before = fresh.vectors
            tridiagonal.tridiagonalize(matrix, start, steps)
            return fresh.vectors - before - matrix.own - probes * (steps + 1)

    assert beside(24) == beside(4), "what is taken beside basis and products is taken once"


def test_the_counter_counts():
    with Fresh() as fresh:
        x = torch.ones(3, N, dtype=torch.float64)
        x.add_(1.0)
        _ = x[1:].T
        assert fresh.vectors == 3
        _ = x[0] + 1
        _ = x[0, : N // 4] + 1
        assert fresh.vectors == 4


def test_norms_of_pieces_are_norms():
    rows = torch.randn(3, N, generator=torch.Generator().manual_seed(0))
    expected = rows.double().norm(dim=1)
    assert torch.allclose(tridiagonal.row_norms(rows), expected, rtol=1e-14)
    with Fresh() as fresh:
        tridiagonal.row_norms(rows)
        assert fresh.vectors == 0


@pytest.mark.parametrize("ended", [(), (0,), (0, 1, 2)])
def test_bases_end_in_zeros_where_a_vector_ended(ended):
    """Of those that stopped early, what rounding left is not returned as one more vector."""
    matrix = Diagonal(Fresh())
    start = torch.randn(N, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for index in ended:
        start[:, index] = 0.0
        start[index : index + 2, index] = 1.0  # two eigenvectors: two steps
    found = tridiagonal.tridiagonalize(matrix, start, 5, keep_basis=True)
    for index in range(3):
        steps = 2 if index in ended else 5
        assert found.steps[index] == steps
        Q = found.basis[index]
        assert torch.allclose(Q.T @ Q, torch.diag((torch.arange(5) < steps).double()), atol=1e-12)
