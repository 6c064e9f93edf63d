"""Shares, extremes and spectra of blocks against closed forms, brute force, and LAPACK."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.nets.gpt import gpt
from hessdiag.problem.partition import partition
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.by import measure as room
from hessdiag.questions.blocks.by import sampled as stages
from hessdiag.questions.blocks.measure import blocks
from tests.reference import brute_force_hessian, quadratic


def softmax_regression(classes, features=3, samples=40):
    """At W = 0, where H = (I / C - 11' / C^2) x A with A the second moment of the inputs."""
    torch.manual_seed(classes)
    model = nn.Linear(features, classes).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return Problem(model, data=[(torch.randn(samples, features).double(), torch.arange(samples) % classes)], loss="ce")


def mlp(sizes=(5, 6, 4), seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], sizes[2])).double()
    return Problem(model, data=[(torch.randn(7, sizes[0]).double(), torch.arange(7) % sizes[2])], loss="ce")


def expected(H, parts):
    """Shares and extremes of the block diagonal, by numpy."""
    H = H.numpy()
    inside = np.zeros_like(H, dtype=bool)
    for indices in parts.indices:
        inside[np.ix_(indices, indices)] = True
    D = np.where(inside, H, 0.0)
    values, vectors = np.linalg.eigh(H)
    block_values, block_vectors = np.linalg.eigh(D)
    return {
        "frobenius_share": (D**2).sum() / (H**2).sum(),
        "absolute_share": np.abs(D).sum() / np.abs(H).sum(),
        "relative_error": np.linalg.norm(H - D) / np.linalg.norm(H),
        "diagonal_frobenius_share": (np.diag(H) ** 2).sum() / (H**2).sum(),
        "diagonal_absolute_share": np.abs(np.diag(H)).sum() / np.abs(H).sum(),
        "lambda_max": (values[-1], block_values[-1]),
        "lambda_min": (values[0], block_values[0]),
        "top_cosine": abs(vectors[:, -1] @ block_vectors[:, -1]),
        "norm": np.linalg.norm(H),
    }


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("sampled", [False, True])
def test_softmax_regression_at_zero_is_block_diagonal_in_one_norm_only(classes, sampled):
    """Share of squares 1 - 1/C, of absolute mass 1/2 for every C; the top eigenspaces of both share directions."""
    if sampled and classes > 10:
        pytest.skip("with more blocks than colours norms are estimates")
    found = blocks(softmax_regression(classes), by="class", **({"probes": 2} if sampled else {}))
    assert found.frobenius_share == pytest.approx(1 - 1 / classes, abs=1e-12)
    assert found.absolute_share == pytest.approx(0.5, abs=1e-12)
    assert found.relative_error == pytest.approx(classes**-0.5, abs=1e-12)
    assert found.lambda_max.blocks / found.lambda_max.hessian == pytest.approx(1 - 1 / classes, abs=1e-9)
    assert found.heterogeneity == pytest.approx(0.0, abs=1e-6)
    if not sampled:
        assert found.top_cosine == pytest.approx(1.0, abs=1e-9)
    assert any("depends on the norm" in finding.says for finding in found.findings) == (abs(0.5 - 1 / classes) >= 0.2)


@pytest.fixture(scope="module")
def small_gpt():
    """With 740 weights, its Hessian by brute force."""
    task = gpt(layers=1, width=8, heads=2, vocabulary=6, context=4, sequences=2, mlp_ratio=1)
    problem = Problem(task["model"], data=[task["data"]], loss=task["loss"])
    H = brute_force_hessian(problem)
    return problem, (H + H.T) / 2


@pytest.mark.parametrize("by", ["tensor", "head", "embedding-row"])
def test_a_one_layer_gpt_against_brute_force(small_gpt, by):
    (problem, H), parts = small_gpt, partition(small_gpt[0], by)
    found = blocks(problem, by=by)
    assert len(parts.names) > 8, "heads are blocks of their own"
    for name, value in expected(H, parts).items():
        own = getattr(found, name)
        own = (own.hessian, own.blocks) if isinstance(value, tuple) else own
        assert own == pytest.approx(value, rel=1e-8, abs=1e-12), name
    for block, indices in zip(found.blocks, parts.indices, strict=True):
        rows = H[indices].numpy()
        own = rows[:, indices]
        assert block.parameters == len(indices)
        assert block.frobenius == pytest.approx(np.linalg.norm(own), rel=1e-9, abs=1e-14)
        assert block.eigenvalues == pytest.approx(np.linalg.eigvalsh(own), abs=1e-11)
        if np.linalg.norm(rows) > 1e-9:
            assert block.row_share == pytest.approx((own**2).sum() / (rows**2).sum(), rel=1e-8)
            assert block.row_absolute_share == pytest.approx(np.abs(own).sum() / np.abs(rows).sum(), rel=1e-8)


def test_norms_between_blocks_are_those_of_brute_force():
    problem = mlp()
    H, parts, found = brute_force_hessian(problem), partition(problem, "neuron"), blocks(problem, by="neuron")
    norms = [[float(H[rows][:, columns].norm()) for columns in parts.indices] for rows in parts.indices]
    assert found.coupled == parts.names
    assert np.allclose(found.coupling, norms, atol=1e-12)


def test_many_rows_by_lanczos_are_as_by_lapack(monkeypatch):
    problem = mlp()
    whole = blocks(problem, by="layer")
    monkeypatch.setattr("hessdiag.questions.blocks.by.ends.DENSE_UP_TO", 10)
    found = blocks(problem, by="layer")
    assert found.top_cosine == pytest.approx(whole.top_cosine, abs=1e-9)
    assert found.lambda_max.hessian == pytest.approx(whole.lambda_max.hessian, abs=1e-12)


def test_rows_that_are_zero_are_left_out_and_count(monkeypatch):
    """Two of six tokens are seen: the others' rows of the table are zero, and so are their eigenvalues."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(60, 3), nn.Flatten(), nn.Linear(6, 2)).double()
    problem = Problem(model, data=[(torch.tensor([[5, 7]]), torch.tensor([1]))], loss="ce")
    whole = blocks(problem, by="tensor")
    monkeypatch.setattr(room, "EXACT_UP_TO", 50)
    part = blocks(problem, by="tensor")
    assert (whole.zero_rows, part.zero_rows) == (0, 174)
    assert part.method == whole.method == "exact"
    for name in ("frobenius_share", "absolute_share", "top_cosine", "heterogeneity", "norm"):
        assert getattr(part, name) == pytest.approx(getattr(whole, name), abs=1e-9), name
    assert part.lambda_min.blocks == pytest.approx(whole.lambda_min.blocks, abs=1e-12)


def test_one_block_is_the_whole_matrix():
    found = blocks(mlp(), by="*")
    assert (found.frobenius_share, found.absolute_share, found.relative_error) == (1, 1, 0)
    assert found.top_cosine == pytest.approx(1.0)
    assert found.heterogeneity is None
    assert "one block only" in found.findings[0].says


def test_a_block_that_couples_backwards_hides_both_ends():
    """H = [[1, 3], [3, 1]] has the eigenvalues 4 and -2; its blocks have 1 alone."""
    problem = quadratic(torch.tensor([[1.0, 3.0], [3.0, 1.0]], dtype=torch.float64))
    whole = blocks(problem, by="tensor")
    assert len(whole.blocks) == 1
    model = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)}).double()

    def objective(model, batch):
        a, b = model["a"].weight, model["b"].weight
        return (a * a / 2 + 3 * a * b + b * b / 2).sum()

    x = torch.ones(1, 1).double()
    found = blocks(Problem(model, data=[(x, x)], objective=objective), by="layer")
    assert (found.lambda_max.hessian, found.lambda_max.blocks) == (pytest.approx(4), pytest.approx(1))
    assert (found.lambda_min.hessian, found.lambda_min.blocks) == (pytest.approx(-2), pytest.approx(1))
    assert found.top_cosine == pytest.approx(1.0), "the blocks' top space is all of the plane"
    said = " ".join(finding.says for finding in found.findings)
    assert "show only 25 % of the largest eigenvalue" in said.replace("25.0", "25")
    assert "Negative curvature is between blocks: no block curves down" in said


def test_nothing_is_wrong_with_a_hessian_of_zeros():
    x = torch.ones(2, 1).double()
    model = nn.Linear(1, 1).double()
    problem = Problem(model, data=[(x, x)], objective=lambda model, batch: model(batch[0]).sum())
    found = blocks(problem, by="tensor")
    assert (found.norm, found.frobenius_share, found.top_cosine, found.heterogeneity) == (0, None, None, None)
    assert "exactly zero" in found.findings[0].says


def test_fewer_than_two_probes_and_unknown_words_are_refused():
    with pytest.raises(SpecError):
        blocks(mlp(), by="tensor", probes=1)
    with pytest.raises(SpecError):
        blocks(mlp(), by="nothing-such")


def larger(seed=0):
    """Blocks of 36 to 900 entries: some known by all their rows, others by Lanczos."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(30, 30), nn.Tanh(), nn.Linear(30, 12)).double()
    return Problem(model, data=[(torch.randn(20, 30).double(), torch.arange(20) % 12)], loss="ce")


@pytest.fixture(scope="module")
def both():
    problem = larger()
    return blocks(problem, by="tensor"), blocks(problem, by="tensor", probes=12)


def test_what_is_sampled_agrees_with_what_is_exact(both):
    exact, found = both
    assert (exact.method, found.method) == ("exact", "sampled")
    for name in ("frobenius_share", "absolute_share", "diagonal_absolute_share", "relative_error"):
        value, error = getattr(found, name), getattr(found, f"{name}_stderr")
        assert 0 < error < 0.1
        assert abs(value - getattr(exact, name)) < 4 * error, name
    low, high = found.frobenius_share_interval
    assert low < exact.frobenius_share < high
    assert found.lambda_max.hessian == pytest.approx(exact.lambda_max.hessian, rel=1e-5)
    assert found.lambda_max.blocks == pytest.approx(exact.lambda_max.blocks, rel=1e-5)
    assert found.lambda_max.block == exact.lambda_max.block
    assert found.top_cosine == pytest.approx(exact.top_cosine, abs=0.01)
    assert abs(found.heterogeneity - exact.heterogeneity) < 0.02
    for one, true in zip(found.blocks, exact.blocks, strict=True):
        assert one.lambda_max == pytest.approx(true.lambda_max, rel=1e-4, abs=1e-10)
        assert abs(one.frobenius - true.frobenius) <= 5 * one.frobenius_stderr + 1e-12
    assert found.hvps < 12 * 4 + 8 + 400 + 400 + 4 * 460


def test_the_same_seed_gives_the_same_numbers(both):
    _, first = both
    again = blocks(larger(), by="tensor", probes=12)
    assert replace(again, provenance=first.provenance) == first
    assert blocks(mlp(), by="layer", probes=2, seed=1).norm != blocks(mlp(), by="layer", probes=2, seed=2).norm
    assert json.loads(again.to_json())["result"]["partition"] == "tensor"


@pytest.mark.parametrize(
    ("stage", "call", "known"),
    [
        ("norms._sample", 5, ("frobenius_share",)),
        ("row_shares._numbers", 1, ("frobenius_share",)),
        ("row_shares._numbers", 3, ("frobenius_share", "absolute_share")),
        ("block_ends.measured", 1, ("frobenius_share", "absolute_share")),
        ("block_ends.measured", 3, ("frobenius_share", "absolute_share", "heterogeneity")),
    ],
)
def test_an_interrupt_keeps_what_was_measured(monkeypatch, stage, call, known):
    home, name = stage.split(".")
    module = __import__(f"hessdiag.questions.blocks.by.{home}", fromlist=[name])
    real, calls = getattr(module, name), []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, name, interrupted)
    monkeypatch.setattr("hessdiag.questions.common.operators.together", lambda operator, most: 64)
    found = blocks(larger(), by="tensor", probes=6)
    assert found.status == "interrupted"
    every = ("frobenius_share", "absolute_share", "heterogeneity")
    assert [name for name in every if getattr(found, name) is not None] == list(known)
    assert (found.lambda_max.hessian is not None) == (home == "block_ends")
    assert "Interrupted" in " ".join(finding.says for finding in found.findings)
    assert found.to_markdown()


def test_an_interrupt_before_anything_is_known_is_one(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("hessdiag.questions.blocks.by.norms._sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        blocks(larger(), by="tensor", probes=6)
    nothing = room.unmeasured(larger(), "tensor")
    assert nothing.status == "interrupted"
    assert "nothing can be said" in nothing.findings[0].says
    assert nothing.to_markdown()


def test_many_blocks_take_a_bounded_number_of_products(monkeypatch):
    monkeypatch.setattr(room, "EXACT_UP_TO", 10)
    many = blocks(larger(), by="neuron")
    assert len(many.blocks) == 42
    assert (many.colours, many.coupling) == (32, None)
    assert many.probes == room.PROBES
    assert sum(block.lambda_max is not None for block in many.blocks) == stages.MEASURED == many.spectra.compared
    assert many.hvps <= room.PROBES * 32 + 8 + 400 + 400 + 12 * 31
