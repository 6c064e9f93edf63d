"""The command, and what is said of results that lack something."""

import json
from dataclasses import replace
from shlex import split

import pytest

from hessdiag.questions import documents
from hessdiag.questions.pages import render
from hessdiag.questions.precondition.result import Preconditioned
from hessdiag.questions.precondition.verdict import chosen, findings, with_frontier
from hessdiag.questions.precondition.view import view
from hessdiag.report.view import Curves, Table
from tests.documents import document

SMALL = "builtin:mlp(width=3,depth=2)"


def result(name="precondition"):
    return documents.read(document(name))


def row(name, held, condition, iterations=9):
    return Preconditioned(
        name=name, numbers_held=held, condition=condition, effective_dimension=3.0, cg_iterations=iterations
    )


def with_rows(*rows):
    return replace(result(), preconditioners=with_frontier(rows))


def said(found):
    return " ".join(finding.says for finding in findings(found))


def test_the_answer_is_one_document_and_is_rendered_again(hessdiag):
    outcome = hessdiag("precondition", SMALL, "--json", "-o", "r.json")
    assert outcome.code == 0, outcome.err
    doc = json.loads(outcome.out)
    assert doc["command"] == "precondition"
    keys = {"name", "numbers_held", "condition", "effective_dimension", "cg_iterations"}
    assert all(keys <= set(one) for one in doc["result"]["preconditioners"])
    assert [one["name"] for one in doc["result"]["preconditioners"]][:2] == ["none", "diagonal"]
    assert hessdiag("report", "r.json", "-o", "r.html").code == 0
    assert hessdiag("precondition", SMALL, "--baseline", "r.json").code == 0


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("--damping 0", 2),
        ("--tol 2", 2),
        ("--optimizer 'sgd(lr=0.1)'", 2),
        ("--optimizer rmsprop --fail-if 'preconditioners.0.condition < 1'", 0),
        ("--fail-if 'preconditioners.0.condition > 2'", 1),
    ],
)
def test_exit_codes(hessdiag, args, code):
    outcome = hessdiag("precondition", SMALL, *split(args))
    assert outcome.code == code, outcome.err


def test_the_cheapest_that_is_near_the_best_is_worth_its_memory():
    found = with_rows(
        row("none", 0, 101.0), row("adam", 10, 90.0), row("kfac", 50, 12.0, 4), row("blocks", 900, 10.0, 5)
    )
    assert chosen(found).name == "kfac"
    assert "K-FAC is worth its memory: the condition number falls from 101 to 12.0." in said(found)
    assert "A diagonal is not enough: the best, Adam's v, leaves 9.00 times" in said(found)
    assert "take 4 iterations with K-FAC, 9 without" in said(found)
    assert (
        "none (0 held, 101), Adam's v (10 held, 90.0), K-FAC (50 held, 12.0), layer blocks of H (900 held, 10.0)"
        in said(found)
    )
    assert view(found).headline[0] == "12.00"


def test_a_diagonal_that_is_enough_and_one_that_does_harm():
    enough = with_rows(row("none", 0, 101.0), row("adam", 10, 15.0), row("kfac", 50, 12.0))
    assert chosen(enough).name == "adam"
    assert "A diagonal is enough: Adam's v comes within 1.25 times the best" in said(enough)
    harm = with_rows(row("none", 0, 101.0), row("adam", 10, 300.0), row("kfac", 50, 12.0))
    assert "A diagonal does not help here" in said(harm)
    nothing = with_rows(row("none", 0, 101.0), row("adam", 10, 300.0), row("kfac", 50, 99.0))
    assert "No preconditioner is worth its memory here: the best, K-FAC, makes 99.0" in said(nothing)
    assert [one.name for one in nothing.preconditioners if one.frontier] == ["none", "kfac"]
    worse = with_rows(row("none", 0, 101.0), row("adam", 10, 300.0))
    assert "none makes the condition number of 101 smaller" in said(worse)
    gain = with_rows(row("none", 0, 20.0, 3), row("kfac", 50, 11.0))
    assert chosen(gain).name == "none"
    assert "the best, K-FAC, makes 11.0 of a condition number of 20.0" in said(gain)
    assert "gain nothing from any of them: 3 iterations without" in said(gain)


def test_intervals_that_overlap_leave_it_unsure():
    rows = [row("none", 0, 101.0), row("kfac", 50, 12.0)]
    apart = [replace(one, condition_interval=(0.9 * one.condition, 1.1 * one.condition)) for one in rows]
    assert "K-FAC is worth its memory" in said(with_rows(*apart))
    wide = [replace(one, condition_interval=(0.1 * one.condition, 9 * one.condition)) for one in rows]
    first = findings(with_rows(*wide))[0]
    assert first.says.startswith("K-FAC seems worth its memory")
    assert "their intervals overlap, 1.20 to 108 and 10.1 to 909" in first.because


def test_what_was_not_resolved_is_said():
    found = replace(result("precondition-lanczos"), unresolved=0.5, shift=0.1, unresolved_negative=0.2)
    warned = [finding for finding in findings(found) if finding.level == "warn"]
    assert "is not decided: negative eigenvalues down to -0.2" in warned[0].says
    assert "is worth its memory:" not in said(found)
    assert warned[0].remedy.startswith("--damping 0.04, which covers them") is (found.damping == 0.01)
    noted = replace(found, unresolved_negative=0.01)
    assert "eigenvalues below 0.5" in said(noted)
    assert "eigenvalues below" not in said(replace(noted, unresolved=0.01))


def test_what_is_shown_of_a_result():
    found = view(result())
    assert any(isinstance(block, Curves) for block in found.blocks)
    table = next(block for block in found.blocks if isinstance(block, Table))
    assert len(table.rows) == len(result().preconditioners) == 10
    early = replace(result(), preconditioners=(), largest=None)
    assert view(early).headline[1] == "interrupted before anything was measured"
    assert view(early).blocks == ()


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_an_interrupted_result_is_shown_with_what_it_has(kept):
    part = replace(result(), status="interrupted", preconditioners=result().preconditioners[:kept])
    assert "none" in render(part, "text")
    assert all("worth" not in finding.says for finding in findings(part)) or kept > 1


@pytest.mark.parametrize("missing", ["condition", "cg_iterations", "effective_dimension"])
def test_numbers_that_are_null_are_shown_as_missing(missing):
    rows = [replace(one, **{missing: None}) for one in result().preconditioners]
    part = replace(result(), preconditioners=tuple(rows))
    for form in ("text", "markdown", "html"):
        assert render(replace(part, findings=tuple(findings(part))), form)
