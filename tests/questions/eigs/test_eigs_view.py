import math
import re

import pytest

from hessdiag.questions.pages import render
from tests.documents import document, of_layers
from tests.shown import ruin


def test_one_end_alone_and_one_layer_are_rendered():
    assert "0.2714  is the highest eigenvalue" in render(document("eigs-exact", lowest=[], smallest=None), "text")
    assert "-0.1547  is the lowest eigenvalue" in render(document("eigs-exact", highest=[], largest=None), "text")
    assert "eigenvectors live" in render(document("eigs-exact"), "text")
    assert "eigenvectors live" not in render(of_layers(document("eigs-exact"), 1), "text")


def test_pairs_that_did_not_converge_stand_out_at_any_width():
    doc = document("eigs-exact")
    doc["result"]["lowest"][1] |= {"converged": False, "residual": 2.5e-5}
    for width in (80, 120):
        assert re.search(r"lowest 2 +-0\.1345 +2\.5e-5 +NO", render(doc, "text", width=width))


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 1e-300, None])
def test_any_number_may_be_missing_or_absurd_in_figures(replacement):
    doc = document("eigs-exact")
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")
