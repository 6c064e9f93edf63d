"""`hessdiag sharpness`: options, documents, gates, exit codes, interrupts."""

import json
from pathlib import Path
from shlex import split

import numpy as np
import pytest
import torch

from hessdiag import Problem, sharpness

SMALL = "builtin:mlp(width=4,depth=2)"
SCRIPT = """
import torch
calls = []
def setup():
    calls.append("setup")
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    return model, [(torch.randn(20, 3).double(), torch.randn(20, 2).double())], "mse"
def make(params):
    assert calls == ["setup"], "the script ran once"
    return torch.optim.RMSprop(params, lr=0.02, momentum=0.5, eps=1e-6)
"""


def test_the_answer_is_one_document_and_is_rendered_again(hessdiag):
    outcome = hessdiag("sharpness", SMALL, "--optimizer", "adam", "--lr", "0.01", "--json", "-o", "r.json")
    assert outcome.code == 0, outcome.err
    doc = json.loads(outcome.out)
    found = doc["result"]
    assert doc["command"] == "sharpness"
    assert found["optimizer"]["name"] == "Adam(lr=0.01, eps=1e-08)"
    assert {"threshold", "readings", "stable", "noise_scale", "noise_scale_stderr"} <= found.keys()
    assert [row["kind"] for row in found["readings"]] == [
        "lambda_max",
        "preconditioned",
        "directional",
        "critical",
        "adaptive",
    ]
    assert all({"kind", "value", "stderr", "ratio", "passes"} <= row.keys() for row in found["readings"])
    assert doc["provenance"]["cost"]["products"] >= found["hvps"]
    assert hessdiag("report", "r.json", "-o", "r.html").code == 0
    assert hessdiag("sharpness", SMALL, "--optimizer", "adam", "--lr", "0.01", "--baseline", "r.json").code == 0


def test_the_same_seed_gives_the_same_numbers(hessdiag):
    one, other = (json.loads(hessdiag("sharpness", SMALL, "--lr", "0.1", "--json").out)["result"] for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("--lr 0.1 --fail-if 'ratio > 1e9'", 0),
        ("--lr 0.1 --fail-if 'ratio > -1e9'", 1),
        ("--lr 1e6", 0),
        ("--optimizer nope", 2),
        ("--optimizer 'adam(beta=1)'", 2),
        ("--optimizer tr-rmsprop", 2),
        ("--lr -1", 2),
        ("--tol 2 --lr 0.1", 2),
        ("--optimizer nothing.py:make", 3),
    ],
)
def test_exit_codes(hessdiag, args, code):
    outcome = hessdiag("sharpness", SMALL, *split(args))
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ("sgd(lr=0)", "the learning rate of sgd is 0"),
        ("adam(lr=1e400)", "the learning rate of adam is inf"),
        ("sgd(lr=0.1,weight_decay=1e400)", "weight decay of sgd is not a finite number"),
        ("sparseadam", "cannot step on a gradient that is given to it: SparseAdam does not support dense gradients"),
        ("adahessian", "cannot step on a gradient that is given to it"),
    ],
)
def test_optimizers_at_which_nothing_can_be_measured_are_refused(hessdiag, optimizer, said):
    outcome = hessdiag("sharpness", SMALL, "--optimizer", optimizer)
    assert outcome.code == 2
    assert said in outcome.err


@pytest.mark.parametrize(
    ("optimizer", "why"),
    [("sgd(momentum=1.5)", "momentum is 1.5"), ("sgd(momentum=0.9,dampening=1)", "dampening is 1")],
)
def test_momentum_that_grows_by_itself_has_no_threshold(hessdiag, optimizer, why):
    found = json.loads(hessdiag("sharpness", SMALL, "--optimizer", optimizer, "--lr", "0.1", "--json").out)["result"]
    assert found["optimizer"]["constant"] is None
    assert any(note.startswith(why) for note in found["optimizer"]["notes"])


def test_what_is_done_is_said_before_it_is(hessdiag):
    first = hessdiag("sharpness", SMALL, "--lr", "0.1").err.splitlines()[0]
    assert first.startswith("32 parameters: largest eigenvalues, here and in the optimizer's metric")
    assert "at most 917 Hessian products" in first


def test_an_optimizer_of_the_users_script_is_made_where_the_model_was(hessdiag):
    Path("train.py").write_text(SCRIPT)
    outcome = hessdiag("sharpness", "train.py:setup", "--optimizer", "train.py:make", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["result"]
    assert found["optimizer"]["kind"] == "rmsprop"
    assert found["optimizer"]["constant"] == pytest.approx(3.0)  # 2 (1 + 0.5)
    assert found["threshold"] == pytest.approx(150.0)


@pytest.mark.parametrize("stage", ["lambda_max", "adaptive"])
def test_an_interrupt_is_answered_by_a_document(hessdiag, monkeypatch, stage):
    def interrupted(here):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"hessdiag.questions.sharpness.readings.{stage}", interrupted)
    outcome = hessdiag("sharpness", SMALL, "--lr", "0.1", "-o", "r.json")
    assert outcome.code == 130
    assert ("nothing can be said" in outcome.out) is (stage == "lambda_max")
    assert hessdiag("report", "r.json").out == outcome.out, "it is valid"
    assert json.loads(Path("r.json").read_text())["status"] == "interrupted"


TRAINED = """
import torch
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
def make(model):
    one, other = model[0], model[2]
    groups = [{"params": [other.weight, one.weight], "weight_decay": 0.01}, {"params": [one.bias, other.bias], "lr": 3e-3}]
    return torch.optim.Adam(groups, lr=1e-3)
"""


def test_the_state_of_a_checkpoint_gives_the_numbers_of_the_live_optimizer(hessdiag):
    """In groups that are in no order of the model's, and differ in learning rate and decay."""
    script = {}
    exec(TRAINED, script)
    Path("trained.py").write_text(TRAINED)
    torch.manual_seed(1)
    x, y, model = torch.randn(40, 3).double(), torch.randn(40, 2).double(), script["model"]()
    adam = script["make"](model)
    for _ in range(30):
        adam.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        adam.step()
    torch.save({"model": model.state_dict(), "optimizer": adam.state_dict()}, "ckpt.pt")
    np.savez("batch.npz", x=x.numpy(), y=y.numpy())
    live = sharpness(Problem(model, data=[(x, y)], loss="mse"), optimizer=adam)
    words = "trained.py:model --weights ckpt.pt#model --data batch.npz --loss mse --optimizer trained.py:make"
    outcome = hessdiag("sharpness", *split(words), "--state", "ckpt.pt#optimizer", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["result"]
    assert found["optimizer"]["state"] == "checkpoint"
    assert found["ratio"] == pytest.approx(live.ratio, rel=1e-12)
    for row, one in zip(found["readings"], live.readings, strict=True):
        assert row["value"] == pytest.approx(one.value, rel=1e-12)
    refused = hessdiag("sharpness", *split(words.rpartition(" --optimizer")[0]), "--optimizer", "ckpt.pt#optimizer")
    assert refused.code == 3
    assert "--state" in refused.err
