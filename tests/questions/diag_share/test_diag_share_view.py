import math

import pytest

from hessdiag.questions.pages import render, view_of
from tests.documents import document
from tests.shown import ruin


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_a_synthetic_batch_is_said_loudly_and_a_real_one_is_not(form):
    doc, real = document("diag-share"), document("diag-share")
    real["problem"] |= {"synthetic": False, "notes": []}
    real["verdict"] = []  # a finding says it, too
    assert "SYNTHETIC" in render(doc, form)
    assert "SYNTHETIC" not in render(real, form)


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 1e-300, None])
def test_any_number_may_be_missing_or_absurd_in_figures(replacement):
    doc = document("diag-share")
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_the_report_of_a_trajectory_is_about_the_trajectory(form):
    doc = document("diag-share-trajectory")
    view = view_of(doc)
    assert view.headline == (
        "×0.229",
        "the diagonal share goes from 0.291 at step0.pt to 0.0665 at step2.pt: a significant change",
    )
    assert view.blocks[0].title == "Along the checkpoints"
    assert view.blocks[1].rows[-1] == ("step0.pt → step2.pt", "-0.2241 ± 0.0079", "< 1e-9", "yes")
    assert all(block.title.endswith(", at step2.pt") for block in view.blocks[2:])
    said = render(doc, form, width=200)
    assert "change along the checkpoints" in said
    assert said.index("step1.pt") < said.index("this Hessian")


def test_a_document_without_changes_is_still_shown():
    doc = document("diag-share-trajectory", change=None)
    assert "not judged" in view_of(doc).headline[1]
