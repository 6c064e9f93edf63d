"""stdout and stderr that are full or closed; environments that say nonsense."""

import json

import pytest

from cli.bash import bash

MODEL = "builtin:lenet"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("hessdiag ls > /dev/full", 3, "error: cannot write to stdout: no space left on device."),
        ("hessdiag --help > /dev/full", 3, "error: cannot write to stdout: no space left on device."),
        ("hessdiag ls >&-", 3, "error: cannot write to stdout: bad file descriptor."),
        ("hessdiag ls inits 2>&-", 0, ""),
        ("hessdiag nope 2> /dev/full", 2, ""),
        ("hessdiag nope >&- 2>&- <&-", 2, ""),
        ("hessdiag ls | head -1; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)
def test_descriptors(tmp_path, line, code, said):
    outcome = bash(line, tmp_path)
    assert outcome.returncode == code
    assert outcome.stderr.startswith(said)
    assert len(outcome.stderr.splitlines()) == (2 if said else 0)


def test_what_is_opened_never_takes_the_number_of_a_closed_stream(tmp_path):
    (tmp_path / "r.py").write_text("import os\nos.write(1, b'noise')\n")
    outcome = bash("hessdiag init >&-", tmp_path)
    assert outcome.returncode == 0
    assert (tmp_path / "hessdiag.toml").read_text().startswith("# Defaults")


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "3"},
        {"RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"RANK": "x", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "many"},
        {"RANK": "1\x1b[31m", "WORLD_SIZE": "2"},
    ],
)
def test_a_leftover_rank_is_said_and_nothing_is_computed(hessdiag, fake, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = hessdiag("diag-share", MODEL)
    assert (outcome.code, outcome.out, fake.calls) == (2, "", [])
    assert outcome.err.startswith("error: the environment has ")
    assert "unset RANK" in outcome.err
    assert "\x1b" not in outcome.err


@pytest.mark.parametrize("columns", ["100000000", "0", "-5", "wide", "1", "9" * 5000])
def test_the_width_is_within_reason(hessdiag, fake, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    outcome = hessdiag("diag-share", MODEL)
    assert outcome.code == 0
    assert 30 <= max(map(len, outcome.out.splitlines())) <= 112


def test_json_for_an_encoding_without_unicode_is_the_same_document(tmp_path, hessdiag, fake):
    assert hessdiag("diag-share", MODEL, "-o", "r.json").code == 0
    doc = json.loads((tmp_path / "r.json").read_text("utf-8"))
    doc["problem"]["model"] = "Größe\u202e\x9b"
    (tmp_path / "r.json").write_text(json.dumps(doc))
    outcome = bash("hessdiag report r.json --json", tmp_path, PYTHONIOENCODING="ascii")
    assert json.loads(outcome.stdout)["problem"]["model"] == doc["problem"]["model"]
    assert outcome.stdout.isascii()


def test_a_folder_that_was_deleted_is_said(tmp_path):
    outcome = bash("mkdir d; cd d; rmdir ../d; hessdiag report gone.json", tmp_path)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: the current folder was deleted")
    assert bash("mkdir d; cd d; rmdir ../d; hessdiag ls inits", tmp_path).returncode == 0


@pytest.mark.parametrize("argument", ["x" * 5000, "\udcff.json", "a\nb\x1b[2J\u202e"])
def test_long_and_hostile_arguments_are_quoted_in_a_line(hessdiag, argument):
    outcome = hessdiag("report", argument)
    assert outcome.code in (2, 3)
    assert len(outcome.err.splitlines()) <= 2
    assert len(outcome.err) < 1000
    assert not set(outcome.err) & set("\x1b\u202e\udcff")
