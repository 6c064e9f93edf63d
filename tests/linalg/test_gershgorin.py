import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessdiag.curvature.dense import hessian
from hessdiag.linalg import blocks, inclusion
from tests.reference import cosine_problem

MAT_1 = torch.tensor([[4, 1, 0, -0.5], [1, -2, 0.3, 0], [0, 0.3, 1, 0.2], [-0.5, 0, 0.2, 7]], dtype=torch.float64)


def sparse(seed):
    g = np.random.default_rng(seed)
    n = int(g.integers(2, 40))
    A = g.standard_normal((n, n)) * (g.random((n, n)) < g.random()) * 10.0 ** g.uniform(-3, 3)
    A = A + A.T + np.diag(g.standard_normal(n)) * g.choice([0.0, 1.0, 100.0])
    return torch.from_numpy(A)


def brute_brauer(a, R):
    i, j = np.triu_indices(len(a), 1)
    middle, reach = (a[i] + a[j]) / 2, np.sqrt((a[i] - a[j]) ** 2 / 4 + R[i] * R[j])
    return (middle - reach).min(), (middle + reach).max()


@pytest.mark.parametrize("seed", range(100))
def test_inclusions_on_random_sparse_matrices(seed):
    A = sparse(seed)
    a, R = inclusion.radii(A)
    values = np.linalg.eigvalsh(A.numpy())
    discs, brauer, perron = inclusion.discs(a, R), inclusion.brauer(a, R), inclusion.perron(A)
    slack = 1e-8 * max(map(abs, discs))
    assert brauer == pytest.approx(brute_brauer(a, R), abs=slack)
    chain = [(values[0], values[-1]), perron, brauer, discs]
    for inner, outer in pairwise(chain):
        assert outer[0] - slack <= inner[0]
        assert inner[1] <= outer[1] + slack
    off = A.abs().numpy() - np.diag(np.abs(a))
    assert perron[1] == pytest.approx(np.linalg.eigvalsh(np.diag(a) + off)[-1], abs=1e-6 * max(map(abs, discs)))
    assert perron[0] == pytest.approx(np.linalg.eigvalsh(np.diag(a) - off)[0], abs=1e-6 * max(map(abs, discs)))
    parts = inclusion.components(a, R)
    assert sum(part.count for part in parts) == len(a)
    for part in parts:
        inside = (values >= part.interval[0] - slack) & (values <= part.interval[1] + slack)
        assert inside.sum() == part.count
    low, high = inclusion.wolkowicz_styan(len(a), float(a.sum()), float(A.norm()))
    assert low[0] - slack <= values[0] <= low[1] + slack
    assert high[0] - slack <= values[-1] <= high[1] + slack


@pytest.mark.parametrize("seed", range(100))
def test_blocks_of_random_matrices(seed):
    A = sparse(seed + 1000)
    n = len(A)
    g = np.random.default_rng(seed)
    cuts = np.unique(np.r_[0, g.integers(1, n, size=3), n])
    slices = [slice(int(a), int(b)) for a, b in pairwise(cuts)]
    found = blocks.measure(A, slices)
    values = np.linalg.eigvalsh(A.numpy())
    tight = blocks.norm_matrix(found.lowest, found.highest, found.norms)
    loose = blocks.feingold_varga(found.lowest, found.highest, found.norms)
    slack = 1e-8 * float(A.norm())
    assert loose[0] - slack <= tight[0] <= values[0] + slack
    assert values[-1] - slack <= tight[1] <= loose[1] + slack
    assert values[0] - slack <= found.inner[0]
    assert found.inner[1] <= values[-1] + slack
    for i, rows in enumerate(slices):
        for j, columns in enumerate(slices):
            if i != j:
                assert found.norms[i, j] == pytest.approx(np.linalg.norm(A[rows, columns].numpy(), 2), abs=slack)


def test_a_strong_coupling_proves_negative_curvature():
    """s^2 > alpha beta, from one off-diagonal block; a 2 x 2 matrix is its own certificate."""
    assert blocks.inner(1.0, 2.0, 1.5)[0] < 0 < blocks.inner(2.0, 2.0, 1.5)[0]
    assert blocks.inner(1.0, 2.0, 1.5) == pytest.approx(np.linalg.eigvalsh([[1, 1.5], [1.5, 2]]))


@pytest.mark.parametrize(
    "A", [torch.zeros(3, 3), torch.eye(4) * -2.0, torch.tensor([[5.0]]), torch.ones(3, 3) - torch.eye(3)]
)
def test_degenerate_matrices(A):
    A = A.double()
    a, R = inclusion.radii(A)
    values = np.linalg.eigvalsh(A.numpy())
    for low, high in (inclusion.discs(a, R), inclusion.brauer(a, R), inclusion.perron(A)):
        assert low <= values[0] + 1e-12
        assert high >= values[-1] - 1e-12
    if not R.any():
        assert inclusion.brauer(a, R) == (values[0], values[-1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1e3)), min_size=2, max_size=12))
def test_brauer_is_the_search_over_all_pairs(rows):
    a, R = map(np.array, zip(*rows, strict=True))
    assert inclusion.brauer(a, R) == pytest.approx(brute_brauer(a, R), rel=1e-9, abs=1e-9)


def test_the_tighter_bounds_are_tight_at_initialization():
    """Shape of what is known of networks: row sums overstate by far, Perron and blocks do not, discs never separate."""
    problem = cosine_problem([6, 6, 6, 6, 6], 16, "relu")
    H = hessian(problem)
    a, R = inclusion.radii(H)
    values = torch.linalg.eigvalsh(H)
    span = float(values[-1] - values[0])
    wide, narrow = np.ptp(inclusion.discs(a, R)), np.ptp(inclusion.perron(H))
    parts = blocks.measure(H, [slice(layer.start, layer.stop) for layer in problem.layer_slices])
    assert wide > 1.5 * span
    assert span <= narrow < 0.9 * wide
    assert span <= np.ptp(blocks.norm_matrix(parts.lowest, parts.highest, parts.norms)) < wide
    assert len(inclusion.components(a, R)) == 1


def test_sketch_error_of_many_probes():
    assert inclusion.sketch_relative_stderr(400) == pytest.approx(math.pi / 2 / 20, rel=0.01)


def test_sketch_is_unbiased_with_the_stated_error():
    A = sparse(5)
    A[3] = A[:, 3] = 0.0
    sums = A.abs().sum(1).numpy()
    found = np.stack([inclusion.sketch_row_sums(A, 25, seed).sums for seed in range(1500)])
    alive = sums > 0
    error = inclusion.sketch_relative_stderr(25)
    np.testing.assert_allclose(found.mean(0)[alive], sums[alive], rtol=4.5 * error / math.sqrt(1500))
    np.testing.assert_allclose((found.std(0) / sums.clip(1e-300))[alive], error, rtol=0.15)
    assert not found[:, ~alive].any()


def test_sketch_wants_three_probes_and_fresh_seeds():
    with pytest.raises(ValueError, match="at least 3"):
        inclusion.sketch_row_sums(MAT_1, 2)
    first, second = (inclusion.sketch_row_sums(MAT_1, 4).sums for _ in range(2))
    assert (first != second).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_radii_are_sums_off_the_diagonal(dtype):
    """Also of more rows than are looked at together, of rows without any, and far below one."""
    A = torch.randn(600, 600, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-4
    A = (A + A.T).to(dtype)
    A[3] = A[:, 3] = 0.0
    A[3, 3] = -5.0
    diagonal, radii = inclusion.radii(A)
    off = A.double().numpy().copy()
    np.fill_diagonal(off, 0.0)
    assert (diagonal.dtype, radii.dtype) == (np.float64, np.float64)
    np.testing.assert_array_equal(diagonal, A.diagonal().double().numpy())
    np.testing.assert_allclose(radii, np.abs(off).sum(1), rtol=1e-12, atol=1e-14)
    assert radii[3] == 0


def test_bounds_by_blocks_do_not_look_at_the_diagonal_of_norms():
    norms = [[9, 2, 0], [2, -7, 1], [0, 1, 5]]
    assert blocks.feingold_varga([0, -1, 3], [1, 4, 6], norms) == (-4.0, 7.0)
    expected = [np.linalg.eigvalsh([[0, -2, 0], [-2, -1, -1], [0, -1, 3]])[0]]
    expected.append(np.linalg.eigvalsh([[1, 2, 0], [2, 4, 1], [0, 1, 6]])[-1])
    assert blocks.norm_matrix([0, -1, 3], [1, 4, 6], norms) == pytest.approx(tuple(expected), rel=1e-12)
    assert norms == [[9, 2, 0], [2, -7, 1], [0, 1, 5]]


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_bounds_from_trace_and_norm_are_reached(n):
    """By one eigenvalue apart from all others, at either end; and a matrix of one entry is known."""
    values = np.full(n, 2.0)
    for end in (-3.0, 7.0):
        values[0] = end
        low, high = inclusion.wolkowicz_styan(n, values.sum(), np.linalg.norm(values))
        reached = low[0] if end < 2 else high[1]
        assert reached == pytest.approx(end, rel=1e-12)
        near = high[0] if end < 2 else low[1]
        assert near == pytest.approx(2.0 if n > 1 else end, rel=1e-12)


@pytest.mark.parametrize("count", [3, 16, 25])
def test_a_sketch_takes_a_product_for_each_probe(count):
    class Counting:
        shape, dtype, device, spent = MAT_1.shape, MAT_1.dtype, MAT_1.device, 0

        def __matmul__(self, vectors):
            self.spent += vectors.shape[1]
            return MAT_1 @ vectors

    matrix = Counting()
    found = inclusion.sketch_row_sums(matrix, count, seed=0)
    assert found.products == matrix.spent == count
    assert found.relative_stderr == inclusion.sketch_relative_stderr(count)
