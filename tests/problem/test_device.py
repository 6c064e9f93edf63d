"""Which device a name means, on machines with and without GPUs."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from hessdiag.cli.main import run
from hessdiag.errors import LoadError, SpecError
from hessdiag.machine.processes import backend_for
from hessdiag.problem.device import device_named, notes, operations
from hessdiag.problem.load import ProblemRequest, load_problem
from hessdiag.problem.problem import Problem


@pytest.fixture
def gpus(monkeypatch):
    def pretend(count, **environment):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return pretend


@pytest.mark.parametrize(
    ("count", "rank", "name", "device"),
    [
        (0, "0", "auto", "cpu"),
        (1, "0", "auto", "cuda:0"),
        (1, "1", "cuda", "cuda:0"),
        (4, "0", "auto", "cuda:0"),
        (4, "3", "auto", "cuda:3"),
        (4, "2", "cuda", "cuda:2"),
        (2, "3", "cuda", "cuda:1"),
        (4, "3", "cuda:1", "cuda:1"),
        (4, "3", "cpu", "cpu"),
    ],
)
def test_each_process_takes_its_own_gpu(gpus, count, rank, name, device):
    gpus(count, LOCAL_RANK=rank)
    assert device_named(name) == torch.device(device)


@pytest.mark.parametrize(
    ("count", "processes", "device", "backend"),
    [(0, "2", "cpu", "gloo"), (4, "4", "cpu", "gloo"), (4, "4", "cuda:1", "nccl"), (1, "2", "cuda", "gloo")],
)
def test_nccl_wants_a_gpu_for_each_process(gpus, count, processes, device, backend):
    gpus(count, LOCAL_WORLD_SIZE=processes)
    assert backend_for(torch.device(device)) == backend


@pytest.mark.parametrize(("count", "name"), [(0, "cuda"), (2, "cuda:2")])
def test_what_is_not_there(gpus, count, name):
    gpus(count)
    with pytest.raises(LoadError, match=f"'{name}' is not available"):
        device_named(name)


@pytest.mark.parametrize("name", ["gpu", "", "meta", "xla"])
def test_what_is_no_device(name):
    with pytest.raises(SpecError, match="no device"):
        device_named(name)


def test_mps_is_refused_whether_it_is_there_or_not(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(SpecError, match="mps has no float64"):
        device_named("mps")


@pytest.mark.parametrize(
    "line",
    [
        "eigs builtin:mlp(depth=3,width=4)",
        "forward --depth 2 --width 3 --seeds 2",
        "vanishing --depth 2 --width 3 --seeds 2",
        "transfer builtin:mlp(width={width},depth=3) --widths 4,8",
    ],
)
def test_commands_say_that_they_cannot_run_on_mps(line, capsys):
    assert run([*line.split(), "--device", "mps", "--no-progress"]) == 2
    assert "mps has no float64" in capsys.readouterr().err


class OnMps:
    """What a parameter on a Mac says of itself."""

    device = torch.device("mps")


def test_a_model_on_mps_is_refused_with_what_to_do(monkeypatch):
    model = nn.Linear(2, 1)
    problem = Problem(model, data=[(torch.ones(1, 2), torch.ones(1, 1))], loss="mse")
    monkeypatch.setattr(model, "named_parameters", lambda: [("weight", OnMps())])
    with pytest.raises(LoadError, match=r"mps has no float64(.|\n)*model\.to\('cpu'\)"):
        replace(problem)


@pytest.mark.parametrize(
    ("name", "operations", "device"),
    [
        ("auto", 1e8, "cpu"),
        ("auto", 1e10, "cuda:0"),
        ("auto", None, "cuda:0"),
        ("cuda", 1e8, "cuda:0"),
        ("cpu", 1e10, "cpu"),
    ],
)
def test_a_gpu_is_not_started_for_little(gpus, name, operations, device):
    gpus(1)
    assert device_named(name, operations) == torch.device(device)
    said = notes(name, device)
    assert bool(said) == ((name, device) == ("auto", "cpu"))


def test_a_tiny_problem_stays_on_the_cpu_and_says_so(gpus):
    gpus(1)
    problem = load_problem(ProblemRequest("builtin:mlp(depth=3, width=4)"))
    assert problem.device.type == "cpu"
    assert [note for note in problem.notes if note.startswith("device: the CPU")]


def test_nothing_is_said_of_a_gpu_that_is_not_there(gpus):
    gpus(0)
    assert device_named("auto", 1.0) == torch.device("cpu")
    assert notes("auto", "cpu") == ()


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        (nn.Linear(9, 100), torch.zeros(7, 9), 1000 * 1000 * 7),
        (nn.Linear(9, 1), torch.zeros(7, 9), 10 * 800 * 7),
        (nn.Linear(9, 100), torch.zeros(7, 5, 9), 1000 * 1000 * 35),
        (nn.Conv2d(3, 1, 1), torch.zeros(2, 3, 8, 8), 4 * 800 * 128),
        (nn.Embedding(10, 1), torch.zeros(3, 5, dtype=torch.int64), 10 * 800 * 15),
        (nn.Linear(9, 1).requires_grad_(requires_grad=False), torch.zeros(7, 9), 0),
        (nn.LazyLinear(5), torch.zeros(7, 9), 0),
    ],
)
def test_operations_are_counted_by_parameters_and_places(model, inputs, expected):
    assert operations(model, [(inputs, torch.zeros(len(inputs)))]) == expected
    assert operations(model, [inputs, inputs]) == 2 * expected
