import math

import pytest

from hessdiag.questions.pages import render, view_of
from hessdiag.report.view import Heat, Table
from tests.documents import document, of_layers
from tests.shown import ruin


def heats(doc):
    return [block for block in view_of(doc).blocks if isinstance(block, Heat)]


def test_three_maps_share_one_scale_of_colours():
    doc = of_layers(document("blocks"), 5)
    maps = heats(doc)
    assert [chart.title for chart in maps] == ["Hessian", "Gauss-Newton part", "Residual"]
    scales = {chart.scale for chart in maps}
    (low, top) = scales.pop()
    assert not scales
    held = [doc["result"][part] for part in ("frobenius", "gauss_newton", "residual")]
    assert top == max(max(map(max, matrix)) for matrix in held)  # the largest of all entries
    assert low == pytest.approx(
        min(map(min, held[0])) / 10
    )  # a decade below the Hessian's faintest, whatever rounding is in the rest


def test_without_a_split_there_is_one_map_and_with_one_layer_none():
    doc = document("blocks-objective") | {"verdict": []}  # which says what a split would need
    assert [chart.title for chart in heats(doc)] == ["Hessian"]
    text = render(doc, "text")
    assert "Gauss-Newton" not in text
    assert "residual" not in text
    assert not heats(document("blocks-one"))


def test_many_layers_list_their_largest_blocks():
    chart = heats(of_layers(document("blocks-exact"), 30))[0]
    assert chart.table.columns == ("layer", "layer", "norm")
    assert len(chart.table.rows) == 20
    doc = of_layers(document("blocks"), 30)
    couplings = [block for block in view_of(doc).blocks if isinstance(block, Table)][-1]
    assert len(couplings.rows) == 10
    assert couplings.rows[0][:2] == ("2.linear – 5.linear", "0.186 ± 0.021")


@pytest.mark.parametrize("exact", [True, False])
def test_the_certificate_and_the_bounds_are_named(exact):
    text = " ".join(render(document("blocks-exact" if exact else "blocks"), "text").split())
    assert ("certain: blocks.1.linear and blocks.2.linear" in text) is exact
    assert ("estimated" in text) is not exact
    assert ("-0.2621 to 0.4038" if exact else "-0.2594 to 0.3687") in text


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 0.0, 1e-300, None])
def test_any_number_may_be_missing_or_absurd_in_figures(replacement):
    doc = document("blocks")
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")


def test_a_page_of_128_layers_holds_six_matrices_and_little_else():
    assert len(render(of_layers(document("blocks"), 128), "html").encode()) < 6 * 128**2 * 25 + 500_000
