"""Self-checks are shown with what they allow, a word for the outcome and what they say."""

import pytest

from hessdiag.questions.common.view import CHECKS
from hessdiag.questions.pages import render, view_of
from tests.documents import document


@pytest.mark.parametrize(
    ("value", "allowed", "outcome", "shown"),
    [
        (2e-9, 1e-5, "passed", "2.0e-9"),
        (-2e-9, 1e-5, "passed", "-2.0e-9"),
        (3e-4, 1e-5, "FAILED", "3.0e-4"),
        (float("nan"), 1e-5, "FAILED", "NaN"),
        (None, 1e-5, "not made", "–"),
    ],
)
@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_each_check_stands_beside_its_threshold(value, allowed, outcome, shown, form):
    doc = document("eigs")
    doc |= {"checks": {"hvp_symmetry": value}, "thresholds": {"hvp_symmetry": allowed}}
    (check,) = view_of(doc).checks
    assert (check.value, check.allowed, check.outcome) == (shown, "1e-5", outcome)
    name, meaning = CHECKS["hvp_symmetry"]
    said = " ".join(render(doc, form, width=200).split())
    for part in (name, meaning, outcome):
        assert part in said


def test_deviations_are_judged_by_their_size():
    doc = document("chain")
    doc |= {
        "checks": {"largest_z": -4.5, "he_normal_median_z": 3.9},
        "thresholds": dict.fromkeys(("largest_z", "he_normal_median_z"), 4.0),
    }
    largest, medians = view_of(doc).checks
    assert (largest.value, largest.allowed, largest.outcome) == ("-4.50", "4", "FAILED")
    assert (medians.name, medians.outcome) == ("he_normal: medians against theory", "passed")


def test_an_earlier_document_has_the_tolerance_of_its_result():
    doc = document("eigs")
    doc["checks"], doc["result"]["check_tolerance"] = {"hvp_symmetry": 1e-4}, 1e-5
    del doc["thresholds"]
    assert view_of(doc).checks[0].outcome == "FAILED"
