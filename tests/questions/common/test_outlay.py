"""What a measurement will hold is planned before it is held; what does not fit is refused with what would."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hessdiag.errors import ComputeError
from hessdiag.machine import memory
from hessdiag.questions.common.runs import outlay
from hessdiag.questions.common.runs.spreading import Spreading

CPU = torch.device("cpu")
VECTOR = 1_000_000


@pytest.fixture
def spent():
    spread = Spreading(vector=VECTOR, weights=VECTOR, unit=VECTOR // 10, size=1, sharded=False)
    return outlay.Outlay(device=CPU, vector=VECTOR, graph=0, check=0, samples=1, spread=spread)


def free(monkeypatch, vectors):
    """So many vectors fit beside one product."""
    bytes_ = (vectors + outlay.PASSING) * VECTOR / 0.9
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(bytes_) + 1)


@pytest.mark.parametrize(
    ("room", "asked", "size", "images"),
    [
        (10_000, None, 400, True),  # ordinary: the basis and its images in a quarter
        (10_000, 50, 50, True),
        (400, None, (400 - 18) // 2, False),  # no room for both: the basis alone in half of it
        (60, None, 30, False),  # the smallest that works, in all of it
        (60, 40, 40, False),  # as asked, for it fits
    ],
)
def test_the_basis_that_is_worth_its_memory(spent, monkeypatch, room, asked, size, images):
    free(monkeypatch, room)
    found = outlay.basis(spent, 250_000, 5, 5, asked)
    assert found.size == size
    assert found.images is images
    assert sum(found.held.values()) <= room
    assert ("images of the basis" in found.held) is images


@pytest.mark.parametrize(
    ("room", "asked", "cure"),
    [
        (60, 100, "--max-basis 42"),
        (32, None, "--lowest 3 --highest 3"),
        (8, None, "--layers 'GLOB'"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(spent, monkeypatch, room, asked, cure):
    free(monkeypatch, room)
    with pytest.raises(ComputeError) as refused:
        outlay.basis(spent, 250_000, 5, 5, asked)
    assert refused.value.hint.startswith(cure)


def test_the_largest_that_is_named_does_fit(spent, monkeypatch):
    free(monkeypatch, 60)
    assert outlay.basis(spent, 250_000, 5, 5, 42).size == 42
    with pytest.raises(ComputeError):
        outlay.basis(spent, 250_000, 5, 5, 43)


@pytest.mark.parametrize(("lowest", "highest"), [(10**9, 5), (5, 10**12), (40, 40)])
def test_the_most_pairs_that_fit_are_named(spent, monkeypatch, lowest, highest):
    free(monkeypatch, 100)
    with pytest.raises(ComputeError) as refused:
        outlay.basis(spent, 250_000, lowest, highest, None)
    words = refused.value.hint.rstrip(",").split()
    low, high = int(words[1]), int(words[3].rstrip(","))
    assert outlay.basis(spent, 250_000, low, high, None).size
    with pytest.raises(ComputeError):
        outlay.basis(spent, 250_000, min(low + 1, lowest), min(high + 1, highest), None)


def test_probes_that_fit_are_named_before_steps(spent, monkeypatch):
    free(monkeypatch, 500)
    with pytest.raises(ComputeError, match="1,000,000,000 random vectors") as refused:
        outlay.quadrature(spent, 250_000, 5, 10**9, 80)
    probes = int(refused.value.hint.split()[1].rstrip(","))
    assert outlay.quadrature(spent, 250_000, 5, probes, 80).at_once == 1
    with pytest.raises(ComputeError):
        outlay.quadrature(spent, 250_000, 5, probes + 1, 80)


def test_steps_that_fit_are_named(spent, monkeypatch):
    free(monkeypatch, 60)
    with pytest.raises(ComputeError) as refused:
        outlay.quadrature(spent, 250_000, 5, 2, 80)
    steps = int(refused.value.hint.split()[1].rstrip(","))
    found = outlay.quadrature(spent, 250_000, 5, 2, steps)
    assert found.at_once == 1
    assert sum(found.held.values()) <= 60
    assert found.pairs < 5, "fewer pairs are taken out where their basis would not fit"


def test_what_the_trace_holds_at_the_end_is_refused_at_the_start(spent, monkeypatch):
    free(monkeypatch, 60)
    with pytest.raises(ComputeError, match="the trace from 120 products") as refused:
        outlay.quadrature(spent, 250_000, 5, 30, 10)
    probes = int(refused.value.hint.split()[1].rstrip(","))
    assert 50 < sum(outlay.quadrature(spent, 250_000, 5, probes, 10).held.values()) <= 60
    with pytest.raises(ComputeError):
        outlay.quadrature(spent, 250_000, 5, probes + 1, 10)


@pytest.mark.parametrize(("device", "activations"), [("cpu", 7000), ("cuda:0", 9000)])
def test_weights_are_not_taken_from_what_a_gpu_saves_without_them(monkeypatch, device, activations):
    model = torch.nn.Linear(499, 1)
    problem = SimpleNamespace(model=model, parameters=[torch.zeros(500)], n_samples=1, dtype=torch.float32)
    matrix = SimpleNamespace(
        problem=problem,
        shape=(500, 500),
        dtype=torch.float32,
        device=torch.device(device),
        saved_bytes=9000,
        scale=None,
    )
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**30)
    assert outlay.outlay(matrix).graph == 2000 + int(outlay.GRAPH * activations)


def test_graph_and_check_are_refused_beyond_memory(monkeypatch):
    from hessdiag.curvature.hessian import HessianOperator
    from hessdiag.problem.problem import Problem

    model = torch.nn.Linear(30, 30)
    problem = Problem(model, data=[(torch.ones(2, 30), torch.ones(2, 30))], loss="mse")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 50_000)
    with pytest.raises(ComputeError, match="930 parameters need"):
        outlay.outlay(HessianOperator(problem, check=False))


def test_sizes_of_long_rows_are_guessed_alike(monkeypatch):
    """One vector at a time: other random numbers, the same sizes within a sketch's error, and the same zeros."""
    from hessdiag.curvature.dense import hessian
    from hessdiag.curvature.hessian import HessianOperator
    from hessdiag.problem.problem import Problem
    from hessdiag.questions.common import row_sizes

    torch.manual_seed(0)
    x = torch.randn(8, 6, dtype=torch.float64)
    x[:, 2] = 0.0  # rows that vanish
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    problem = Problem(model, data=[(x, torch.ones(8, 1, dtype=torch.float64))], loss="mse")
    sums = hessian(problem).abs().sum(1).numpy()
    monkeypatch.setattr(row_sizes, "LONG", 10)
    guesses = row_sizes.row_scales(HessianOperator(problem, check=False), 0)
    assert ((guesses == 0) == (sums == 0)).all()
    found = np.sqrt(guesses[0] * guesses[1])
    ratio = found[sums > 0] / sums[sums > 0]
    assert ratio.min() > 0.2
    assert ratio.max() < 5
