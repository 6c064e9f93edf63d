"""Every number that gates are set on is compared or left out on purpose, in every document that commands write."""

import copy
import itertools
import math

import pytest

from hessdiag.questions import documents
from hessdiag.questions.compare.measure import compared
from hessdiag.questions.compare.quantities import LEFT_OUT, QUANTITIES
from hessdiag.questions.compare.readings import at, kind_of, readings
from hessdiag.questions.metrics import MEANINGS
from hessdiag.questions.registry import QUESTIONS
from tests.documents import CURRENT, document

NOT_COMPARED = {"compare", "report"}
DOCS = {
    path.stem: documents.numbers_of(document(path.stem))
    for path in CURRENT
    if document(path.stem)["command"] not in NOT_COMPARED
}


def holder(doc, metric):
    *way, last = metric.split(".")
    value = doc["result"]
    for step in way:
        value = None if value is None else value[int(step)] if isinstance(value, list) else value[step]
    return value, int(last) if isinstance(value, list) else last


def test_every_command_and_every_kind_of_result_is_compared():
    kinds = {(asked.name, one.key) for asked in QUESTIONS for one in (asked.variant(()), *asked.variants)}
    assert set(QUANTITIES) == {kind for kind in kinds if kind[0] not in NOT_COMPARED}
    assert {kind_of(doc) for doc in DOCS.values()} == set(QUANTITIES)


def test_every_number_for_gates_is_compared_or_left_out_on_purpose():
    compared_paths = {quantity.path for of_kind in QUANTITIES.values() for quantity in of_kind}
    gated = {name for command, names in MEANINGS.items() if command not in NOT_COMPARED for name in names}
    assert gated - compared_paths == set(LEFT_OUT)


def test_every_quantity_is_known_in_some_document():
    seen = {
        (kind_of(doc), path): found.known is not None
        for doc in DOCS.values()
        for (path, _), found in readings(doc).items()
        if found.known is not None
    }
    missing = {(kind, one.path) for kind, of_kind in QUANTITIES.items() for one in of_kind} - set(seen)
    # The one example of a race has no error of backpropagations, nor of an eigenvalue at its start.
    assert missing == {(("escape", ""), "contenders.*.backprops"), (("escape", ""), "plateaus.0.lowest")}


@pytest.mark.parametrize("name", DOCS)
def test_a_document_is_equal_to_itself(name):
    found = compared([DOCS[name], copy.deepcopy(DOCS[name])], ["a", "b"])
    assert found.changes
    assert found.significant == found.differences == 0
    assert found.repeated or not DOCS[name]["result"].get("trusted", True)
    assert {row.way for row in found.changes} <= {"none", "open"}
    assert any(row.how in ("exact", "estimates") for row in found.changes)


@pytest.mark.parametrize("name", DOCS)
def test_each_number_that_moves_far_beyond_its_error_is_found_and_only_that(name):
    """One value at a time, so that a path of a value or of its error that is wrong would show."""
    doc = DOCS[name]
    for seen in readings(doc).values():
        if seen.known is None or seen.value is None or seen.quantity.how in ("share", "bounds"):
            continue
        reach = max(abs(end - seen.value) for end in (seen.interval or (seen.value,)))
        if math.isinf(reach):
            continue
        other = copy.deepcopy(doc)
        place, key = holder(other, seen.metric)
        by = 1000 * max(reach, abs(seen.value), 1.0)
        if seen.quantity.how == "relative":
            by = seen.value * math.expm1(100 * seen.known.up)
        place[key] = round(seen.value + by) if isinstance(place[key], int) else seen.value + by
        for ends in (f"{key}_interval",):
            if isinstance(place, dict) and place.get(ends) is not None:
                place[ends] = [end + by for end in place[ends]]
        for path in seen.quantity.interval:
            where, end = holder(other, path.replace("*", seen.metric.split(".")[-1]))
            if where is not None:
                where[end] += by
        found = compared([doc, other], ["a", "b"])
        moved = {row.metric for row in found.changes if row.significant}
        assert seen.metric in moved, seen
        assert {row.way for row in found.changes if row.metric == seen.metric} == {"up"}
        assert moved == {seen.metric} or _goes_with(moved, seen.metric), (seen.metric, moved)


def _goes_with(moved, metric):
    """Errors of several numbers hang on the magnitude of one, which can only make them larger."""
    return moved < {metric, "largest_step"}


KINDS = [(a, b) for a, b in itertools.combinations(DOCS, 2) if kind_of(DOCS[a]) == kind_of(DOCS[b])]


@pytest.mark.parametrize(("first", "second"), KINDS)
def test_the_other_way_round_is_the_mirrored_answer(first, second):
    docs = [DOCS[first], DOCS[second]]
    there, back = ({row.name: row for row in compared(pair, ["a", "b"]).changes} for pair in (docs, docs[::-1]))
    assert there.keys() == back.keys()
    for name, row in there.items():
        other = back[name]
        assert {"up": "down", "down": "up"}.get(row.way, row.way) == other.way
        assert (row.significant, row.how, row.before) == (other.significant, other.how, other.after)
        assert (row.better is None) == (other.better is None)
        assert row.better is None or row.better != other.better
        for mine, its in ((row.p, other.p), (row.p_adjusted, other.p_adjusted), (row.stderr, other.stderr)):
            assert mine == (None if its is None else pytest.approx(its, rel=1e-9)), name
        mirrored = other.interval and (-other.interval[1], -other.interval[0])
        assert row.interval == (mirrored and pytest.approx(mirrored, rel=1e-9)), name


@pytest.mark.parametrize("name", DOCS)
def test_a_hole_anywhere_is_no_crash(name):
    """Entries of lists that are null, and counts that are none: a document may be damaged or of a broken run."""
    doc = DOCS[name]
    for key, held in doc["result"].items():
        for value in (None, [None, *held[1:]]) if isinstance(held, list) and held else ():
            broken = {**doc, "result": {**doc["result"], key: value}}
            assert set(readings(broken)) <= set(readings(doc))
    for quantity in QUANTITIES[kind_of(doc)]:
        for path in {quantity.path, quantity.of} - {""}:
            broken = copy.deepcopy(doc)
            place, key = holder(broken, path.replace("*", "0")) if _is_there(broken, path) else (None, "")
            for value in (-1, math.nan, None) if place is not None else ():
                place[key] = value
                assert set(readings(broken)) <= set(readings(doc))


def _is_there(doc, path):
    home = path.replace("*", "0").rpartition(".")[0]
    return isinstance(at(doc["result"], home) if home else doc["result"], dict)
