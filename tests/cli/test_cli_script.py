"""`--show-python`: scripts that give the numbers of the command, for every command, with every option in them."""

import inspect
import json
import math
import subprocess
import sys

import click
import pytest

import hessdiag as package
from hessdiag.cli.config import PROBLEM_KEYS
from hessdiag.cli.script.script import REQUEST
from hessdiag.cli.script.signature import signature
from hessdiag.questions.registry import QUESTIONS
from hessdiag.report.document import dumps
from tests.cli.commands import SETTABLE, options_of, sample, typed
from tests.documents import HERE, document

SMALL = "builtin:mlp(depth=3, width=3)"
FUNCTIONS = [(asked.name, name) for asked in QUESTIONS for name in asked.public if name.islower()]

USER = """
import torch

def build(width=3, depth=2):
    sizes = [3] + [width] * (depth - 1) + [2]
    layers = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
    return torch.nn.Sequential(*layers).double()

def data():
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(8, 3)
    return [(x[:4], torch.tensor([0, 1, 0, 1])), (x[4:], torch.tensor([1, 1, 0, 0]))]

def optimizer(parameters):
    return torch.optim.Adam(parameters, lr=0.01)
"""
USER_OPTIONS = ["--data", "train.py:data", "--loss", "ce"]
LINES = [
    ["check", SMALL, "--optimizer", "sgd(momentum=0.5)", "--lr", "0.1", "--try"],
    ["diag-share", "train.py:build(width=4)", *USER_OPTIONS, "--batches", "all", "--rows", "5", "--seed", "3"],
    ["diag-share", "train.py:build(width=4)", "train.py:build(width=5)", *USER_OPTIONS, "--resume", "kept"],
    ["eigs", "train.py:build", *USER_OPTIONS, "--lowest", "1", "--metric", "train.py:optimizer"],
    ["eigs", "train.py:build", "--weights", "c.pt#model", *USER_OPTIONS, "--metric", "adam", "--state", "c.pt#optimizer"],
    ["spectrum", SMALL, "--operator", "ggn", "--probes", "3", "--dtype", "float32"],
    ["bounds", SMALL, "--layers", "*.weight", "--train-mode"],
    ["blocks", SMALL, "--by", "neuron"],
    ["blocks", SMALL, "--probes", "4", "--batch-size", "3"],
    ["precondition", SMALL, "--damping", "0.1", "--optimizer", "rmsprop"],
    ["trust-radius", SMALL, "--norm", "uniform", "--seed", "1"],
    ["sharpness", SMALL, "--optimizer", "adam", "--lr", "0.01"],
    ["forward", "--depth", "5", "--width", "4", "--seeds", "9", "--init", "he_normal", "--solve", "median"],
    ["forward", "train.py:build", *USER_OPTIONS, "--seeds", "5", "--init", "lecun", "--init", "orthogonal"],
    ["vanishing", "--depth", "4", "--width", "3", "--seeds", "4", "--distribution", "normal"],
    ["vanishing", "train.py:build(depth={depth})", *USER_OPTIONS, "--depth", "2,3", "--seeds", "2", "--batch", "3"],
    ["transfer", "train.py:build(width={width})", *USER_OPTIONS, "--widths", "3,5", "--seeds", "2", "--steps", "1"],
    ["transfer", "builtin:mlp(depth={depth}, width=3)", "--depths", "2,3", "--seeds", "2", "--optimizer", "adam"],
    ["chain", "--length", "4", "--seeds", "50", "--scale", "1.5", "--seed", "8"],
    ["escape", SMALL, "--lr", "0.1", "--seeds", "2", "--budget", "12"],
    ["escape", "train.py:build", *USER_OPTIONS, "--optimizer", "adam(lr=0.1)", "--init", "lecun", "--check", "12"],
    ["compare", str(HERE / "eigs.json"), str(HERE / "eigs-exact.json")],
]  # fmt: skip


def script_of(hessdiag, *args):
    outcome = hessdiag(*args, "--show-python")
    assert outcome.code == 0, outcome.err
    return outcome.out


def run(script):
    names = {"__name__": "__main__"}
    exec(compile(script, "script.py", "exec"), names)
    return json.loads(names["result"].to_json())


def differences(one, other, path=""):
    """Where two documents differ: by more than rounding goes with where in memory numbers lie, and but for what time decides."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        keys = [key for key in one if "seconds" not in key and key != "flow"]
        return [found for key in keys for found in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [found for index, held in enumerate(one) for found in differences(held, other[index], f"{path}.{index}")]
    alike = (
        isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-13)
    )
    return [] if one == other or alike else [(path, one, other)]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_the_script_gives_the_numbers_of_the_command(hessdiag, tmp_path, line):
    import torch

    (tmp_path / "train.py").write_text(USER)
    if "c.pt#model" in line:
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)).double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        model(torch.ones(1, 3).double()).sum().backward()
        optimizer.step()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "c.pt")
    outcome = hessdiag(*line, "--json", "--no-progress")
    assert outcome.code in (0, 1, 4), outcome.err
    asked, command = script_of(hessdiag, *line), json.loads(outcome.out)
    if "--resume" in line:
        asked = asked.replace("kept", "others")
    found = run(asked)
    for part in ("status", "result", "theory", "checks", "thresholds"):
        assert differences(found[part], command[part]) == []
    assert [one["says"] for one in found["verdict"]] == [one["says"] for one in command["verdict"]]


def test_every_question_has_such_a_line():
    others = {"report", "compare"}  # what a report asks follows from measured times; of results see below
    assert {line[0] for line in LINES} | others == {asked.name for asked in QUESTIONS if asked.name in SETTABLE}


def test_it_runs_by_itself_prints_the_verdict_and_writes_the_file(hessdiag, tmp_path):
    script = script_of(hessdiag, "chain", "--seeds", "20", "-o", "r.html")
    (tmp_path / "s.py").write_text(script, "utf-8")
    done = subprocess.run([sys.executable, "s.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("ok: ", "note: ", "warn: ", "bad: "))
    assert (tmp_path / "r.html").read_text("utf-8").startswith("<!doctype html>")


def test_a_saved_result_is_read(hessdiag, tmp_path):
    (tmp_path / "r.json").write_text(dumps(document("eigs")), "utf-8")
    script = script_of(hessdiag, "report", "r.json", "--format", "markdown", "-o", "r.md")
    run(script)
    assert (tmp_path / "r.md").read_text("utf-8").startswith("#")


def test_saved_results_are_compared(hessdiag, tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(dumps(document("eigs")), "utf-8")
    line = ("compare", "a.json", "b.json", "--by-step")
    assert 'hessdiag.compare("a.json", "b.json", by_step=True)' in script_of(hessdiag, *line)
    found, command = run(script_of(hessdiag, *line[:3])), json.loads(hessdiag(*line[:3], "--json").out)
    assert differences(found["result"], command["result"]) == []


@pytest.mark.parametrize("command", SETTABLE)
def test_every_option_leaves_a_trace(hessdiag, command):
    """As an argument, as a line that prints or writes, or as what the command line alone has."""
    for option in options_of(command).values():
        args = arguments(command, option)
        changed = body(script_of(hessdiag, *args, *typed(option, sample(option))))
        assert changed != body(script_of(hessdiag, *args)), option.name


def arguments(command, option):
    """With which the option makes sense: some are of networks that are made up, of one kind of size, or of an optimizer."""
    if command in ("forward", "vanishing") and option.name in ("depth", "width", "activation"):
        return [command]
    if option.name == "depths":
        return [command, "train.py:f(depth={depth})"]
    if option.name == "check":
        return [command, *SETTABLE[command], "--optimizer", "adam"]
    others = [one for one in ("optimizer", "metric") if option.name == "state" and one in options_of(command)]
    return [command, *SETTABLE[command], *(f"--{one}=adam" for one in others)]


def body(script):
    assert script.startswith("# What this does: ")
    return script.partition("\n")[2]


@pytest.mark.parametrize("command", SETTABLE)
def test_it_is_formatted_as_ruff_does(hessdiag, tmp_path, command):
    quoted = ["--data", """a "b" c's""", "--loss", "losses.py:" + "f" * 70]
    everything = [
        word
        for option in options_of(command).values()
        if arguments(command, option) == [command, *SETTABLE[command]]
        for word in typed(option, sample(option))
    ]
    for index, more in enumerate(([], quoted if "data" in options_of(command) else [], everything)):
        script = script_of(hessdiag, command, *SETTABLE[command], *more)
        (tmp_path / f"{index}.py").write_text(script, "utf-8")
    for check in (["format", "--diff"], ["check", "--select", "E,F,I,W,UP", "--ignore", "E501"]):
        done = subprocess.run(
            ["ruff", check[0], "--isolated", *check[1:], str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("command", "function"), FUNCTIONS)
def test_options_and_parameters_agree(command, function):
    """Signatures are read rightly from the sources, and an option that is left out means what a parameter's default does."""
    takes = inspect.signature(getattr(package, function)).parameters
    named = {name: one for name, one in takes.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}
    found = signature(function)
    assert found.names == set(named)
    first = [name for name in takes if name not in named][:1]
    assert [found.first] == (first or [None])
    if command not in SETTABLE:
        return
    for option in options_of(command).values():
        default = None if option.is_flag else option.default
        if option.name in named and isinstance(default, int | float | str):
            assert default == named[option.name].default, option.name


def test_fields_of_requests_are_those_of_options():
    others = {"samples", "broken_loss"}  # of commands that build networks anew, and of `check`
    assert {*REQUEST} | others == set(inspect.signature(package.ProblemRequest).parameters)
    assert set(PROBLEM_KEYS) < set(REQUEST)


def test_without_a_model_there_is_no_script(hessdiag):
    outcome = hessdiag("eigs", "--show-python")
    assert (outcome.code, outcome.out) == (2, "")
    assert "no MODEL was given" in outcome.err


def test_settings_from_elsewhere_are_in_it(hessdiag, tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text("[problem]\nmodel = 'train.py:f'\ndata = 'b.npz'\n[eigs]\ntol = 0.5\n")
    monkeypatch.setenv("HESSDIAG_SEED", "9")
    script = script_of(hessdiag, "eigs", "w.pt", "--config", "c.toml")
    assert 'hessdiag.ProblemRequest("train.py:f", data="b.npz", seed=9, weights="w.pt")' in " ".join(
        script.split()
    ).replace("( ", "(").replace(" )", ")")
    assert "hessdiag.eigs(problem, seed=9, tol=0.5)" in script
    assert script.startswith("# What this does: HESSDIAG_SEED=9 hessdiag eigs w.pt --config c.toml\n")
    assert "HESSDIAG" not in script_of(hessdiag, "eigs", "w.pt", "--config", "c.toml", "--seed", "3")


def test_made_up_networks_win_over_a_configured_model(hessdiag, tmp_path):
    (tmp_path / "c.toml").write_text("[problem]\nmodel = 'train.py:f'\n")
    assert "hessdiag.forward(depth=5)" in script_of(hessdiag, "forward", "--depth", "5", "--config", "c.toml")
    assert "hessdiag.forward_model(problem)" in script_of(hessdiag, "forward", "--config", "c.toml")


def test_help_says_so():
    group = click.Context(package_cli())
    for command in SETTABLE:
        text = group.command.get_command(group, command).get_help(
            click.Context(group.command.get_command(group, command))
        )
        assert "--show-python" in text
        assert "--print-config" in text


def package_cli():
    from hessdiag.cli.main import cli

    return cli
