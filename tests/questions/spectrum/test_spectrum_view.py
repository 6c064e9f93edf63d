import math

import pytest

from hessdiag.cli.gates import changes, parse, violations
from hessdiag.questions.pages import render, view_of
from hessdiag.questions.spectrum import view as spectrum
from hessdiag.report.view import Lines
from tests.documents import document
from tests.shown import ruin


def test_headline_numbers_and_gates():
    doc = document("spectrum")
    assert changes(doc, doc, 0.0) == []
    assert violations(doc["result"], [parse("negative_fraction > 0.1")])


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 0.0, 1e-300, None])
@pytest.mark.parametrize("exact", [False, True])
def test_any_number_may_be_missing_or_absurd_in_figures(exact, replacement):
    doc = document("spectrum-exact" if exact else "spectrum")
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")


def test_a_curve_ends_where_it_shows_nothing_but_its_own_smoothing():
    doc = document("spectrum")
    chart = next(block for block in view_of(doc).blocks if isinstance(block, Lines))
    converged = sum(one["converged"] for one in doc["result"]["outliers"])
    assert 0 < converged < len(doc["result"]["outliers"])
    density, marks, semicircle = chart.series
    floor = spectrum.FAINT * doc["result"]["density"]["one_eigenvalue"]
    assert all(value is None or value >= floor for value in density.values)
    assert None in density.values
    assert (marks.role, sum(value is not None for value in marks.values)) == ("points", converged)
    step = chart.x[1] - chart.x[0]
    ends = [x for x, value in zip(chart.x, semicircle.values, strict=True) if value is not None]
    assert ends[0] == pytest.approx(doc["theory"]["semicircle_low"], abs=1.1 * step)
    assert ends[-1] == pytest.approx(doc["theory"]["semicircle_high"], abs=1.1 * step)


def test_exact_numbers_have_no_error_bars():
    assert "±" not in render(document("spectrum-exact"), "text")
    assert "20 +, 12 −, 28 zero" in render(document("spectrum-exact"), "text")
    assert "0.680 % and 82.3 %" in render(document("spectrum"), "text")


def test_the_matrix_is_named():
    assert "Gauss-Newton matrix's eigenvalues" in render(document("spectrum-ggn"), "text")
