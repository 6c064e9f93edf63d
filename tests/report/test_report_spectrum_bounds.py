import math
import re
from pathlib import Path

import pytest

from hessdiag.cli.gates import changes, parse, violations
from hessdiag.questions.bounds import view as bounds
from hessdiag.questions.pages import render, view_of
from hessdiag.questions.spectrum import view as spectrum
from hessdiag.report.view import Dots, Lines, Table
from report import example_documents
from report.test_report_terminal import ruin

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["spectrum", "bounds"])
def test_text_is_as_it_was_looked_at(name):
    """To renew after looking at it: write the rendered text to the golden file."""
    assert render(getattr(example_documents, name)(), "text", width=100) == (GOLDEN / f"{name}.txt").read_text("utf-8")


@pytest.mark.parametrize("make", [example_documents.spectrum, example_documents.bounds])
def test_headline_numbers_exist(make):
    doc = make()
    assert changes(doc, doc, 0.0) == []


def test_gates_reach_into_both():
    assert violations(example_documents.spectrum()["result"], [parse("negative_fraction > 0.1")])
    assert violations(example_documents.bounds()["result"], [parse("gershgorin.1 > 8")])


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 0.0, 1e-300, None])
@pytest.mark.parametrize(
    "make",
    [
        example_documents.spectrum,
        lambda: example_documents.spectrum(exact=True),
        example_documents.bounds,
        lambda: example_documents.bounds(sketch=True),
    ],
)
def test_any_number_may_be_missing_or_absurd_in_figures(make, replacement):
    doc = make()
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")


def test_a_curve_ends_where_it_shows_nothing_but_its_own_smoothing():
    doc = example_documents.spectrum()
    chart = next(block for block in view_of(doc).blocks if isinstance(block, Lines))
    density, marks, semicircle = chart.series
    floor = spectrum.FAINT * doc["result"]["density"]["one_eigenvalue"]
    assert all(value is None or value >= floor for value in density.values)
    assert None in density.values
    assert (marks.role, sum(value is not None for value in marks.values)) == ("points", 3)
    ends = [x for x, value in zip(chart.x, semicircle.values, strict=True) if value is not None]
    assert ends[0] == pytest.approx(doc["theory"]["semicircle_low"], abs=0.011)
    assert ends[-1] == pytest.approx(doc["theory"]["semicircle_high"], abs=0.011)


def test_exact_numbers_have_no_error_bars():
    assert "±" not in render(example_documents.spectrum(exact=True), "text")
    assert "13 +, 10 −, 1 zero" in render(example_documents.spectrum(exact=True), "text")
    assert "35 % and 50 %" in re.sub(r"\.0+ %", " %", render(example_documents.spectrum(), "text"))


def test_the_matrix_is_named():
    assert "Gauss-Newton matrix's eigenvalues" in render(example_documents.spectrum(name="ggn"), "text")


def test_the_tightest_bound_is_the_headline():
    assert view_of(example_documents.bounds()).headline[0] == "-1.500 to 4.500"
    sketched = view_of(example_documents.bounds(sketch=True)).headline
    assert sketched[0] == "-4.500 to 8.000"
    assert "estimated" in sketched[1]


def test_bars_run_between_their_ends():
    chart = next(block for block in view_of(example_documents.bounds()).blocks if isinstance(block, Dots))
    assert chart.labels[:2] == ("measured", "Gershgorin")
    lower = next(series for series in chart.series if series.name == "bound, lower end")
    assert lower.values[0] is None
    assert (lower.values[1], lower.low[1], lower.high[1]) == (-5.0, -5.0, 9.0)


def test_without_measured_extremes_the_bounds_remain():
    doc = example_documents.bounds()
    doc["result"] |= {"measured": None, "measured_residuals": None, "measured_converged": None}
    assert "-1.500 to 4.500" in render(doc | {"status": "interrupted"}, "html")


@pytest.mark.parametrize(("count", "rows"), [(1, 0), (3, 3), (100, bounds.SHOWN)])
def test_groups_of_discs(count, rows):
    tables = [block for block in view_of(example_documents.bounds(count)).blocks if isinstance(block, Table)]
    assert sum(len(table.rows) for table in tables) == rows
    if rows == bounds.SHOWN:
        assert tables[0].rows[0][1] == "1"
        assert tables[0].rows[-1][1] == "100"
        assert "20 of 100" in tables[0].title
