"""Reports whose sections hold numbers that are none: each is drawn, as the page of its single command is."""

import math

import pytest

from hessdiag.errors import LoadError
from hessdiag.questions.pages import render
from tests.documents import document
from tests.shown import ruin


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e-300, None])
@pytest.mark.parametrize("form", ["text", "markdown"])
def test_any_number_of_a_section_may_be_missing_or_absurd(replacement, form):
    report = document("report")
    result = report["result"]
    for section in result["sections"]:
        held = section["document"]["result"]
        causes = {name: held[name] for name in ("causes", "confidence") if name in held}  # shares, which have bounds
        section["document"]["result"] = ruin(held, replacement) | causes
    for number in result["key_numbers"]:
        number["value"] = replacement
    assert len(render(report, form)) > 1000


def test_a_share_that_is_none_is_refused_with_its_section():
    report = document("report")
    check = next(one for one in report["result"]["sections"] if one["command"] == "check")
    check["document"]["result"]["confidence"] = math.nan
    with pytest.raises(LoadError, match=r"section `check`: the document is damaged: `result\.confidence`"):
        render(report, "text")
