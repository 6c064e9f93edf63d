import math

import pytest

from hessdiag.cli.gates import Gate, changes, parse, parse_change, violations
from hessdiag.errors import SpecError
from hessdiag.questions.registry import QUESTIONS
from tests.documents import document


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("diag_share<1e-3", Gate("diag_share", "<", 1e-3)),
        (" rates.gradient.per_layer >= -.5 ", Gate("rates.gradient.per_layer", ">=", -0.5)),
        ("layers.0.diag_share!=+2.", Gate("layers.0.diag_share", "!=", 2.0)),
    ],
)
def test_gates_are_read(text, gate):
    assert parse(text) == gate


@pytest.mark.parametrize(
    "text", ["", "diag_share", "diag_share<", "diag_share<x", "<1", "a<1<2", "a=1", "a<nan", "a() < 1", "a<1;b"]
)
def test_what_is_no_gate_is_refused(text):
    with pytest.raises(SpecError, match="METRIC OP NUMBER"):
        parse(text)


@pytest.mark.parametrize(
    ("gate", "violated"),
    [
        ("a < 1", False),
        ("a < 1.5", True),
        ("a <= 1", True),
        ("a == 1", True),
        ("a != 1", False),
        ("b.0.c > 2", True),
        ("nan < 0", True),
        ("nan > 0", True),
        ("none > 0", True),
        ("inf > 1e300", True),
        ("inf < 0", False),
    ],
)
def test_violations(gate, violated):
    result = {"a": 1, "b": [{"c": 2.5}], "nan": math.nan, "none": None, "inf": math.inf}
    assert bool(violations(result, [parse(gate)])) is violated


def test_an_unknown_metric_is_answered_with_near_ones():
    with pytest.raises(SpecError, match="near are diag_share"):
        violations(document("diag-share")["result"], [parse("diag_shear < 1")])


@pytest.mark.parametrize("metric", ["method", "layers", "trajectory.x"])
def test_text_and_tables_are_no_metrics(metric):
    with pytest.raises(SpecError, match="no number"):
        violations(document("diag-share")["result"], [parse(f"{metric} < 1")])


@pytest.mark.parametrize(
    ("now", "before", "count"),
    [(1.0, 1.0, 0), (1.05, 1.0, 0), (1.2, 1.0, 1), (0.8, 1.0, 1), (0.0, 0.0, 0), (0.1, 0.0, 1), (math.nan, 1.0, 1),
     (None, 1.0, 1), (None, None, 0), (-1.2, -1.0, 1)],
)  # fmt: skip
def test_changes(now, before, count):
    doc, baseline = document("diag-share"), document("diag-share")
    doc["result"]["diag_share"], baseline["result"]["diag_share"] = now, before
    assert len(changes(doc, baseline, 0.1)) == count


def test_a_baseline_of_another_command_is_refused():
    with pytest.raises(SpecError, match="vanishing"):
        changes(document("diag-share"), document("vanishing"), 0.1)


def test_every_command_with_a_report_has_headline_numbers_that_exist():
    assert all(asked.headlines for asked in QUESTIONS)
    for doc in (document("diag-share"), document("eigs"), document("vanishing")):
        assert changes(doc, doc, 0.0) == []


@pytest.mark.parametrize(("text", "value"), [("10%", 0.1), ("0.25", 0.25), ("5 %", 0.05), (".5%", 0.005)])
def test_allowed_changes_are_read(text, value):
    assert parse_change(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "-1%", "1e2", "10%%"])
def test_what_is_no_change_is_refused(text):
    with pytest.raises(SpecError):
        parse_change(text)
