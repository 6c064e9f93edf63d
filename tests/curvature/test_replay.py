"""Recordings of products: when one is kept, and on a GPU that its numbers are those of the product."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from hessdiag.curvature import replay
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_space import NeuronSpace
from hessdiag.problem import measuring
from hessdiag.problem.problem import Problem


def _triple(vectors, out=None):
    return 3 * vectors


def _constant(vectors, out=None):
    return 3 * torch.ones_like(vectors)


def _slightly_off(vectors, out=None):
    return 3 * vectors * (1 + 1e-11)


def _refused(vectors, out=None):
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

    def counted(vectors, out=None):
        calls.append(vectors)
        return recorded(vectors)

    def seconds(product, vectors):
        return (times[0], recorded(vectors)) if product is counted else (times[1], product(vectors))

    monkeypatch.setattr(replay, "record", lambda product, vectors, other: counted)
    monkeypatch.setattr(replay, "seconds", seconds)
    replays = replay.Replays()
    v = torch.linspace(0.5, 1, 6, dtype=torch.float64).reshape(2, 3)
    for number in range(replay.EAGER + 4):
        torch.testing.assert_close(replays.run("kind", _triple, v + number), 3 * (v + number), rtol=1e-15, atol=0)
    assert replays.used is kept
    assert len(calls) == 1 + 4 * kept  # once to be compared
    replays.run("another kind", _triple, v)
    assert len(calls) == 1 + 4 * kept
    replays.drop()
    assert not replays.used
    replays.run("kind", _triple, v)
    assert len(calls) == 1 + 4 * kept


def test_recordings_share_memory(monkeypatch):
    others = []

    def record(product, vectors, other):
        others.append(other)
        return lambda vectors, out=None: product(vectors)

    monkeypatch.setattr(replay, "record", record)
    monkeypatch.setattr(replay, "seconds", lambda product, vectors: (float(product is _triple), product(vectors)))
    replays = replay.Replays()
    for kind in ("one", "two"):
        for _ in range(replay.EAGER + 1):
            replays.run(kind, _triple, torch.ones(1, 3))
    assert others[0] is None
    assert callable(others[1])
    replays.drop()
    for _ in range(replay.EAGER + 1):
        replays.run("one", _triple, torch.ones(1, 3))
    assert others[2] is None


@pytest.mark.parametrize("error", [RuntimeError("stream is capturing"), torch.OutOfMemoryError("CUDA out of memory")])
def test_what_cannot_be_recorded_is_computed(monkeypatch, error):
    attempts = []

    def record(product, vectors, other):
        attempts.append(product)
        raise error

    monkeypatch.setattr(replay, "record", record)
    replays = replay.Replays()
    v = torch.ones(1, 3)
    for _ in range(replay.EAGER + 4):
        assert torch.equal(replays.run("kind", _triple, v), 3 * v)
    assert not replays.used
    assert len(attempts) == 1


class _Cuda:
    """What `record` uses of torch.cuda, which notes how it is used."""

    def __init__(self, monkeypatch, *, fails=False):
        self.done = []
        cuda = self

        class Graph:
            def capture_begin(self, pool=None, **_):
                cuda.done.append(("begin", pool))

            def capture_end(self):
                cuda.done.append(("end",))
                if fails and len(cuda.done) < 4:
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

            def replay(self):
                cuda.done.append(("replay",))

        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
        for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            monkeypatch.setattr(torch._C, name, lambda *at, name=name: self.done.append((name, *at)), raising=False)


def test_a_product_that_runs_modules_again_is_refused(monkeypatch):
    cuda = _Cuda(monkeypatch)
    layer = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="runs again"):
        replay.record(layer, torch.ones(1, 3), None)
    assert cuda.done == [("begin", (0, 7)), ("end",)]
    layer(torch.ones(1, 3))  # later it may


def test_a_recording_that_fails_is_ended_and_its_memory_released(monkeypatch):
    cuda = _Cuda(monkeypatch, fails=True)
    with pytest.raises(RuntimeError, match="during capture"):
        replay.record(_triple, torch.ones(1, 3), None)
    assert cuda.done == [
        ("begin", (0, 7)),
        ("end",),
        ("_cuda_endAllocateToPool", 3, (0, 7)),
        ("_cuda_releasePool", 3, (0, 7)),
        ("begin", None),  # one that succeeds
        ("end",),
    ]


def test_recordings_are_replayed_on_other_numbers_and_in_one_pool(monkeypatch):
    cuda = _Cuda(monkeypatch)
    given = torch.ones(1, 3)
    first = replay.record(_triple, given, None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: pytest.fail("another pool"))
    replay.record(_triple, given, first)
    assert [step for step in cuda.done if step[0] == "begin"] == [("begin", (0, 7))] * 2
    out = torch.zeros(1, 3)
    assert first(2 * given, out) is out
    assert torch.equal(out, 3 * given)  # nothing was launched: what was recorded stands
    assert cuda.done[-1] == ("replay",)


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
    monkeypatch.setattr(replay, "record", lambda product, vectors, other: lambda v, out=None: product(v, out))

    def seconds(product, vectors):
        return float(product.__name__ == "product"), product(vectors)

    monkeypatch.setattr(replay, "seconds", seconds)


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
    assert several.engine == several.method


def test_beside_a_graph_of_the_users_vectors_still_share_a_pass(monkeypatch):
    """Autograd then meets two streams, which it cannot mark a batched gradient with."""
    problem = _problem("deep", "cpu")
    plain = HessianOperator(problem)
    _recorded_elsewhere(monkeypatch)
    operator = HessianOperator(problem, check=False)
    graphs = []
    kind = type(plain._graph(problem.data[0]))
    right = kind.products

    def products(graph, vectors, layer):
        graphs.append(graph)
        if operator._stream is not None:
            raise RuntimeError("Cannot access storage of BatchedTensorImpl")
        return right(graph, vectors, layer)

    monkeypatch.setattr(kind, "products", products)
    V = torch.randn(plain.shape[0], 6, dtype=torch.float64)
    for _ in range(replay.EAGER + 2):
        found = operator @ V
    assert graphs[0] is not graphs[1], "the graph is built anew, on the other stream"
    assert graphs[1] is graphs[-1]
    assert operator.engine == (
        f"batched {plain.method}; not recorded, for a graph of the same parameters is alive elsewhere"
    )
    monkeypatch.undo()
    assert torch.equal(found, plain @ V)


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@GPU
@pytest.mark.parametrize("kind", ["deep", "convolutions"])
@pytest.mark.parametrize("operator", [HessianOperator, GaussNewtonOperator])
@pytest.mark.parametrize("vectors", [1, 5])
def test_replayed_products_are_those_of_the_cpu(kind, operator, vectors):
    here, there = operator(_problem(kind, "cpu")), operator(_problem(kind, "cuda"))
    for _ in range(replay.EAGER + 6):
        V = torch.randn(here.shape[0], vectors, dtype=torch.float64)
        torch.testing.assert_close((there @ V.cuda()).cpu(), here @ V, rtol=1e-9, atol=1e-12)
    assert there.engine.endswith("replayed as a CUDA graph")


@GPU
@pytest.mark.parametrize("operator", [HessianOperator, GaussNewtonOperator])
def test_products_are_recorded_beside_other_graphs_of_the_same_parameters(operator):
    problem = _problem("deep", "cuda")
    space = NeuronSpace(problem)
    other = HessianOperator(problem)
    other @ torch.ones(other.shape[0])
    there = operator(problem)
    for _ in range(replay.EAGER + 2):
        there @ torch.ones(there.shape[0])
    assert there.engine.endswith("replayed as a CUDA graph")
    assert space.samples == 5


@GPU
def test_a_failed_recording_leaves_the_allocator_and_the_generator_as_they_were():
    def waits(vectors, out=None):
        return vectors * float(vectors.sum())

    replays = replay.Replays()
    stream = measuring.own_stream(torch.device("cuda"))
    v = torch.ones(1, 3, device="cuda")
    with measuring.on(stream):
        for _ in range(replay.EAGER + 2):
            assert torch.equal(replays.run("kind", waits, v), 3 * v)
    assert not replays.used
    torch.rand(3, device="cuda")
    held = torch.cuda.memory_reserved()
    torch.empty(2**28, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_reserved() >= held + 2**28 or held >= 2**28
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < 2**28
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:  # a second block of another size is there only if the first is given back
        half = int(0.03 * torch.cuda.get_device_properties(0).total_memory)
        for size in (half, half + 2**25):
            torch.empty(size, dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@GPU
def test_flags_of_the_process_reach_no_product():
    """TF32 rounds convolutions to three digits, unless it is set aside."""
    problem = _problem("convolutions", "cuda")
    x, y = problem.data[0]
    rounded = Problem(copy.deepcopy(problem.model).float(), data=[(x.float(), y)], loss="ce")
    V = torch.randn(problem.n_parameters, 4, dtype=torch.float64).cuda()
    expected = HessianOperator(problem) @ V
    torch.set_float32_matmul_precision("medium")
    try:
        found = (HessianOperator(rounded) @ V.float()).double()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert float((found - expected).norm() / expected.norm()) < 2e-6


@GPU
def test_beside_a_graph_of_the_users_products_are_those_of_the_cpu():
    here, problem = HessianOperator(_problem("deep", "cpu")), _problem("deep", "cuda")
    x, _ = problem.data[0]
    alive = problem.model(x).sum()
    there = HessianOperator(problem)
    V = torch.randn(here.shape[0], 5, dtype=torch.float64)
    torch.testing.assert_close((there @ V.cuda()).cpu(), here @ V, rtol=1e-9, atol=1e-12)
    assert there.engine.startswith("batched")
    assert alive.requires_grad
