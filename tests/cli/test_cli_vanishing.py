import json
from pathlib import Path

import pytest

NET = """
import torch
from torch import nn

print("built by the user's own code")
calls = []

def build(depth, width=4):
    calls.append(depth)
    assert len(calls) < 100
    layers = [nn.Linear(width, width, bias=False) for _ in range(depth)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1]).double()
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return "net.py:build(depth={depth})"


def test_a_users_function_is_measured_at_every_depth(hessdiag, net, tmp_path):
    outcome = hessdiag("vanishing", net, "--depth", 8, "--seeds", 3, "--init", "he_normal", "--json", "-o", "r.html")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("user's own code") == 1  # a script runs once, and what it prints is no answer
    assert "3 networks at depths 2, 4, 8" in outcome.err
    doc = json.loads(outcome.out)
    assert [entry["depth"] for entry in doc["result"]["depths"]] == [2, 4, 8]
    assert (doc["result"]["init"], doc["result"]["distribution"], doc["result"]["width"]) == (
        "he_normal",
        "normal",
        None,
    )
    assert (doc["problem"]["spec"], doc["problem"]["synthetic"], doc["theory"]) == (net, True, None)
    assert doc["provenance"]["kernels_forced"]
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "SYNTHETIC" in page
    assert "Layers of the deepest network" in page


def test_data_loss_and_several_depths(hessdiag, net, tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "batch.npz", x=rng.normal(size=(50, 4)), y=rng.integers(0, 4, 50))
    outcome = hessdiag("vanishing", net, "--depth", "3,5", "--seeds", 2, "--data", "batch.npz", "--batch", 7, "--json")
    doc = json.loads(outcome.out)
    assert [entry["depth"] for entry in doc["result"]["depths"]] == [3, 5]
    assert (doc["problem"]["loss"], doc["problem"]["samples"], doc["problem"]["synthetic"]) == ("ce", 7, False)
    text = hessdiag("vanishing", net, "--depth", "3,5", "--seeds", 2, "--data", "batch.npz").out
    assert "as the model draws its weights" in text
    assert hessdiag("vanishing", "--depth", "2,3", "--width", 2, "--seeds", 5, "--json").code == 0


def test_width_grows_with_depth(hessdiag):
    spec = "builtin:mlp(depth={depth}, width={depth})"
    doc = json.loads(hessdiag("vanishing", spec, "--depth", 8, "--seeds", 2, "--json").out)
    assert [(entry["depth"], entry["parameters"]) for entry in doc["result"]["depths"]] == [(2, 8), (4, 64), (8, 512)]
    assert doc["problem"]["spec"] == spec


def test_a_depth_that_fails_is_an_inexact_result(hessdiag, tmp_path):
    overflows = "    net[0].weight.data.mul_(1e300 if depth == 4 else 1.0)\n    return net\n"
    (tmp_path / "big.py").write_text(NET.replace("return nn.Sequential", "net = nn.Sequential") + overflows)
    command = ("vanishing", "big.py:build(depth={depth})", "--depth", 8, "--seeds", 2)
    outcome = hessdiag(*command, "-o", "r.json")
    assert outcome.code == 4
    assert "4 is missing" in outcome.out
    doc = json.loads((tmp_path / "r.json").read_text())
    assert (doc["status"], [entry["depth"] for entry in doc["result"]["depths"]]) == ("inexact", [2, 8])
    assert hessdiag(*command, "--allow-inexact").code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["net.py:build"], "'net.py:build(depth={depth})'"),
        (["net.py:build(width=3, depth=9)"], "'net.py:build(depth={depth}, width=3)'"),
        (["builtin:mlp(activation='tanh')"], "builtin:mlp(depth={depth}, activation="),
        (["builtin:chain(length=4)"], "'builtin:chain(length={depth})'"),
        (["builtin:lenet"], "'train.py:build(depth={depth})'"),
        (["model.pt"], "'train.py:build(depth={depth})'"),
        (["net.py:build(depth={depth})", "--width", "same"], "'builtin:mlp(depth={depth}, width={depth})'"),
        (["net.py:build(depth={depth})", "--width", "3"], "no --width"),
        (["--data", "batch.npz"], "--data needs a MODEL"),
        (["--trust-code"], "--trust-code needs a MODEL"),
        (["net.py:build(depth={depth}"], "is not NAME"),
        (["net.py:build(depth={depth})", "--depth", "0"], "'--depth'"),
        (["net.py:build(depth={depth})", "--distribution", "normal"], "--distribution changes an initialization"),
    ],
)
def test_slips_are_answered(hessdiag, net, arguments, says):
    outcome = hessdiag("vanishing", *arguments)
    assert outcome.code == 2
    assert says in outcome.err


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        (["vanishing", "--depth", 8, "--width", 12, "--seeds", 6], "questions.vanishing.mlp_norms.hessian_norms2"),
        (
            ["vanishing", "net.py:build(depth={depth})", "--depth", 8, "--seeds", 3],
            "questions.vanishing.models.measure",
        ),
        (["forward", "--depth", 4, "--width", 6, "--seeds", 9, "--solve", "rms"], "questions.forward.norms._chunk"),
        (["forward", "net.py:build(depth=3)", "--seeds", 6], "questions.forward.model_norms._network"),
    ],
)
def test_an_interrupted_command_says_how_it_goes_on(hessdiag, net, monkeypatch, command, stage):
    import importlib

    whole = json.loads(hessdiag(*command, "--json").out)
    home, _, name = f"hessdiag.{stage}".rpartition(".")
    real, calls = getattr(importlib.import_module(home), name), []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(f"hessdiag.{stage}", interrupted)
        outcome = hessdiag(*command, "--resume", "kept here", "-o", "r.json")
    assert outcome.code == 130
    said, hint = outcome.err.splitlines()[-2:]
    assert said == "interrupted; finished pieces are kept."
    assert hint.startswith(f"  try: hessdiag {command[0]} ")
    assert hint.endswith("--resume 'kept here' -o r.json --force")
    resumed = hessdiag(*command, "--resume", "kept here", "-o", "r.json", "--force", "--json")
    assert resumed.code == 0
    assert "finished pieces are taken up" in resumed.err
    found = json.loads(resumed.out)
    assert found["provenance"]["resumed_pieces"] >= 2
    assert {key: found[key] for key in found if key != "provenance"} == {
        key: whole[key] for key in whole if key != "provenance"
    }
    assert hessdiag(*command, "--resume", "kept here", "--seed", 1).code == 2


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        (["vanishing", "--depth", 4, "--width", 6, "--seeds", 9], "questions.vanishing.norms._gradients"),
        (["vanishing", "net.py:build(depth={depth})", "--depth", 2], "questions.vanishing.models.measure"),
        (["forward", "--depth", 4, "--width", 6, "--seeds", 9], "questions.forward.norms._chunk"),
        (["forward", "net.py:build(depth=3)", "--seeds", 6], "questions.forward.model_norms._network"),
        (["blocks", "net.py:build(depth=3)"], "questions.blocks.exact._squares"),
    ],
)
def test_an_interrupt_before_anything_is_answered_by_a_document(hessdiag, net, monkeypatch, command, stage):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"hessdiag.{stage}", interrupted)
    outcome = hessdiag(*command, "-o", "r.json")
    assert outcome.code == 130
    assert "nothing can be said" in outcome.out
    assert hessdiag("report", "r.json").out == outcome.out, "it is valid"
    assert json.loads(Path("r.json").read_text())["status"] == "interrupted"
