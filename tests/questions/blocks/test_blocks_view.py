import math

import pytest
from report import example_documents

from hessdiag.questions.pages import render, view_of
from hessdiag.report.view import Heat, Table
from tests.shown import ruin


def heats(doc):
    return [block for block in view_of(doc).blocks if isinstance(block, Heat)]


def test_three_maps_share_one_scale_of_colours():
    maps = heats(example_documents.blocks(5))
    assert [chart.title for chart in maps] == ["Hessian", "Gauss-Newton part", "Residual"]
    scales = {chart.scale for chart in maps}
    (low, top) = scales.pop()
    assert not scales
    assert top == 0.55  # the largest of all entries
    assert low == pytest.approx(1.1 / 5 / 10)  # a decade below the Hessian's faintest, whatever rounding is in the rest


def test_without_a_split_there_is_one_map_and_with_one_layer_none():
    doc = example_documents.blocks(3, objective=True)
    assert [chart.title for chart in heats(doc)] == ["Hessian"]
    text = render(doc, "text")
    assert "Gauss-Newton" not in text
    assert "residual" not in text
    assert not heats(example_documents.blocks(1))


def test_many_layers_list_their_largest_blocks():
    chart = heats(example_documents.blocks(30, exact=True))[0]
    assert chart.table.columns == ("layer", "layer", "norm")
    assert len(chart.table.rows) == 20
    couplings = [block for block in view_of(example_documents.blocks(30)).blocks if isinstance(block, Table)][-1]
    assert len(couplings.rows) == 10
    assert couplings.rows[0][:2] == ("0.linear – 1.linear", "0.550 ± 0.028")


@pytest.mark.parametrize("exact", [True, False])
def test_the_certificate_and_the_bounds_are_named(exact):
    text = " ".join(render(example_documents.blocks(3, exact=exact), "text").split())
    assert ("certain: blocks.0.linear and blocks.1.linear" in text) is exact
    assert ("estimated" in text) is not exact
    assert "-1.500 to 2.100" in text


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 0.0, 1e-300, None])
def test_any_number_may_be_missing_or_absurd_in_figures(replacement):
    doc = example_documents.blocks(3)
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")


def test_a_page_of_128_layers_holds_six_matrices_and_little_else():
    assert len(render(example_documents.blocks(128), "html").encode()) < 6 * 128**2 * 25 + 500_000
