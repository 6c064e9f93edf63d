import math

import pytest

from hessdiag.questions.pages import render
from tests.documents import document
from tests.shown import ruin


def test_empty_grid_and_empty_rates_are_rendered():
    doc = document("vanishing")
    doc["result"] |= {"rates": {}, "layers": [], "agreement": []}
    assert "Rates per layer" not in render(doc, "text")
    doc["result"] |= {"depths": []}
    assert "no depth was finished" in render(doc, "text")


def test_mean_over_median_is_shown():
    gradient = document("vanishing")["result"]["depths"][-1]["gradient_norm"]
    times = gradient["mean"] / gradient["median"]
    assert f"×{times:.0f}" in render(document("vanishing"), "text")


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 1e-300, None])
def test_any_number_may_be_missing_or_absurd_in_figures(replacement):
    doc = document("vanishing")
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")
