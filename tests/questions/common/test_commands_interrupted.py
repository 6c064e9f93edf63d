"""Commands on many networks that are interrupted: what they say, and that they go on."""

import json
from pathlib import Path

import pytest


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
        (["forward", "net.py:build(depth=3)", "--seeds", 6], "questions.forward.model.own_signal"),
        (["blocks", "net.py:build(depth=3)"], "questions.blocks.exact._squares"),
        (["blocks", "net.py:build(depth=3)", "--by", "layer", "--probes", 4], "questions.blocks.by.norms._sample"),
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
