"""Every command on a GPU that is not there: the numbers of the CPU, no mixed devices, and launches within a table.

What costs more than the table says is a regression on every GPU; what costs much less wants a new entry
(`python -m tests.device.pretended_runs parts|commands|models` prints the counts).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device import guard

ROOT = Path(__file__).parents[2]
MLP = "builtin:mlp(depth=3,width=5)"
WIDE = "tests/gpu_models.py:wide(inputs=90,width=80,samples=8)"

# Launches of kernels, and waits of the host for the device.
LIMITS = {
    "Hessian product, 1 vectors": (54, 1),
    "Hessian product, 8 vectors": (69, 1),
    "Gauss-Newton product, 1 vectors": (58, 2),
    "Gauss-Newton product, 8 vectors": (65, 2),
    "step of extreme_eigenpairs, block 1": (13, 1),
    "step of extreme_eigenpairs, block 2": (13, 1),
    "step of spectral_density, 4 probes": (15, 1),
    "perron": (620, 50),
    "layer of networks' Hessian norms": (65, 0),
    "check of them by 256 products": (310, 3),
    f"diag-share {MLP}": (1100, 94),
    f"diag-share {MLP} --rows 20": (780, 84),
    f"eigs {MLP}": (1000, 140),
    f"spectrum {MLP}": (930, 90),
    f"spectrum {MLP} --operator ggn": (610, 63),
    f"spectrum {MLP} --operator fisher --loss ce": (660, 65),
    f"bounds {MLP}": (6500, 240),
    f"blocks {MLP}": (1800, 150),
    f"forward {MLP} --seeds 3": (460, 112),  # with its own weights
    "forward --depth 4 --width 6 --seeds 50": (160, 5),
    "forward --depth 3 --width 6 --seeds 50 --activation tanh --solve median --init he_normal": (140, 7),
    "vanishing --depth 3 --width 4 --seeds 20 --hessian-seeds 5 --batch 3": (710, 18),
    "vanishing builtin:mlp(depth={depth},width=4) --depth 3 --seeds 3 --batch 3": (3000, 360),
    f"eigs {WIDE} --highest 2 --lowest 1 --tol 1e-6": (5300, 220),
    f"spectrum {WIDE} --probes 2 --steps 10": (3000, 150),
    "diag-share tests/gpu_models.py:weighted --dtype float64": (2000, 130),
    "diag-share tests/gpu_models.py:lenet --rows 8 --dtype float64": (1500, 120),
    "eigs tests/gpu_models.py:batch_norm --train-mode --dtype float64": (2100, 220),
    "diag-share tests/gpu_models.py:dropout --train-mode --dtype float64": (1300, 140),
    "diag-share tests/gpu_models.py:transformer --rows 8 --dtype float64": (6600, 310),
}


@pytest.fixture(scope="module")
def run():
    """What a group of runs prints, by name; in a process of its own."""
    if reason := guard.missing():
        pytest.skip(reason)
    try:
        guard.built()
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the guard does not fit this torch: {error}")

    def lines(group):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.device.pretended_runs", group]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}

    return lines


def _beyond(found):
    """What costs more than it may."""
    counts = {name: (one["counts"]["launches"], one["counts"]["waits"]) for name, one in found.items()}
    return {
        name: f"{spent} launches and waits, at most {LIMITS[name]}"
        for name, spent in counts.items()
        if any(number > limit for number, limit in zip(spent, LIMITS[name], strict=True))
    }


@pytest.mark.parametrize("group", ["commands", "models"])
def test_commands(run, group):
    found = run(group)
    assert not [one for one in found.values() if one["wrong"] or "failed alike" in one]
    assert not _beyond(found)


def test_products_and_steps(run):
    found = run("parts")
    assert not _beyond(found)
    assert len(found) == 10


def test_where_problems_go_and_what_is_refused(run):
    found = run("loading")
    for spec, device in (("mlp", "cpu"), ("weighted", "cpu"), ("wide", "cuda:0")):
        one = found[f"tests/gpu_models.py:{spec}"]
        assert (one["model"], one["data"], len(one["notes"])) == (device, [device], int(device == "cpu"))
    for spec, said in (
        ("labels_out_of_range", "labels run from 97 to 99"),
        ("tokens_out_of_range", "the table embedding.weight has 50 rows"),
    ):
        one = found[spec]
        assert (one["code"], one["launched"]) == (3, [])  # nothing met it that a real one cannot survive
        assert said in one["said"]


# What a stand-in must do to be worth anything: refuse as a GPU refuses, and count.
SELF = """
from tests.device import guard
guard.load()
import torch
from tests.device.pretended_gpu import GPU, pretended

def refused(run):
    try:
        run()
    except RuntimeError as error:
        return "same device" in str(error) or "generator" in str(error)
    return False

with pretended() as gpu:
    x = torch.ones(3).to(GPU)
    here = torch.zeros(3, dtype=torch.int64)
    assert (x + 1.0).device == GPU and str(torch.tensor([1.0], device="cuda").device) == "cuda:0"
    assert refused(lambda: x + torch.ones(3)) and not refused(lambda: x + torch.ones(()))
    assert refused(lambda: torch.ones(3)[here.to(GPU)]) and not refused(lambda: x[here])
    assert refused(lambda: torch.randn(3, device=GPU, generator=torch.Generator()))
    assert refused(lambda: x.copy_(torch.ones(3)) + torch.ones(3))
    gpu.counts.clear()
    y = (x.view(3, 1) * 2.0).sum()
    assert gpu.counts == {"launches": 2}, gpu.counts
    float(y), y.cpu(), x[x > 0]
    assert gpu.counts["waits"] == 3, gpu.counts
    torch.ones(3).to(GPU), x[here]
    assert gpu.counts["uploads"] == 2, gpu.counts
    w = torch.nn.Parameter(x)
    (w * w).sum().backward()
    assert w.grad.device == GPU and w.grad.cpu().tolist() == [2.0] * 3
__import__("os")._exit(0)  # autograd's threads for the device may abort the process at its end
"""


def test_the_stand_in_itself(run):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SELF], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
