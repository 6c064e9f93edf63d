"""Documents against the descriptions of their commands: what is read, what is refused and where it says that it is."""

import json
from dataclasses import fields

import pytest

from hessdiag.errors import LoadError
from hessdiag.questions import documents
from hessdiag.questions.documents import loads
from hessdiag.questions.pages import render, view_of
from hessdiag.questions.registry import NAMES
from hessdiag.report.document import dumps
from tests.documents import CURRENT, EVERY, document
from tests.documents.renew import LINES, argv

REMOVE = object()


def read_with(name, path, value):
    """A document as it is read after one change."""
    doc = json.loads(dumps(document(name)))
    *way, last = path
    holder = doc
    for key in way:
        holder = holder[key]
    if value is REMOVE:
        del holder[last]
    else:
        holder[last] = value
    return loads(json.dumps(doc))


def test_every_command_with_a_report_is_described():
    assert {document(path.stem)["command"] for path in CURRENT} == set(NAMES)


def test_each_document_is_what_its_command_wrote():
    assert {path.stem for path in CURRENT} == set(LINES)
    assert all(document(name)["provenance"]["argv"] == argv(name) for name in LINES)


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_real_documents_of_this_version_and_of_older_ones_are_shown(path):
    doc = loads(path.read_text("utf-8"))
    assert render(doc, "text")
    assert render(doc, "markdown")
    assert loads(dumps(doc)) == doc or "NaN" in dumps(doc)


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        ("diag-share", ("result", "layers", 1, "diag_share"), "abc",
         '`result.layers[1].diag_share`: a number or null was expected, "abc" found.'),
        ("diag-share", ("result", "layers", 2, "wigner"), REMOVE, "`result.layers[2].wigner` is missing."),
        ("diag-share", ("result", "method"), "\x1b[31m",
         '`result.method`: "exact" or "rows" was expected, "\\u001b[31m" found.'),
        ("diag-share", ("result", "layers"), [], "`result.layers`: a list of at least 1 was expected"),
        ("diag-share", ("result", "rows"), -1, "`result.rows`: a whole number from 0 was expected, -1"),
        ("diag-share", ("result", "abs_sum"), 10**400, "`result.abs_sum`: a number or null was expected, 1000"),
        ("diag-share", ("result", "diag_share_interval"), [1], "a list of 2 or null was expected, a list of 1"),
        ("diag-share", ("result", "layer_block_matrix"), [[1.0]],
         "`result`: `layer_block_matrix` is not a matrix of 3 x 3."),
        ("diag-share", ("result",), 3, "`result`: an object was expected, 3 found."),
        ("diag-share", ("verdict", 0, "level"), "fine", "`verdict[0].level`"),
        ("diag-share", ("problem", "input_shape"), "abc", "`problem.input_shape`: a list or an object or null"),
        ("diag-share", ("provenance", "versions", "torch"), 2, "`provenance.versions[...]`: text was expected."),
        ("diag-share", ("provenance", "versions"), None, "`provenance.versions`: an object was expected"),
        ("diag-share", ("provenance", "wall_seconds"), "NaN", "`provenance.wall_seconds`: a number or null"),
        ("diag-share", ("command",), "diag", '`command`: "diag" found'),
        ("eigs-exact", ("result", "layers"), ["a"], "`layer_weights` has 3 entries where `layers` has 1."),
        ("eigs-exact", ("result", "inertia"), None, "`inertia` is missing beside `spectrum`."),
        ("spectrum", ("result", "density", "values"), [1.0], "`result.density`: `values` has 1 entries where"),
        ("spectrum", ("result", "density", "grid", 3), 7.0, "`result.density`: `grid` does not ascend."),
        ("spectrum", ("theory", "semicircle_low"), "low", "`theory.semicircle_low`: a number"),
        ("blocks", ("result", "kinds"), [], "`kinds` has 0 entries where `names` has 3."),
        ("blocks", ("result", "residual"), None, "one of `gauss_newton` and `residual` is null"),
        ("bounds", ("result", "gershgorin"), [1, 2, 3], "`result.gershgorin`: a list of 2 or null"),
        ("forward", ("result", "inits", 1, "layers"), [], "`result.inits[1].layers`: a list of at least 1"),
        ("forward-model", ("result", "inits", 0, "layers", 0, "name"), None, "a layer has no `name`"),
        ("eigs", ("theory",), 3, "`theory`: an object or null was expected, 3 found."),
        ("vanishing", ("result", "depths"), [], "`rates` are there, and no `depths` between which they are."),
        ("vanishing", ("result", "depths", 0, "depth"), 99, "`depths` does not ascend."),
        ("vanishing", ("problem", "seed"), REMOVE, "`problem.seed` is missing."),
        ("chain", ("result", "inertia", "definite"), [], "`result.inertia.definite`: an object was expected"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_damage_is_named_by_its_path(name, path, value, message):
    with pytest.raises(LoadError) as caught:
        read_with(name, path, value)
    assert message in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", None, 7, 0.5])
def test_what_stands_for_a_number_is_one(value):
    read = read_with("diag-share", ("result", "layers", 1, "diag_share"), value)
    found = documents.read(read).layers[1].diag_share
    assert repr(found) == {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf", 7: "7.0"}.get(value, repr(value))


def test_keys_of_newer_versions_are_kept():
    read = read_with("diag-share", ("result", "layers", 0, "new"), {"a": ["NaN"]})
    assert read["result"]["layers"][0]["new"] == {"a": ["NaN"]}
    assert documents.read(read).layers[0].name == read["result"]["layers"][0]["name"]


def test_what_newer_versions_predict_is_shown():
    read = read_with("eigs", ("theory",), {"largest_expected": 7.25, "by_layer": [1.0]})
    (table,) = (table for table in view_of(read).extra if table.title == "Theory")
    assert table.rows == (("largest expected", "7.25"),)


def test_halves_of_surrogate_pairs_are_shown_by_their_codes():
    read = read_with("diag-share", ("result", "layers", 1, "name"), "a\ud800")
    assert read["result"]["layers"][1]["name"] == "a\\ud800"
    assert read_with("diag-share", ("result", "layers", 1, "name"), "😀") is not None


@pytest.mark.parametrize("kind", [kind for command in NAMES for kind in documents.result_types(command)])
def test_every_described_key_is_written(kind):
    """A misspelt key with a default would never be found missing."""
    own = [field for field in fields(kind) if field.name not in documents.ENVELOPE]
    known = {field.name for field in own if not field.metadata.get("apart") and not field.metadata.get("optional")}
    written = set()
    for path in CURRENT:
        doc = json.loads(path.read_text("utf-8"))
        written |= set(doc["result"]) if documents.result_type(doc["command"], doc["result"]) is kind else set()
    assert known <= written
