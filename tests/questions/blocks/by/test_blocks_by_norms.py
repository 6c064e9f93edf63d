"""Norms from random signs, and shares from rows, against the matrices they are of: unbiased, and with errors that cover."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hessdiag.questions.blocks.by import norms, row_shares
from hessdiag.questions.blocks.by.asked import Asked, Meter
from hessdiag.questions.blocks.by.layout import Layout
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.common.runs.progress import silent

RUNS = 200


def layout_of(sizes):
    """Blocks of these sizes, one after the other."""
    rows = torch.split(torch.arange(sum(sizes)), list(sizes))
    return Layout(
        SimpleNamespace(sizes=tuple(sizes)),
        rows,
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
    )


def asked_of(matrix, sizes, seed, probes=8):
    """A question about a matrix that is at hand, in place of a problem's Hessian."""
    tensor = SimpleNamespace(start=0, stop=len(matrix))
    problem = SimpleNamespace(layer_slices=(tensor,), places=lambda: [tensor])
    part = SimpleNamespace(whole=problem, kept=torch.arange(len(matrix)))
    return Asked(
        part=part,
        layout=layout_of(sizes),
        matrix=matrix,
        width=64,
        probes=probes,
        seed=seed,
        pieces=Pieces(None, {}),
        meter=Meter(silent, 1000),
    )


def uneven(sizes, seed=0, inside=2.0):
    """A symmetric matrix whose blocks, and rows, are of sizes that differ by factors."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    A = torch.randn(n, n, generator=generator, dtype=torch.float64)
    scale = torch.exp(torch.randn(n, generator=generator, dtype=torch.float64) / 2)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    A *= torch.where(owner[:, None] == owner, inside, 0.3)
    A = scale[:, None] * (A + A.T) * scale
    return A, owner


@pytest.mark.parametrize("sizes", [[5, 20, 12, 3], [4] * 40])
def test_norms_from_signs_are_unbiased_and_their_errors_cover(sizes):
    """With a colour for each block, and with 32 colours for 40 blocks."""
    A, owner = uneven(sizes)
    inside = torch.where(owner[:, None] == owner, A, 0.0)
    share, norm = float(inside.square().sum() / A.square().sum()), float(A.norm())
    own = [float(inside[owner == block].norm()) for block in range(len(sizes))]
    covered, shares, squares = {"share": 0, "interval": 0, "norm": 0}, [], []
    for seed in range(RUNS):
        found, interrupted = norms.sampled(asked_of(A, sizes, seed))
        assert not interrupted
        value, error, (low, high) = found.share
        shares.append(value)
        squares.append(found.inside.mean(0))
        covered["share"] += abs(value - share) < 1.96 * error
        covered["interval"] += low < share < high
        covered["norm"] += bool(found.norm.low < norm < found.norm.high)
    assert np.mean(shares) == pytest.approx(share, abs=4 * np.std(shares) / RUNS**0.5 + 1e-3)
    spread = np.std(squares, axis=0) / RUNS**0.5
    assert (np.abs(np.mean(squares, axis=0) - np.square(own)) < 4.5 * spread).all()
    for name, count in covered.items():
        assert 0.91 <= count / RUNS <= 0.985, (name, count / RUNS)


def test_signs_on_single_blocks_know_what_has_one_row():
    """|H e_i|^2 is no matter of chance."""
    A, _ = uneven([1, 1, 1])
    found, _ = norms.sampled(asked_of(A, [1, 1, 1], 0, probes=2))
    assert np.allclose(found.frobenius.value, A.diagonal().abs())
    assert np.allclose(found.between, np.square(A.numpy())[None])
    assert found.share[1] == pytest.approx(0.0, abs=1e-12)


def test_shares_from_rows_cover(monkeypatch):
    sizes = [10, 40, 30, 70, 50]
    A, owner = uneven(sizes, seed=1)
    mass = A.abs()
    share = float(torch.where(owner[:, None] == owner, mass, 0.0).sum() / mass.sum())
    diagonal = float(A.diagonal().abs().sum() / mass.sum())
    squares = float(A.diagonal().square().sum() / A.square().sum())
    monkeypatch.setattr(row_shares, "ROWS", 60)
    covered = np.zeros(3)
    for seed in range(RUNS):
        found, _ = row_shares.sampled(asked_of(A, sizes, seed))
        assert (found.rows, found.complete) == (60, False)
        for index, (ratio, truth) in enumerate(
            ((found.absolute, share), (found.diagonal, diagonal), (found.diagonal_squares, squares))
        ):
            covered[index] += ratio.interval[0] < truth < ratio.interval[1]
    assert (covered[:2] / RUNS >= 0.92).all(), covered / RUNS
    assert covered[2] / RUNS >= 0.9, covered / RUNS


def test_all_rows_are_exact(monkeypatch):
    A, owner = uneven([3, 4, 5])
    found, _ = row_shares.sampled(asked_of(A, [3, 4, 5], 0))
    mass = A.abs()
    assert found.complete
    inside = torch.where(owner[:, None] == owner, mass, 0.0)
    assert found.absolute.value == pytest.approx(float(inside.sum() / mass.sum()), abs=1e-12)
    assert found.diagonal_squares.value == pytest.approx(
        float(A.diagonal().square().sum() / A.square().sum()), abs=1e-12
    )
