"""The command, and what a report shows of results that lack something."""

import json
from dataclasses import replace
from shlex import split

import pytest

from hessdiag.questions import documents
from hessdiag.questions.pages import render, view_of
from hessdiag.questions.trust_radius.verdict import findings
from hessdiag.questions.trust_radius.view import view
from hessdiag.report.view import Curves, Table
from tests.documents import document

SMALL = "builtin:mlp(width=4,depth=2)"


def result(name="trust-radius-kinks"):
    return documents.read(document(name))


def test_the_answer_is_one_document_and_is_rendered_again(hessdiag):
    outcome = hessdiag("trust-radius", SMALL, "--norm", "uniform", "--json", "-o", "r.json")
    assert outcome.code == 0, outcome.err
    doc = json.loads(outcome.out)
    assert doc["command"] == "trust-radius"
    assert [row["radius"] for row in doc["result"]["radii"]] == [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    assert hessdiag("report", "r.json", "-o", "r.html").code == 0
    assert hessdiag("trust-radius", SMALL, "--norm", "uniform", "--baseline", "r.json").code == 0


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("--norm sphere", 2),
        ("--norm uniform --fail-if 'trusted_radius.uniform < 1e-9'", 0),
        ("--norm uniform --fail-if 'trusted_radius.uniform < 1e9'", 1),
        ("--norm uniform --fail-if 'gates > 0'", 1),
    ],
)
def test_exit_codes(hessdiag, args, code):
    outcome = hessdiag("trust-radius", SMALL, *split(args))
    assert outcome.code == code, outcome.err


def test_kinks_are_named_with_their_numbers():
    found = result()
    trusted, held = found.trusted_radius["uniform"], found.trusted_radius_frozen_gates["uniform"]
    assert held > 2 * trusted
    first, second, *_ = findings(found)
    assert first.says.startswith("The Hessian tells the truth up to steps of rms 1.7e-4 (0.041 % of the weights')")
    assert "autograd's Hessian leaves out 56 % of the curvature" in second.says
    assert f"{held / trusted:.1f} times as far" in second.because
    same = replace(found, trusted_radius_frozen_gates={"uniform": 1.5 * trusted})
    assert "Kinks are not what limits it" in findings(same)[1].says
    nowhere = replace(found, trusted_radius={"uniform": 0.0})
    assert findings(nowhere)[0].level == "warn"
    far = replace(found, trusted_radius={"uniform": found.radii[-1].reach})
    assert any(finding.level == "ok" and "as far as steps were tried" in finding.says for finding in findings(far))


def test_gates_that_could_not_be_held_are_said():
    rows = tuple(replace(row, rho_frozen_gates=None, missing_share=None) for row in result().radii)
    found = replace(result(), radii=rows, unfrozen="no rule holds rnn_relu to a side", missing_share=None)
    found = replace(found, trusted_radius_frozen_gates={})
    assert any("could not be held" in finding.says and "rnn_relu" in finding.because for finding in findings(found))
    (chart, table) = view(found).blocks
    assert "gates held" not in table.columns
    assert [curve.name for curve in chart.panels[0].curves] == ["the ball"]


def test_the_page_has_rho_with_gates_free_and_held_and_the_band():
    blocks = view(result("trust-radius")).blocks
    chart, *tables = blocks
    assert isinstance(chart, Curves)
    rho, flipped = chart.panels
    assert rho.levels == (0.75, 1.25)
    assert not rho.log
    assert len(rho.curves) == 4  # of one batch Adagrad's ellipsoid is RMSprop's, and not shown again
    assert len(flipped.curves) == 2
    assert len(tables) == 2
    assert all(isinstance(table, Table) and len(table.rows) == 9 for table in tables)
    by_name = {curve.name: curve.y for curve in rho.curves}
    assert by_name["the ball, gates held"] == tuple(
        row.rho_frozen_gates for row in result("trust-radius").of("uniform")
    )
    several = view(replace(result("trust-radius"), gradients=2)).blocks
    assert len(several) == 4


def test_what_was_interrupted_before_anything_is_shown_as_that():
    empty = replace(result(), status="interrupted", radii=(), trusted_radius={}, trusted_radius_frozen_gates={})
    for form in ("text", "markdown", "html"):
        assert "interrupted before anything was measured" in render(empty, form)
    assert view_of(documents.document(empty)).blocks == ()


def test_what_is_below_rounding_is_no_number():
    rows = tuple(replace(row, rho=None, rho_frozen_gates=None) for row in result().radii)
    found = replace(result(), radii=rows, trusted_radius={"uniform": None}, trusted_radius_frozen_gates={})
    assert "below rounding" in findings(found)[0].says
    assert "below rounding" in render(found, "text", width=100)
