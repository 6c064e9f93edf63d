import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hessdiag.errors import LoadError
from hessdiag.questions.documents import loads
from hessdiag.report.document import SCHEMA, dumps, plain
from tests.documents import document, renamed

RESERVED = {"NaN", "Infinity", "-Infinity"}
words = st.text().filter(lambda text: text not in RESERVED)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | words
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=20)
tables = st.dictionaries(words, values)


def make(**parts):
    head = {"schema": SCHEMA, "command": "diag-share", "status": "ok", "problem": {}, "result": {}, "theory": None}
    return plain(head | {"checks": {}, "thresholds": {}, "verdict": [], "provenance": {}} | parts)


def nested(levels):
    return [nested(levels - 1)] if levels else 0


def same(left, right):
    """Equality in which NaN equals NaN and 1 is not 1.0."""
    if isinstance(left, dict):
        return isinstance(right, dict) and list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return isinstance(right, float) and math.isnan(right)
    return type(left) is type(right) and left == right


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(result=tables, theory=st.none() | tables, checks=st.dictionaries(words, st.none() | st.floats()))
def test_what_is_written_is_read_back(result, theory, checks):
    doc = loads(dumps(document("diag-share"))) | {"theory": theory, "checks": checks}
    doc["result"]["of a newer version"] = result
    text = dumps(doc)
    assert dumps(loads(text)) == text


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(result=tables)
def test_json_is_strict(result):
    def refuse(token):
        raise AssertionError(token)

    json.loads(dumps(make(result=result)), parse_constant=refuse)


def test_non_finite_numbers_become_words():
    text = dumps(make(result={"a": math.nan, "b": [math.inf, -math.inf]}))
    assert json.loads(text)["result"] == {"a": "NaN", "b": ["Infinity", "-Infinity"]}


def test_text_outside_of_the_numbers_is_left_alone():
    doc = renamed(document("diag-share"), "NaN")
    doc["problem"]["model"] = "Infinity"
    doc["provenance"] = {"argv": ["-Infinity"]}
    read = loads(dumps(doc))
    assert (read["problem"]["model"], read["provenance"]["argv"]) == ("Infinity", ["-Infinity"])
    assert [layer["name"] for layer in read["result"]["layers"]] == ["NaN"] * 3


def test_numpy_and_tuples_become_plain():
    doc = make(result={"a": np.float32(0.5), "b": np.arange(2), "c": (np.int64(3), np.bool_(True)), "d": np.nan})
    assert same(doc["result"], {"a": 0.5, "b": [0, 1], "c": [3, True], "d": math.nan})


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="set"):
        make(result={"a": {1, 2}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "no `schema`"),
        ('{"a": 1}', "no `schema`"),
        ('{"schema": "hessdiag/99"}', "hessdiag/99"),
        (json.dumps({"schema": SCHEMA}), "`command`"),
        ('{"a": 1, "b": {"schema": 1, "c": 2, "c": 3}}', 'the key "c" stands twice'),
        ('{"schema": NaN}', "NaN without quotation marks"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(make(problem={"a": nested(60)})), "more than 50 levels"),
        (json.dumps(document("diag-share") | {"status": "fine"}), "fine"),
        (json.dumps(document("diag-share") | {"verdict": {}}), "`verdict`"),
    ],
)
def test_damaged_documents_are_refused_in_one_line(text, message):
    with pytest.raises(LoadError, match=message) as caught:
        loads(text)
    assert "\n" not in caught.value.what
