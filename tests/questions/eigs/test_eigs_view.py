import math
import re

import pytest
from report import example_documents

from hessdiag.questions.pages import render
from tests.shown import ruin


def test_one_end_alone_and_one_layer_are_rendered():
    assert "2.000  is the highest eigenvalue" in render(example_documents.eigs(lowest=0), "text")
    assert "-0.5000  is the lowest eigenvalue" in render(example_documents.eigs(highest=0), "text")
    assert "eigenvectors live" not in render(example_documents.eigs(1), "text")


def test_pairs_that_did_not_converge_stand_out_at_any_width():
    for width in (80, 120):
        assert re.search(r"lowest 2 +-0\.2500 +2\.5e-5 +NO", render(example_documents.eigs(), "text", width=width))


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 1e-300, None])
def test_any_number_may_be_missing_or_absurd_in_figures(replacement):
    doc = example_documents.eigs(exact=True)
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")
