import json
import math
from dataclasses import asdict

import pytest
from report import example_documents

from hessdiag.questions.diag_share.trajectory import Compared, change
from hessdiag.questions.documents import loads
from hessdiag.questions.pages import render, view_of
from hessdiag.report.document import dumps
from tests.shown import ruin


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_a_synthetic_batch_is_said_loudly_and_a_real_one_is_not(form):
    assert "SYNTHETIC" in render(example_documents.diag_share(), form)
    assert "SYNTHETIC" not in render(example_documents.diag_share(synthetic=False, notes=[]), form)


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -1.0, 1e-300, None])
def test_any_number_may_be_missing_or_absurd_in_figures(replacement):
    doc = example_documents.diag_share()
    assert render(doc | {"result": ruin(doc["result"], replacement)}, "html")


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_the_report_of_a_trajectory_is_about_the_trajectory(form):
    doc = example_documents.diag_share(4, sampled=True, trajectory=True)
    shares = [
        (point["label"], point["diag_share"], point["diag_share_stderr"]) for point in doc["result"]["trajectory"]
    ]
    doc["result"]["change"] = asdict(change([Compared(*share) for share in shares]))
    doc = loads(dumps(doc))
    view = view_of(doc)
    assert view.headline == (
        "×5.00",
        "the diagonal share goes from 0.00200 at step0.pt to 0.0100 at step2.pt: a significant change",
    )
    assert view.blocks[0].title == "Along the checkpoints"
    assert view.blocks[1].rows[-1] == ("step0.pt → step2.pt", "0.00800 ± 0.00057", "< 1e-9", "yes")
    assert all(block.title.endswith(", at step2.pt") for block in view.blocks[2:])
    said = render(doc, form, width=200)
    assert "change along the checkpoints" in said
    assert said.index("step1.pt") < said.index("this Hessian")


def test_a_document_without_changes_is_still_shown():
    doc = json.loads(dumps(example_documents.diag_share(2, trajectory=True)))
    assert "not judged" in view_of(doc).headline[1]
