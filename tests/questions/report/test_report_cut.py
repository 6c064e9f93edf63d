"""What the budget ended is told for what it is: no failure of trust, and no whole answer either."""

import json
from dataclasses import replace

import pytest

import hessdiag as package
from hessdiag import compare, full_report
from hessdiag.machine import cost
from hessdiag.questions.pages import render
from hessdiag.questions.report import measure as measuring
from tests.questions.report.test_full_report import asked, problem, replaced

HEAD = "CUT BY THE BUDGET of 10 s: eigs, which had"


def ended(monkeypatch, **changed):
    """Let `eigs` of a report be ended by the budget, with other numbers in the place of some."""

    def stopped(problem, **options):
        try:
            cost.enter(1, 0.1)
        except KeyboardInterrupt:
            return replace(package.eigs(problem), status="interrupted", **changed)
        raise AssertionError("the clock did not strike")

    monkeypatch.setattr(measuring, "OVER", -1e3)
    asked(monkeypatch, "eigs", "forward", eigs=replaced("eigs", stopped))


@pytest.fixture
def cut(monkeypatch):
    """A report whose section `eigs` was ended by its budget."""
    ended(monkeypatch)
    return full_report(problem(), budget=10.0)


def test_what_the_budget_ended_is_told(cut):
    assert [one.command for one in cut.sections] == ["check", "eigs"]
    assert cut.status == "ok"
    assert [one.cut for one in cut.sections] == [False, True]
    assert cut.sections[1].whole_seconds >= cut.sections[1].seconds
    assert cut.sections[1].document["status"] == "interrupted"
    (said,) = [one for one in cut.findings if one.says.startswith("The budget ended eigs before its end")]
    assert said.remedy.startswith("hessdiag eigs MODEL")
    assert "the budget ended it after" in next(one.why for one in cut.left_out if one.command == "forward")


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_the_head_of_a_page_says_what_was_cut_and_what_finishes_it(cut, form):
    page = " ".join(render(cut, form, width=100).split())
    assert "NOT TRUSTWORTHY" not in page
    assert "INTERRUPTED" not in page
    head = page.partition(HEAD)[2]
    assert 0 < head.find("To the end: hessdiag eigs MODEL") < 150
    assert head.count("CUT BY THE BUDGET: these are the numbers as they stood then") == 1


def test_what_was_cut_is_read_back_and_rendered_alike(cut, tmp_path):
    cut.to_json()
    (tmp_path / "r.json").write_text(cut.to_json(), "utf-8")
    again = package.load(tmp_path / "r.json")
    assert again.sections[1].whole_seconds == cut.sections[1].whole_seconds
    assert render(again, "text") == render(cut, "text")
    whole = json.loads(cut.to_json())["result"]["sections"][0]
    assert "whole_seconds" not in whole


def test_it_ends_with_0_and_gates_on_what_was_cut_are_violated(hessdiag, monkeypatch):
    ended(monkeypatch)
    args = ("report", "builtin:mlp(width=5, depth=3)", "--budget", "10s", "--json")
    whole = hessdiag(*args)
    assert (whole.code, json.loads(whole.out)["status"]) == (0, "ok")
    assert hessdiag(*args, "--fail-if", "check.output.loss > 1e9").code == 0
    gated = hessdiag(*args, "--fail-if", "eigs.largest > 1e9")
    assert gated.code == 1
    assert "eigs.largest has no value" in gated.err


def test_a_failed_self_check_of_what_was_cut_is_one(hessdiag, monkeypatch):
    ended(monkeypatch, trusted=False)
    out = hessdiag("report", "builtin:mlp(width=5, depth=3)", "--budget", "10s")
    assert out.code == 4
    assert "NOT TRUSTWORTHY" in out.out
    assert "CUT BY THE BUDGET" in out.out


def test_a_comparison_says_which_report_is_a_part(cut, monkeypatch):
    monkeypatch.undo()
    asked(monkeypatch, "eigs", "forward")
    found = compare(full_report(problem(), budget=None, preset="full"), cut)
    assert [one.cut for one in found.runs] == [None, ("eigs",)]
    (said,) = [one for one in found.findings if one.says.startswith("Not all results are whole")]
    assert said.says == "Not all results are whole: result 2 (its budget ended eigs)."
    assert found.status == "ok"


@pytest.mark.parametrize(
    ("seconds", "done", "whole"),
    [(4.0, 0.5, 8.0), (4.0, 0.01, 4.0), (0.5, 0.01, 1.0), (0.5, 0.0, 1.0)],
    ids=["as it told", "too early to tell", "by its price", "it told nothing"],
)
def test_what_it_takes_to_the_end(seconds, done, whole):
    run = measuring._Run(measuring.Asking(problem(), ("MODEL",), None, None, 0, measuring.silent), 10.0, quick=False)
    answer = measuring.Answer(None, (), seconds, 1.0, done=done)
    assert run._whole(measuring.Chosen("eigs", 0, 1.0), answer) == whole
