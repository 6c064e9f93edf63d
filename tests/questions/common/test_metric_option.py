"""`--metric` on the command line: a name, a function of the user's, what is refused, and what --save writes."""

import json

import numpy as np
import pytest

SCRIPT = """
import torch
from torch import nn
calls = []
def setup():
    torch.manual_seed(0)
    x = torch.randn(8, 3, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return model, [(x, torch.arange(8) % 2)], "ce"
def make(parameters):
    return torch.optim.RMSprop(parameters, lr=0.02, eps=0.25)
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(SCRIPT)
    return "net.py:setup"


@pytest.mark.parametrize("command", ["eigs", "spectrum", "bounds", "diag-share"])
def test_every_command_takes_it(hessdiag, net, command):
    plain = json.loads(hessdiag(command, net, "--json").out)
    outcome = hessdiag(command, net, "--metric", "adam(lr=0.5, eps=1e-4)", "--json")
    assert outcome.code == 0
    doc = json.loads(outcome.out)
    assert doc["result"]["metric"]["optimizer"] == "Adam(lr=0.5, eps=0.0001)"
    assert plain["result"]["metric"] is None
    name = {"eigs": "largest", "spectrum": "trace", "bounds": "gershgorin", "diag-share": "abs_sum"}[command]
    assert doc["result"][name] != plain["result"][name]


def test_a_function_of_the_users(hessdiag, net):
    doc = json.loads(hessdiag("eigs", net, "--metric", "net.py:make", "--json").out)
    assert doc["result"]["metric"]["kind"] == "rmsprop"
    assert doc["result"]["metric"]["smallest"] > 0.25
    assert doc["result"]["largest_step"] == pytest.approx(2 / doc["result"]["largest"])


def test_saved_vectors_come_with_the_scale(hessdiag, net, tmp_path):
    hessdiag("eigs", net, "--metric", "net.py:make", "--save", "v.npz")
    held = np.load(tmp_path / "v.npz")
    assert held["scale"].shape == held["vectors"].shape[:1]
    assert 0 < held["scale"].max() < 0.25**-0.5
    hessdiag("eigs", net, "--save", "w.npz")
    assert "scale" not in np.load(tmp_path / "w.npz")


@pytest.mark.parametrize("spec", ["adam(", "nope", "adam(lr=x)", ""])
def test_what_is_no_optimizer_is_refused_in_a_line_or_two(hessdiag, net, spec):
    outcome = hessdiag("bounds", net, "--metric", spec)
    assert outcome.code == 2
    assert outcome.out == ""
    assert len(outcome.err.strip().splitlines()) <= 4


def test_a_trajectory_is_in_the_metric_of_each_checkpoint(hessdiag, net, tmp_path):
    code = "import torch, net\nfor n in (0, 1):\n    m = net.setup()[0]\n    torch.nn.init.normal_(m[0].weight)\n    torch.save(m.state_dict(), f's{n}.pt')\n"
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    outcome = hessdiag("diag-share", net, "--weights", "s0.pt", "--weights", "s1.pt", "--metric", "adam", "--json")
    doc = json.loads(outcome.out)
    assert len(doc["result"]["trajectory"]) == 2
    assert doc["result"]["metric"]["state"] == "gradients"
