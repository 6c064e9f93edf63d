"""Recordings of products: when one is kept, and on a GPU that its numbers are those of the product."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from hessdiag.curvature import replay
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.problem import measuring
from hessdiag.problem.problem import Problem


def _triple(vectors):
    return 3 * vectors


def _constant(vectors):
    return 3 * torch.ones_like(vectors)


def _slightly_off(vectors):
    return 3 * vectors * (1 + 1e-11)


def _refused(vectors):
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("recorded", "times", "kept"),
    [
        (lambda v: v + v + v, (0.5, 1.0), True),
        (lambda v: v + v + v, (1.0, 1.0), False),
        (_constant, (0.5, 1.0), False),
        (_slightly_off, (0.5, 1.0), False),
    ],
    ids=["faster", "no faster", "ignores its input", "other numbers"],
)
def test_a_recording_is_kept_if_it_repeats_the_product_faster(monkeypatch, recorded, times, kept):
    calls = []

    def record(product, vectors, stream):
        def counted(vectors):
            calls.append(vectors)
            return recorded(vectors)

        return counted

    clock = iter(times)
    monkeypatch.setattr(replay, "record", record)
    monkeypatch.setattr(replay, "seconds", lambda product, vectors: next(clock))
    replays = replay.Replays(None)
    v = torch.linspace(0.5, 1, 6, dtype=torch.float64).reshape(2, 3)
    for number in range(replay.EAGER + 4):
        torch.testing.assert_close(replays.run("kind", _triple, v + number), 3 * (v + number), rtol=1e-15, atol=0)
    assert replays.used is kept
    assert len(calls) == 1 + 4 * kept  # once to be compared
    replays.run("another kind", _triple, v)
    assert len(calls) == 1 + 4 * kept


def test_what_cannot_be_recorded_is_computed(monkeypatch):
    attempts = []

    def record(product, vectors, stream):
        attempts.append(product)
        return _refused(vectors)

    monkeypatch.setattr(replay, "record", record)
    replays = replay.Replays(None)
    v = torch.ones(1, 3)
    for _ in range(replay.EAGER + 4):
        assert torch.equal(replays.run("kind", _triple, v), 3 * v)
    assert not replays.used
    assert len(attempts) == 1


def test_a_product_that_runs_modules_again_is_refused(monkeypatch):
    class Graph:
        def __init__(self, graph, stream=None):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    layer = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="runs again"):
        replay.record(layer, torch.ones(1, 3), None)
    layer(torch.ones(1, 3))  # later it may


def _problem(kind, device):
    torch.manual_seed(0)
    deep = [part for _ in range(24) for part in (nn.Linear(8, 8), nn.Tanh())]
    convolutions = [
        nn.Unflatten(1, (2, 4)),
        nn.Conv1d(2, 3, 2),
        nn.BatchNorm1d(3),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(9, 8),
    ]
    model = nn.Sequential(*(deep if kind == "deep" else convolutions)).double()
    data = [(torch.randn(5, 8).double().to(device), torch.arange(5, device=device) % 8)]
    return Problem(model.to(device), data=data, loss="ce")


def _recorded_elsewhere(monkeypatch):
    """Recordings as on a GPU, which run the product itself."""
    monkeypatch.setattr(measuring, "own_stream", lambda device: "a stream")
    monkeypatch.setattr(measuring, "on", lambda stream: nullcontext())
    monkeypatch.setattr(replay, "record", lambda product, vectors, stream: lambda vectors: product(vectors))
    monkeypatch.setattr(replay, "seconds", lambda product, vectors: float(product.__name__ == "product"))


@pytest.mark.parametrize("operator", [HessianOperator, GaussNewtonOperator])
def test_operators_replay_the_products_that_recur(monkeypatch, operator):
    problem = _problem("convolutions", "cpu")
    plain = operator(problem)
    _recorded_elsewhere(monkeypatch)
    replayed = operator(problem, check=False)
    V = torch.randn(plain.shape[0], 6, dtype=torch.float64)
    for number in range(replay.EAGER + 1):
        assert not replayed.engine.endswith("replayed as a CUDA graph")
        for vectors in (number + V, number + V[:, 0]):
            assert torch.equal(replayed @ vectors, plain @ vectors)
    assert replayed.engine.endswith("replayed as a CUDA graph")
    other = replayed.on(_problem("deep", "cpu"))
    assert not other.engine.endswith("replayed as a CUDA graph")


def test_columns_of_each_layer_are_products_of_their_own(monkeypatch):
    problem = _problem("convolutions", "cpu")
    plain = HessianOperator(problem)
    _recorded_elsewhere(monkeypatch)
    replayed = HessianOperator(problem)
    rows = torch.arange(6)
    for _ in range(replay.EAGER + 2):
        for layer in (None, *problem.layer_slices):
            assert torch.equal(replayed.rows(rows, layer), plain.rows(rows, layer))


def test_batches_whose_graphs_are_rebuilt_are_not_recorded(monkeypatch):
    _recorded_elsewhere(monkeypatch)
    problem = _problem("deep", "cpu")
    several = HessianOperator(Problem(problem.model, data=problem.data * 2, loss="ce"), check=False)
    v = torch.ones(several.shape[0], dtype=torch.float64)
    for _ in range(replay.EAGER + 2):
        several @ v
    assert several.engine == "double backward"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["deep", "convolutions"])
@pytest.mark.parametrize("operator", [HessianOperator, GaussNewtonOperator])
@pytest.mark.parametrize("vectors", [1, 5])
def test_replayed_products_are_those_of_the_cpu(kind, operator, vectors):
    here, there = operator(_problem(kind, "cpu")), operator(_problem(kind, "cuda"))
    for _ in range(replay.EAGER + 6):
        V = torch.randn(here.shape[0], vectors, dtype=torch.float64)
        torch.testing.assert_close((there @ V.cuda()).cpu(), here @ V, rtol=1e-9, atol=1e-12)
    assert there.engine.endswith("replayed as a CUDA graph")
