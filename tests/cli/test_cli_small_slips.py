"""Slips of a first-time user: each ends in one clear line, before anything costly, and leaves stdout clean."""

import json
from importlib import import_module

import pytest

import hessdiag as package
from hessdiag.cli.main import COMMANDS, MEANT
from hessdiag.errors import SpecError
from hessdiag.problem import load
from tests.documents import document

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


@pytest.mark.parametrize(
    ("given", "meant"), [("--quiet", "--no-progress"), ("--cpu", "--device cpu"), ("--out", "--output")]
)
def test_an_option_of_other_programs_is_named_as_here(hessdiag, given, meant):
    outcome = hessdiag("eigs", MODEL, given)
    assert outcome.code == 2
    assert f"no such option '{given}'. Did you mean '{meant}'?" in outcome.err


def test_names_of_other_programs_are_none_of_ours():
    own = {
        name for module, _ in COMMANDS.values() for param in import_module(module).command.params for name in param.opts
    }
    assert not own & set(MEANT)
    assert own >= {meant.partition(" ")[0] for meant in MEANT.values()}


def test_a_wrong_option_is_said_by_the_first_of_several_processes(hessdiag, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        outcome = hessdiag("eigs", MODEL, "--epochs", 3)
        assert outcome.code == 2
        said.append(outcome.err)
    assert "no such option" in said[0]
    assert said[1] == ""
    monkeypatch.delenv("MASTER_ADDR")  # a rank that is left over, and alone
    assert "no such option" in hessdiag("eigs", MODEL, "--epochs", 3).err


@pytest.mark.parametrize(("gate", "quotes"), [("confidence", True), ("confidence > 70%", False)])
def test_what_is_no_gate_is_answered_with_one_of_the_command(hessdiag, gate, quotes):
    outcome = hessdiag("check", MODEL, "--fail-if", gate)
    assert outcome.code == 2
    assert "try: --fail-if 'confidence < 1e-3'" in outcome.err
    assert ("Without quotes a shell" in outcome.err) is quotes


def test_a_baseline_of_another_command_is_refused_before_anything_is_measured(hessdiag, monkeypatch, tmp_path):
    monkeypatch.setattr(load, "load_problem", lambda request, shared: pytest.fail("measured"))
    (tmp_path / "before.json").write_text(json.dumps(document("bounds")))
    outcome = hessdiag("eigs", MODEL, "--baseline", "before.json")
    assert outcome.code == 2
    assert "the baseline is a result of bounds, not of eigs" in outcome.err
    assert "try: hessdiag eigs ... -o baseline.json" in outcome.err


def test_a_number_of_a_log_is_no_gate_of_a_model_and_of_a_log_it_is(hessdiag, monkeypatch):
    monkeypatch.setattr(load, "load_problem", lambda request, shared: pytest.fail("measured"))
    outcome = hessdiag("report", MODEL, "--fail-if", "lambda_max.last > 1")
    assert outcome.code == 2
    assert (
        "a report of a model has no number 'lambda_max.last'; one of the log of a hessdiag.Monitor has" in outcome.err
    )
    assert "try: hessdiag report run.jsonl --fail-if 'lambda_max.last > 0'" in outcome.err


def test_a_report_of_several_processes_is_answered_with_what_works(monkeypatch):
    monkeypatch.setattr("hessdiag.machine.processes.together", lambda: True)
    with pytest.raises(SpecError, match="by the clock of one process") as caught:
        package.full_report(package.load_problem(MODEL))
    assert (
        caught.value.hint
        == "hessdiag report MODEL without torchrun, or each question by itself, as hessdiag eigs MODEL"
    )


def test_what_is_no_toml_is_answered_with_what_is(hessdiag, tmp_path):
    (tmp_path / "hessdiag.toml").write_text("[problem]\nseed = yes\n")
    outcome = hessdiag("eigs", MODEL)
    assert outcome.code == 2
    assert "try: a table and its keys, as `hessdiag init` writes in an empty folder" in outcome.err


def test_a_model_in_a_file_that_was_found_is_taken_where_the_file_is_named(hessdiag, tmp_path):
    (tmp_path / "hessdiag.toml").write_text(f"[problem]\nmodel = '{MODEL}'\n")
    outcome = hessdiag("eigs")
    assert outcome.code == 2
    assert "no MODEL was given: that of hessdiag.toml counts where the file is named." in outcome.err
    assert "try: hessdiag eigs --config hessdiag.toml" in outcome.err
    assert hessdiag("eigs", "--config", "hessdiag.toml", "--show-python").code == 0


def test_one_of_several_that_have_not_met_lets_the_first_speak(hessdiag, monkeypatch):
    done = []
    monkeypatch.setattr("hessdiag.cli.signals.as_usual", lambda: done.append("torchrun may end it"))
    monkeypatch.setattr("time.sleep", done.append)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    outcome = hessdiag("eigs", MODEL, "-o", "no/where.json")
    assert (outcome.code, outcome.err.count("error: ")) == (2, 1)
    assert done == ["torchrun may end it", 2.0]
