"""What an evaluation may write to comes back, and on a GPU what costs a launch or a wait is done only where it must be."""

import pytest
import torch
from torch import nn

from hessdiag.curvature.differences import Moved
from hessdiag.errors import ComputeError
from hessdiag.problem import measuring, seeds
from hessdiag.problem.evaluation import privately
from hessdiag.problem.problem import Problem

META = torch.device("meta")  # as far from the CPU as a GPU, for what is not computed


def test_copies_are_made_at_once_for_each_kind_elsewhere(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "_foreach_copy_", lambda to, of: calls.append(len(to)))
    count = torch.ones((), dtype=torch.int64, device=META)
    buffers = {1: torch.ones(2, device=META), 2: torch.ones(3, device=META), 3: count}
    copies = privately.copied({**buffers, 4: torch.ones(5)})
    assert sorted(calls) == [1, 2]
    assert {key: copy.shape for key, copy in copies.items()} == {1: (2,), 2: (3,), 3: (), 4: (5,)}
    assert all(copies[key] is not buffer for key, buffer in buffers.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_on_a_gpu_hold_the_same():
    buffers = {key: torch.arange(key + 1.0, device="cuda") for key in range(4)} | {9: torch.tensor(3, device="cuda")}
    copies = privately.copied(buffers)
    for key, buffer in buffers.items():
        assert torch.equal(copies[key], buffer)
        assert copies[key].data_ptr() != buffer.data_ptr()


class _Elsewhere(Problem):
    """On a GPU, as far as it says."""

    @property
    def device(self):
        return torch.device("cuda", 0)


@pytest.fixture
def forks(monkeypatch):
    """Counts how often random numbers are set aside."""
    own, count = torch.random.fork_rng, []

    def fork_rng(devices):
        count.append(devices)
        return own([])

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(),))
    monkeypatch.setattr(measuring, "own_stream", lambda device: None)
    return count


@pytest.fixture
def gpus(monkeypatch):
    """Random numbers of two GPUs."""
    found = tuple(torch.Generator().manual_seed(seed) for seed in (11, 22))
    monkeypatch.setattr(torch.cuda, "default_generators", found)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: [one.manual_seed(seed) for one in found])
    at = lambda device: device if isinstance(device, int) else device.index  # noqa: E731
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: found[at(device)].get_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: found[at(device)].set_state(state))
    return found


@pytest.mark.parametrize(
    "seeded",
    [
        lambda: privately.own_draws(torch.device("cpu"), 5),
        lambda: privately.own_draws(torch.device("cuda", 1), 5),
        lambda: seeds.seeded(5),
    ],
    ids=["on a CPU", "on the second GPU", "while a model is built"],
)
def test_random_numbers_of_gpus_are_left_as_they_were(gpus, seeded):
    def states():
        return [torch.random.get_rng_state(), *(one.get_state() for one in gpus)]

    before = states()
    with seeded():
        assert torch.initial_seed() == 5
        torch.rand(3, generator=gpus[1])
    changed = [not torch.equal(was, now) for was, now in zip(before, states(), strict=True)]
    assert changed == [False] * 3 or (changed == [False, False, True] and gpus[1].initial_seed() == 22)


def test_a_seed_is_that_of_one_gpu(gpus):
    with privately.own_draws(torch.device("cuda", 1), 5):
        assert [one.initial_seed() for one in gpus] == [11, 5]


def _problem(kind, *parts):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), *parts, nn.Linear(8, 2))
    return kind(model, data=[(torch.randn(6, 2), torch.arange(6) % 2)], loss="ce", train_mode=True)


@pytest.mark.parametrize(
    ("kind", "parts", "expected"),
    [
        (_Elsewhere, (nn.BatchNorm1d(8),), 1),  # it was found to draw nothing
        (_Elsewhere, (nn.Dropout(0.5),), 4),
        (Problem, (nn.BatchNorm1d(8),), 4),
    ],
    ids=["nothing drawn", "dropout", "on a CPU"],
)
def test_random_numbers_are_set_aside_where_some_are_drawn(forks, kind, parts, expected):
    problem = _problem(kind, *parts)
    before = torch.random.get_rng_state()
    values = [problem.evaluate(problem.data[0]).detach() for _ in range(4)]
    assert len(forks) == expected
    assert all(torch.equal(value, values[0]) for value in values)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert int(problem.model[1].num_batches_tracked if isinstance(parts[0], nn.BatchNorm1d) else 0) == 0


class _Fading(nn.Module):
    """Fails to be finite where its weight is moved up."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x @ self.weight + (1e-9 - self.weight).log().sum()


def _differences(kind, monkeypatch):
    monkeypatch.setattr(measuring, "own_stream", lambda device: None)
    problem = kind(_Fading(), data=[(torch.ones(2, 3), torch.ones(2))], loss="mse")
    return Moved(problem, None)


@pytest.mark.parametrize("kind", [_Elsewhere, Problem])
def test_values_that_are_none_are_told_after_both_ends_at_the_latest(monkeypatch, kind):
    moved, evaluated = _differences(kind, monkeypatch), []
    gradient = moved.gradient
    monkeypatch.setattr(moved, "gradient", lambda batch: evaluated.append(1) or gradient(batch))
    with pytest.raises(ComputeError, match="the loss is nan"):
        moved.difference(torch.ones(3), 1.0, lambda: moved.gradient(moved.problem.data[0]))
    assert len(evaluated) == (2 if kind is _Elsewhere else 1)
    assert moved.problem._evaluator.unasked is None
