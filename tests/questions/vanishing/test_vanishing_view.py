import math

import pytest
from report import example_documents

from hessdiag.questions.pages import render
from tests.shown import ruin


def test_empty_grid_and_empty_rates_are_rendered():
    doc = example_documents.vanishing()
    doc["result"] |= {"rates": {}, "layers": [], "agreement": []}
    assert "Rates per layer" not in render(doc, "text")
    doc["result"] |= {"depths": []}
    assert "no depth was finished" in render(doc, "text")


def test_mean_over_median_is_shown():
    assert "×54.6" in render(example_documents.vanishing(), "text")  # exp(spread²/2) with spread² = 128/16


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 1e-300, None])
def test_any_number_may_be_missing_or_absurd_in_figures(replacement):
    doc = example_documents.vanishing(8)
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")
