"""Which device a name means, on machines with and without GPUs."""

import pytest
import torch

from hessdiag.curvature.parallel import backend_for
from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.device import device_named


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
        (1, "0", "auto", "cuda"),
        (1, "1", "cuda", "cuda"),
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


def test_mps_has_no_float64(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_named("mps", torch.float32).type == "mps"
    with pytest.raises(SpecError, match="float64"):
        device_named("mps", torch.float64)
