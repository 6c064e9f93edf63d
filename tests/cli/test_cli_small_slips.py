"""Slips of a first-time user: each ends in one clear line, before anything costly, and leaves stdout clean."""

import json

import pytest

from hessdiag.problem import load

MODEL = "builtin:mlp(depth=2, width=3)"


def test_what_the_users_code_prints_is_kept_out_of_the_answer(hessdiag, tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nprint('imported')\ndef build():\n    print('built')\n    return torch.nn.Linear(2, 2)\n"
    )
    outcome = hessdiag("diag-share", "net.py:build", "--json", "--device", "cpu")
    assert outcome.code == 0
    assert json.loads(outcome.out)["result"]["parameters"] == 6
    assert "imported\nbuilt\n" in outcome.err


@pytest.mark.parametrize("command", [("diag-share", MODEL), ("vanishing", "--depth", "2")])
@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_that_no_generator_takes(hessdiag, command, seed):
    outcome = hessdiag(*command, "--seed", seed)
    assert outcome.code == 2
    assert "invalid value for '--seed'" in outcome.err


def test_the_largest_seed_works(hessdiag):
    assert hessdiag("diag-share", MODEL, "--device", "cpu", "--seed", 2**32 - 1).code == 0
    assert hessdiag("vanishing", "--depth", 2, "--width", 2, "--seeds", 2, "--seed", 2**32 - 1).code == 0


def test_every_spec_is_read_before_the_first_is_measured(hessdiag, monkeypatch):
    monkeypatch.setattr(load, "load_problem", lambda request, shared: pytest.fail("measured"))
    outcome = hessdiag("diag-share", MODEL, "mlp")
    assert outcome.code == 2
    assert "'mlp' is a bare word" in outcome.err


@pytest.mark.parametrize("args", [("ls", "lossess"), ("completion",)])
def test_a_wrong_word_takes_two_lines(hessdiag, args):
    outcome = hessdiag(*args)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2


def test_without_torch_a_computation_says_so(hessdiag, monkeypatch):
    def missing(request, shared):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(load, "load_problem", missing)
    outcome = hessdiag("diag-share", MODEL)
    assert outcome.code == 3
    assert outcome.err == "error: this command computes, and torch is not installed.\n  try: pip install torch\n"
