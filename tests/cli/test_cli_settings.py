"""Where values come from: command line, environment, named file, found file, default; and `--print-config`, which says so."""

import json
import sys
from itertools import combinations

import click
import pytest

from hessdiag.cli.main import COMMANDS, cli
from hessdiag.cli.settings.environment import variable_of, variables
from hessdiag.cli.settings.keys import ASIDE, key, options
from tests.cli.commands import SETTABLE, sample, typed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODEL = "builtin:lenet"
LEVELS = {"command line": 1, "environment": 2, "named file": 3, "found file": 4}


def set_at(level, monkeypatch, tmp_path):
    """Set --seed at a level; returns what that adds to the command line."""
    seed = LEVELS[level]
    if level == "command line":
        return ["--seed", str(seed)]
    if level == "environment":
        monkeypatch.setenv("HESSDIAG_SEED", str(seed))
        return []
    name = {"named file": "named.toml", "found file": "hessdiag.toml"}[level]
    (tmp_path / name).write_text(f"[problem]\nseed = {seed}\n")
    return ["--config", name] if level == "named file" else []


@pytest.mark.parametrize("levels", [some for n in range(5) for some in combinations(LEVELS, n)], ids=" over ".join)
def test_each_level_wins_over_those_below(hessdiag, fake, monkeypatch, tmp_path, levels):
    args = [one for level in levels for one in set_at(level, monkeypatch, tmp_path)]
    assert hessdiag("diag-share", MODEL, *args).code == 0
    assert fake.requests[0].seed == (LEVELS[levels[0]] if levels else 0)
    shown = hessdiag("diag-share", MODEL, *args, "--print-config").out
    (line,) = [line for line in shown.splitlines() if line.startswith("seed = ")]
    assert line.partition("# ")[2].startswith(levels[0] if levels else "default")


def test_levels_are_laid_over_each_other_option_by_option(hessdiag, fake, monkeypatch, tmp_path):
    (tmp_path / "hessdiag.toml").write_text("[problem]\nbatch_size = 4\ndtype = 'float32'\n[diag-share]\nrows = 7\n")
    (tmp_path / "named.toml").write_text("[problem]\ndtype = 'float64'\ndata = 'x.npz'\n")
    monkeypatch.setenv("HESSDIAG_TRAIN_MODE", "yes")
    assert hessdiag("diag-share", MODEL, "--config", "named.toml").code == 0
    request = fake.requests[0]
    assert (request.batch_size, request.dtype, request.data, request.train_mode) == (4, "float64", "x.npz", True)
    assert fake.calls[0]["rows"] == 7


def test_a_named_file_that_is_the_found_one_is_read_once_and_whole(hessdiag, fake, tmp_path):
    (tmp_path / "hessdiag.toml").write_text("[problem]\ndata = 'x.npz'\n")
    outcome = hessdiag("diag-share", MODEL, "--config", tmp_path / "hessdiag.toml")
    assert (fake.requests[0].data, "left out" in outcome.err) == ("x.npz", False)


def test_the_variable_of_one_command_wins_over_that_of_all(hessdiag, fake, monkeypatch):
    monkeypatch.setenv("HESSDIAG_ROWS", "5")
    monkeypatch.setenv("HESSDIAG_DIAG_SHARE_ROWS", "all")
    monkeypatch.setenv("HESSDIAG_EIGS_TOL", "nonsense for another command")
    monkeypatch.setenv("HESSDIAG_SEED", "  ")
    outcome = hessdiag("diag-share", MODEL, "--no-progress")
    assert (fake.calls[0]["rows"], outcome.err) == ("all", "")


def test_repeated_options_take_several_words(hessdiag, monkeypatch):
    monkeypatch.setenv("HESSDIAG_NORM", "uniform, adagrad")
    assert 'norm = ["uniform", "adagrad"]' in hessdiag("trust-radius", MODEL, "--print-config").out


@pytest.mark.parametrize(
    ("name", "near"),
    [("HESSDIAG_SEDE", "HESSDIAG_SEED"), ("HESSDIAG_EIGS_TOLL", "HESSDIAG_EIGS_TOL"), ("HESSDIAG_XYZZY_9", None)],
)
def test_a_variable_that_sets_nothing_is_said(hessdiag, fake, monkeypatch, name, near):
    monkeypatch.setenv(name, "1")
    outcome = hessdiag("diag-share", MODEL, "--no-progress")
    assert outcome.code == 0
    assert outcome.err.startswith(f"{name} in the environment sets nothing.")
    assert near is None or f"Did you mean {near}?" in outcome.err


@pytest.mark.parametrize("name", ["DATA", "MODEL", "OUTPUT", "FORCE", "FAIL_IF", "ALLOW_INEXACT", "CONFIG", "RESUME"])
def test_the_environment_names_no_code_no_file_and_forgives_nothing(hessdiag, fake, monkeypatch, tmp_path, name):
    monkeypatch.setenv(f"HESSDIAG_{name}", str(tmp_path / "evil.json"))
    outcome = hessdiag("diag-share", MODEL)
    assert (outcome.code, list(tmp_path.iterdir())) == (0, [])
    assert (fake.requests[0].data, fake.requests[0].model) == (None, MODEL)
    assert f"HESSDIAG_{name}" in outcome.err


@pytest.mark.parametrize("name", ["HESSDIAG_TRUST_CODE", "HESSDIAG_DIAG_SHARE_TRUST_CODE"])
def test_trust_is_no_matter_of_the_environment(hessdiag, fake, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    outcome = hessdiag("diag-share", MODEL)
    assert (outcome.code, fake.requests) == (2, [])
    assert name in outcome.err


def test_a_wrong_value_is_said_with_its_variable(hessdiag, fake, monkeypatch):
    monkeypatch.setenv("HESSDIAG_DTYPE", "float46")
    outcome = hessdiag("diag-share", MODEL)
    assert outcome.code == 2
    assert outcome.err.startswith("error: HESSDIAG_DTYPE: 'float46' is not one of")


def test_no_variable_means_two_things():
    group = click.Context(cli)
    found = [
        variable_of(name, command)
        for command in COMMANDS
        for name in options(cli.get_command(group, command))
    ]  # fmt: skip
    shared = {variable_of(name) for command in COMMANDS for name in options(cli.get_command(group, command))}
    assert len(found) == len(set(found))
    assert not shared & set(found)
    assert variables({name: cli.get_command(group, name) for name in COMMANDS}) == shared | set(found)


@pytest.mark.parametrize("command", SETTABLE)
def test_what_is_printed_says_the_same_when_it_is_read(hessdiag, tmp_path, command):
    """Every option away from its default, through a file, and back."""
    own = cli.get_command(click.Context(cli), command)
    kinds = [one for one in options(own).values() if one.name != "trust_code"]
    args = [command, *SETTABLE[command], *(word for one in kinds for word in typed(one, sample(one)))]
    first = hessdiag(*args, "--print-config")
    assert (first.code, first.err) == (0, "")
    said = tomllib.loads(first.out)
    assert set(said) <= {"problem", command}
    given = {name for table in said.values() for name in table} - {"model"}
    assert given == {key(one) for one in kinds}, "every option has its line"
    assert first.out.count("# command line") >= len(kinds)
    (tmp_path / "c.toml").write_text(first.out, "utf-8")
    arguments = [] if "problem" in said else SETTABLE[command]
    again = hessdiag(command, *arguments, "--config", "c.toml", "--print-config")
    assert again.code == 0, again.err
    assert tomllib.loads(again.out) == said
    assert again.out.count("# named file, c.toml") >= len(kinds)


@pytest.mark.parametrize("command", SETTABLE)
def test_defaults_are_said_and_may_be_found(hessdiag, tmp_path, command):
    outcome = hessdiag(command, *SETTABLE[command], "--print-config")
    assert (outcome.code, outcome.err) == (0, "")
    (tmp_path / "hessdiag.toml").write_text(outcome.out.replace('model = "', '# model = "'), "utf-8")
    again = hessdiag(command, *SETTABLE[command], "--print-config")
    assert (again.code, again.err) == (0, ""), "nothing of it is left out"
    own = cli.get_command(click.Context(cli), command)
    assert all(f"{name} =" in again.out for name in options(own))
    assert not any(f"\n{name} =" in again.out or f"# {name} =" in again.out for name in ASIDE)


def test_names_that_no_toml_has_as_they_are(hessdiag):
    name = 'a"b\\c\u202e\U0001f600\x7f.npz'
    shown = hessdiag("diag-share", MODEL, "--data", name, "--print-config")
    assert tomllib.loads(shown.out)["problem"]["data"] == name
    assert "\u202e" not in shown.out


def test_the_recorded_command_line_measures_the_same_by_itself(hessdiag, tmp_path, monkeypatch):
    (tmp_path / "hessdiag.toml").write_text("[chain]\nlength = 4\nformat = 'json'\n")
    (tmp_path / "c.toml").write_text("[chain]\ndistribution = 'normal'\n")
    monkeypatch.setenv("HESSDIAG_SEEDS", "20")
    first = json.loads(hessdiag("chain", "--seed", "3", "--config", "c.toml").out)
    argv = first["provenance"]["argv"]
    assert argv == ["hessdiag", "chain", "--length", "4", "--seeds", "20", "--seed", "3", "--config", "c.toml"]
    monkeypatch.delenv("HESSDIAG_SEEDS")
    (tmp_path / "hessdiag.toml").unlink()
    assert json.loads(hessdiag(*argv[1:], "--json").out)["result"] == first["result"]


def test_a_trajectory_is_said_and_not_set(hessdiag):
    shown = hessdiag("diag-share", "a.pt", "b.pt", "--print-config")
    assert '# model = ["a.pt", "b.pt"]' in shown.out
    tomllib.loads(shown.out)


def test_files_that_are_weights_of_a_configured_model(hessdiag, tmp_path):
    (tmp_path / "c.toml").write_text("[problem]\nmodel = 'train.py:f'\n")
    shown = hessdiag("diag-share", "w.pt", "--config", "c.toml", "--print-config").out
    assert tomllib.loads(shown)["problem"]["weights"] == "w.pt"
    assert [line.partition("# ")[2] for line in shown.splitlines() if line.startswith(("model", "weights"))] == [
        "named file, c.toml",
        "command line",
    ]
