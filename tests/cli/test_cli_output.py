import json
import re

import pytest

MODEL = "builtin:lenet"


def test_json_is_alone_on_stdout(hessdiag, fake):
    outcome = hessdiag("diag-share", MODEL, "--json")
    doc = json.loads(outcome.out)
    assert doc["schema"] == "hessdiag/1"
    assert outcome.err == "10 parameters: all 10 rows\n"


def test_the_cost_is_said_on_stderr_and_can_be_silenced(hessdiag, fake):
    assert hessdiag("diag-share", MODEL, "--no-progress").err == ""


@pytest.mark.parametrize(
    ("form", "start"),
    [("text", "\n  How diagonal"), ("json", "{"), ("markdown", "## How"), ("html", "<!doctype html>")],
)
def test_formats(hessdiag, fake, form, start):
    assert hessdiag("diag-share", MODEL, "--format", form).out.startswith(start)


@pytest.mark.parametrize(
    ("name", "start"),
    [("r.json", "{"), ("r.md", "## "), ("r.HTML", "<!doctype"), ("r.htm", "<!doctype"), ("r.txt", "\n  How")],
)
def test_a_file_has_the_format_of_its_suffix_and_stdout_the_text(hessdiag, fake, tmp_path, name, start):
    outcome = hessdiag("diag-share", MODEL, "-o", name)
    assert outcome.code == 0
    assert (tmp_path / name).read_text("utf-8").startswith(start)
    assert outcome.out.startswith("\n  How diagonal")
    assert f"Wrote {name}" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_stdout_can_be_json_beside_a_page(hessdiag, fake, tmp_path):
    outcome = hessdiag("diag-share", MODEL, "-o", "r.html", "--json")
    assert json.loads(outcome.out)["command"] == "diag-share"
    assert (tmp_path / "r.html").read_text("utf-8").startswith("<!doctype html>")


def test_an_existing_file_is_kept_and_nothing_is_computed(hessdiag, fake, tmp_path):
    (tmp_path / "r.json").write_text("mine")
    outcome = hessdiag("diag-share", MODEL, "-o", "r.json")
    assert (outcome.code, fake.calls) == (2, [])
    assert "--force" in outcome.err
    assert (tmp_path / "r.json").read_text() == "mine"
    assert hessdiag("diag-share", MODEL, "-o", "r.json", "--force").code == 0
    assert json.loads((tmp_path / "r.json").read_text())["schema"] == "hessdiag/1"


@pytest.mark.parametrize(
    "args", [["-o", "no/folder/r.html"], ["--baseline", "gone.json"], ["--fail-if", "?"], ["--max-change", "x"]]
)
def test_bad_output_options_are_found_before_anything_is_computed(hessdiag, fake, args):
    assert hessdiag("diag-share", MODEL, *args).code in (2, 3)
    assert fake.calls == []


@pytest.mark.parametrize(
    ("environment", "choice", "coloured"),
    [
        ({}, "auto", False),
        ({"FORCE_COLOR": "1"}, "auto", True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "auto", False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, "auto", False),
        ({"NO_COLOR": "1"}, "always", True),
        ({"FORCE_COLOR": "1"}, "never", False),
    ],
)
def test_colour(hessdiag, fake, monkeypatch, environment, choice, coloured):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in hessdiag("diag-share", MODEL, "--color", choice).out) is coloured


def test_width_follows_columns(hessdiag, fake, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    widest = max(map(len, hessdiag("diag-share", MODEL).out.splitlines()))
    monkeypatch.setenv("COLUMNS", "108")
    assert widest <= 80 < max(map(len, hessdiag("diag-share", MODEL).out.splitlines())) <= 108


def test_provenance_is_an_allow_list(hessdiag, fake, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    out = hessdiag("diag-share", MODEL, "--json", "--seed", "3").out
    provenance = json.loads(out)["provenance"]
    assert set(provenance) == {
        "argv", "arithmetic", "started", "wall_seconds", "peak_memory_bytes",
        "versions", "platform", "device", "threads", "kernels_forced", "cost"
    }  # fmt: skip
    assert provenance["argv"] == ["hessdiag", "diag-share", MODEL, "--json", "--seed", "3"]
    assert provenance["wall_seconds"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", provenance["started"])
    assert "hunter2" not in out


def test_saved_results_are_rendered_again(hessdiag, fake, tmp_path):
    hessdiag("diag-share", MODEL, "-o", "r.json")
    original = hessdiag("diag-share", MODEL).out
    assert hessdiag("report", "r.json").out == original
    assert hessdiag("report", "r.json", "-o", "r.html").code == 0
    assert (tmp_path / "r.html").read_text("utf-8").startswith("<!doctype html>")
    assert hessdiag("report", "r.json", "--json").out == (tmp_path / "r.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("content", "said"), [("", "not JSON"), ('{"schema": "x"}', "schema"), ("\x00\xff", "not JSON")]
)
def test_files_that_are_no_result_are_refused_in_one_line(hessdiag, tmp_path, content, said):
    (tmp_path / "r.json").write_text(content, "utf-8")
    outcome = hessdiag("report", "r.json")
    assert outcome.code == 3
    assert outcome.err.startswith("error: r.json: ")
    assert said in outcome.err
