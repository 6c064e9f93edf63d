"""`--metric` on the command line: a name, a function of the user's, what is refused, and what --save writes."""

import json

import numpy as np
import pytest
import torch

from hessdiag import ProblemRequest, load_problem
from tests.reference import brute_force_hessian

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


def test_an_optimizer_that_is_raced_alone_is_left_to_its_command(hessdiag, net):
    outcome = hessdiag("eigs", net, "--metric", "tr-rmsprop")
    assert outcome.code == 2
    assert "hessdiag escape MODEL --optimizer tr-rmsprop" in outcome.err


@pytest.fixture
def checkpoint(net, tmp_path):
    """After some steps of Adam; and again, for a trajectory."""
    script = {}
    exec(SCRIPT, script)
    model, [(x, y)], _ = script["setup"]()
    made = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.99))
    for n in range(2):
        for _ in range(5):
            made.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            made.step()
        torch.save({"model": model.state_dict(), "optimizer": made.state_dict()}, tmp_path / f"ckpt{n}.pt")
    v = torch.cat([made.state[p]["exp_avg_sq"].flatten() for p in model.parameters()]) / (1 - 0.99**10)
    torch.save(v.sqrt() + 1e-8, tmp_path / "P.pt")
    return tmp_path


@pytest.mark.parametrize("spec", [("ckpt1.pt#optimizer",), ("adam", "--state", "ckpt1.pt#optimizer")])
def test_the_state_in_a_checkpoint(hessdiag, net, checkpoint, spec):
    asked = ("eigs", net, "--weights", "ckpt1.pt#model", "--metric", *spec, "--json")
    found = json.loads(hessdiag(*asked).out)["result"]
    problem = load_problem(ProblemRequest(str(checkpoint / net), weights=f"{checkpoint / 'ckpt1.pt'}#model"))
    scale = torch.load(checkpoint / "P.pt").numpy() ** -0.5
    H = brute_force_hessian(problem).numpy()
    expected = np.linalg.eigvalsh(scale[:, None] * H * scale)[-1]
    assert found["largest"] == pytest.approx(expected, rel=1e-9)
    assert found["largest_step"] == pytest.approx(38 / expected, rel=1e-9)
    assert found["metric"]["state"] == "checkpoint"


def test_what_is_wrong_with_a_state_is_said_with_the_options_of_the_command(hessdiag, net, checkpoint):
    outcome = hessdiag("bounds", net, "--metric", "ckpt1.pt#nothing")
    assert outcome.code in (2, 3)
    assert "--optimizer" not in outcome.err
    assert hessdiag("bounds", net, "--state", "ckpt1.pt#optimizer").code == 2
    both = hessdiag(
        "diag-share",
        net,
        "--weights",
        "ckpt0.pt#model",
        "--weights",
        "ckpt1.pt#model",
        "--metric",
        "ckpt1.pt#optimizer",
    )
    assert both.code == 2
    assert "one state" in both.err


def test_a_trajectory_is_in_the_metric_of_each_checkpoint(hessdiag, net, checkpoint):
    outcome = hessdiag(
        "diag-share", net, "--weights", "ckpt0.pt#model", "--weights", "ckpt1.pt#model", "--metric", "adam", "--json"
    )
    doc = json.loads(outcome.out)
    assert len(doc["result"]["trajectory"]) == 2
    assert doc["result"]["metric"]["state"] == "gradients"
