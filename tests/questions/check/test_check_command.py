"""`hessdiag check` on the command line: the user's script, and the weights of a cure."""

import json

import pytest
import torch

from hessdiag.problem import load

SCRIPT = """
import pathlib

import torch
from torch import nn

with pathlib.Path("runs.txt").open("a") as runs:
    runs.write("ran\\n")

def setup():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(model[0].bias, -9.0)
    return model, [(torch.randn(32, 4), torch.randint(3, (32,)))], "ce"

def make(params):
    return torch.optim.SGD(params, lr=0.25)
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    return "train.py:setup"


def test_a_script_of_model_and_optimizer_runs_once(hessdiag, script, tmp_path):
    outcome = hessdiag("check", script, "--optimizer", "train.py:make", "--json")
    step = json.loads(outcome.out)["result"]["step"]
    assert (outcome.code, step["given"], step["lr"]) == (0, True, 0.25)
    assert (tmp_path / "runs.txt").read_text() == "ran\n"


def test_a_learning_rate_is_that_of_the_optimizer(hessdiag, script):
    for options, name, lr in ((("--optimizer", "train.py:make", "--lr", 0.5), "SGD", 0.5), ((), "Adam", 1e-3)):
        step = json.loads(hessdiag("check", script, *options, "--json").out)["result"]["step"]
        assert (step["optimizer"], step["lr"]) == (name, lr)


def saved(tmp_path, lr):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.8, 0.99), weight_decay=0.25)
    model(torch.randn(16, 4)).square().mean().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "ckpt.pt")


@pytest.mark.parametrize("options", [(), ("--try",)])
def test_a_checkpoint_gives_the_settings_of_its_optimizer(hessdiag, script, options, tmp_path):
    saved(tmp_path, lr=0.02)
    outcome = hessdiag("check", script, "--optimizer", "ckpt.pt#optimizer", *options, "--json")
    result = json.loads(outcome.out)["result"]
    step = result["step"]
    assert (outcome.code, step["given"], step["optimizer"], step["lr"]) == (0, True, "AdamW", 0.02)
    assert (step["settings"]["weight_decay"], step["settings"]["beta1"]) == (0.25, 0.8)
    assert any("ckpt.pt#optimizer" in said and "start anew" in said for said in result["not_looked_at"])


def test_a_learning_rate_stands_in_where_a_schedule_ended_at_zero(hessdiag, script, tmp_path):
    saved(tmp_path, lr=0.0)
    outcome = hessdiag("check", script, "--optimizer", "ckpt.pt")
    assert outcome.code == 2
    assert "is 0, as schedules end" in outcome.err
    assert "--lr 1e-3" in outcome.err
    step = json.loads(hessdiag("check", script, "--optimizer", "ckpt.pt", "--lr", "1e-3", "--json").out)["result"][
        "step"
    ]
    assert (step["optimizer"], step["lr"]) == ("AdamW", 1e-3)


@pytest.mark.parametrize("name", ["mended.pt", "mended.safetensors"])
def test_the_weights_of_a_cure_are_saved(hessdiag, script, name, tmp_path):
    options = ("--optimizer", "sgd", "--lr", 0.1, "--try", "--save", name)
    assert hessdiag("check", script, *options).code == 0
    before = load.load_problem(load.ProblemRequest(str(tmp_path / script), device="cpu")).model
    request = load.ProblemRequest(str(tmp_path / script), weights=str(tmp_path / name), device="cpu")
    mended = load.load_problem(request).model
    assert float(before[0].bias.detach().mean()) == -9.0
    assert float(mended[0].bias.detach().abs().max()) < 1.0
    assert torch.equal(mended[2].weight, before[2].weight)
    outcome = hessdiag("check", script, *options)
    assert outcome.code == 2  # it exists
    assert "--force" in outcome.err


@pytest.mark.parametrize(
    ("options", "remedy"),
    [(("--save", "w.pt"), "--try --save w.pt"), (("--try", "--save", "w.npz"), "--save w.safetensors")],
)
def test_weights_that_cannot_be_saved_are_refused_at_once(hessdiag, options, remedy):
    outcome = hessdiag("check", "nowhere.py:setup", *options)
    assert outcome.code == 2
    assert f"try: {remedy}" in outcome.err


def test_a_cure_that_changes_no_weights_saves_none(hessdiag, script, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT.replace("-9.0", "0.0"))
    outcome = hessdiag("check", script, "--optimizer", "sgd", "--lr", 1e-7, "--try", "--save", "w.pt")
    assert outcome.code == 0
    assert "nothing was saved: " in outcome.err
    assert not (tmp_path / "w.pt").exists()
