import math

import pytest

from hessdiag.cli.gates import changes, parse, violations
from hessdiag.questions.bounds import view as bounds
from hessdiag.questions.pages import render, view_of
from hessdiag.report.view import Dots, Table
from tests.documents import document, of_layers
from tests.shown import ruin


def test_headline_numbers_and_gates():
    doc = document("bounds")
    assert changes(doc, doc, 0.0) == []
    assert violations(doc["result"], [parse("gershgorin.1 > 0.5")])


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 0.0, 1e-300, None])
@pytest.mark.parametrize("sketch", [False, True])
def test_any_number_may_be_missing_or_absurd_in_figures(sketch, replacement):
    doc = document("bounds-sketch" if sketch else "bounds")
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")


def test_the_tightest_bound_is_the_headline():
    assert view_of(document("bounds")).headline[0] == "-0.2108 to 0.2898"
    sketched = view_of(document("bounds-sketch")).headline
    assert sketched[0] == "-41.41 to 41.81"
    assert "estimated" in sketched[1]


def test_bars_run_between_their_ends():
    doc = document("bounds")
    low, high = doc["result"]["gershgorin"]
    chart = next(block for block in view_of(doc).blocks if isinstance(block, Dots))
    assert chart.labels[:2] == ("measured", "Gershgorin")
    lower = next(series for series in chart.series if series.name == "bound, lower end")
    assert lower.values[0] is None
    assert (lower.values[1], lower.low[1], lower.high[1]) == (low, low, high)


def test_without_measured_extremes_the_bounds_remain():
    doc = document("bounds", measured=None, measured_residuals=None, measured_converged=None)
    assert "-0.2108 to 0.2898" in render(doc | {"status": "interrupted"}, "html")


@pytest.mark.parametrize(("count", "rows"), [(1, 0), (3, 3), (100, bounds.SHOWN)])
def test_groups_of_discs(count, rows):
    tables = [block for block in view_of(of_layers(document("bounds"), count)).blocks if isinstance(block, Table)]
    assert sum(len(table.rows) for table in tables) == rows
    if rows == bounds.SHOWN:
        assert tables[0].rows[0][1] == "1"
        assert tables[0].rows[-1][1] == "100"
        assert "20 of 100" in tables[0].title
