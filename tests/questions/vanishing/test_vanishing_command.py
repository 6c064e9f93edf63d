import json

import pytest

from tests.questions.own_network import NET


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
