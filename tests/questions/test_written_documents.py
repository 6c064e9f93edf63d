"""Documents that commands really write are as their descriptions say, whole and interrupted."""

import pytest

from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.questions.documents import loads
from hessdiag.questions.pages import render

MODEL = "builtin:mlp(depth=2, width=4)"
DEEP = "builtin:mlp(depth={depth}, width=4)"
RUNS = [
    ["diag-share", MODEL],
    ["diag-share", MODEL, "--rows", "12"],
    ["diag-share", MODEL, "builtin:mlp(depth=2, width=4, activation='tanh')"],
    ["eigs", MODEL],
    ["spectrum", MODEL],
    ["spectrum", MODEL, "--operator", "ggn"],
    ["bounds", MODEL],
    ["blocks", MODEL],
    ["blocks", MODEL, "--probes", "4"],
    ["forward", "--depth", "3", "--width", "4", "--seeds", "20", "--solve", "median", "--per-layer"],
    ["forward", MODEL, "--seeds", "3"],
    ["vanishing", "--depth", "4", "--width", "4", "--seeds", "6", "--hessian-seeds", "2"],
    ["vanishing", "--depth", "4", "--width", "same", "--seeds", "6", "--hessian-seeds", "2"],
    ["vanishing", DEEP, "--depth", "2", "--seeds", "2", "--hessian-seeds", "2"],
    ["chain", "--length", "1", "--seeds", "50"],
    ["chain", "--length", "5", "--seeds", "50"],
]


def shown(text):
    doc = loads(text)
    for form in ("text", "markdown"):
        assert render(doc, form)
    return doc


@pytest.mark.parametrize("args", RUNS, ids=" ".join)
def test_what_commands_write_is_read(hessdiag, args):
    outcome = hessdiag(*args, "--json", "--no-progress")
    assert outcome.code in (0, 4), outcome.err
    assert shown(outcome.out)["command"] == args[0]


@pytest.mark.parametrize("args", RUNS[:9], ids=" ".join)
@pytest.mark.parametrize("after", [0, 2, 5])
def test_what_interrupted_commands_write_is_read(hessdiag, monkeypatch, args, after):
    calls, product = [0], CurvatureOperator._pass

    def interrupted(self, *args):
        calls[0] += 1
        if calls[0] > after:
            raise KeyboardInterrupt
        return product(self, *args)

    monkeypatch.setattr(CurvatureOperator, "_pass", interrupted)
    outcome = hessdiag(*args, "--json", "--no-progress")
    assert outcome.code == (130 if calls[0] > after else 0), outcome.err
    if outcome.out:
        assert shown(outcome.out)["status"] in ("ok", "inexact", "interrupted")
