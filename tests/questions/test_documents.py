"""Documents against the descriptions of their commands: what is read, what is refused and where it says that it is."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from report import example_documents

from hessdiag.errors import LoadError
from hessdiag.questions import documents
from hessdiag.questions.documents import loads
from hessdiag.questions.pages import render
from hessdiag.questions.registry import NAMES
from hessdiag.report.document import dumps

REAL = sorted((Path(__file__).parents[1] / "report/documents").glob("*.json"))
EVERY = {
    "diag-share": example_documents.diag_share,
    "eigs": example_documents.eigs,
    "spectrum": example_documents.spectrum,
    "bounds": example_documents.bounds,
    "blocks": example_documents.blocks,
    "forward": example_documents.forward,
    "vanishing": example_documents.vanishing,
    "chain": example_documents.chain,
}
REMOVE = object()


def read_with(make, path, value):
    """A document as it is read after one change."""
    doc = json.loads(dumps(make()))
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
    assert set(NAMES) == set(EVERY)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_documents_of_this_version_and_of_older_ones_are_shown(path):
    doc = loads(path.read_text("utf-8"))
    assert render(doc, "text")
    assert render(doc, "markdown")
    assert loads(dumps(doc)) == doc or "NaN" in dumps(doc)


@pytest.mark.parametrize(
    ("make", "path", "value", "message"),
    [
        (example_documents.diag_share, ("result", "layers", 1, "diag_share"), "abc",
         '`result.layers[1].diag_share`: a number or null was expected, "abc" found.'),
        (example_documents.diag_share, ("result", "layers", 2, "wigner"), REMOVE, "`result.layers[2].wigner` is missing."),
        (example_documents.diag_share, ("result", "method"), "\x1b[31m",
         '`result.method`: "exact" or "rows" was expected, "\\u001b[31m" found.'),
        (example_documents.diag_share, ("result", "layers"), [], "`result.layers`: a list of at least 1 was expected"),
        (example_documents.diag_share, ("result", "rows"), -1, "`result.rows`: a whole number from 0 was expected, -1"),
        (example_documents.diag_share, ("result", "abs_sum"), 10**400, "`result.abs_sum`: a number or null was expected, 1000"),
        (example_documents.diag_share, ("result", "diag_share_interval"), [1], "a list of 2 or null was expected, a list of 1"),
        (example_documents.diag_share, ("result", "layer_block_matrix"), [[1.0]],
         "`result`: `layer_block_matrix` is not a matrix of 3 x 3."),
        (example_documents.diag_share, ("result",), 3, "`result`: an object was expected, 3 found."),
        (example_documents.diag_share, ("verdict", 0, "level"), "fine", "`verdict[0].level`"),
        (example_documents.diag_share, ("problem", "input_shape"), "abc", "`problem.input_shape`: a list or an object or null"),
        (example_documents.diag_share, ("provenance", "versions", "torch"), 2, "`provenance.versions[...]`: text was expected."),
        (example_documents.diag_share, ("provenance", "versions"), None, "`provenance.versions`: an object was expected"),
        (example_documents.diag_share, ("provenance", "wall_seconds"), "NaN", "`provenance.wall_seconds`: a number or null"),
        (example_documents.diag_share, ("command",), "diag", '`command`: "diag" found'),
        (example_documents.eigs, ("result", "layers"), ["a"], "`layer_weights` has 3 entries where `layers` has 1."),
        (lambda: example_documents.eigs(exact=True), ("result", "inertia"), None, "`inertia` is missing beside `spectrum`."),
        (example_documents.spectrum, ("result", "density", "values"), [1.0], "`result.density`: `values` has 1 entries where"),
        (example_documents.spectrum, ("result", "density", "grid", 3), 7.0, "`result.density`: `grid` does not ascend."),
        (example_documents.spectrum, ("theory", "semicircle_low"), "low", "`theory.semicircle_low`: a number"),
        (example_documents.blocks, ("result", "kinds"), [], "`kinds` has 0 entries where `names` has 3."),
        (example_documents.blocks, ("result", "residual"), None, "one of `gauss_newton` and `residual` is null"),
        (example_documents.bounds, ("result", "gershgorin"), [1, 2, 3], "`result.gershgorin`: a list of 2 or null"),
        (example_documents.forward, ("result", "inits", 1, "layers"), [], "`result.inits[1].layers`: a list of at least 1"),
        (example_documents.forward_model, ("result", "inits", 0, "layers", 0, "name"), None, "a layer has no `name`"),
        (example_documents.vanishing, ("result", "depths", 0, "depth"), 99, "`depths` does not ascend."),
        (example_documents.vanishing, ("problem", "seed"), REMOVE, "`problem.seed` is missing."),
        (example_documents.chain, ("result", "inertia", "definite"), [], "`result.inertia.definite`: an object was expected"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_damage_is_named_by_its_path(make, path, value, message):
    with pytest.raises(LoadError) as caught:
        read_with(make, path, value)
    assert message in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", None, 7, 0.5])
def test_what_stands_for_a_number_is_one(value):
    read = read_with(example_documents.diag_share, ("result", "layers", 1, "diag_share"), value)
    found = documents.read(read).layers[1].diag_share
    assert repr(found) == {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf", 7: "7.0"}.get(value, repr(value))


def test_keys_of_newer_versions_are_kept():
    read = read_with(example_documents.diag_share, ("result", "layers", 0, "new"), {"a": ["NaN"]})
    assert read["result"]["layers"][0]["new"] == {"a": ["NaN"]}
    assert documents.read(read).layers[0].name == read["result"]["layers"][0]["name"]


def test_halves_of_surrogate_pairs_are_shown_by_their_codes():
    read = read_with(example_documents.diag_share, ("result", "layers", 1, "name"), "a\ud800")
    assert read["result"]["layers"][1]["name"] == "a\\ud800"
    assert read_with(example_documents.diag_share, ("result", "layers", 1, "name"), "😀") is not None


@pytest.mark.parametrize("command", NAMES)
def test_every_described_key_is_written(command):
    """A misspelt key with a default would never be found missing."""
    own = [field for field in fields(documents.result_type(command)) if field.name not in documents.ENVELOPE]
    known = {field.name for field in own if not field.metadata.get("apart") and not field.metadata.get("optional")}
    written = set()
    for path in REAL:
        doc = json.loads(path.read_text("utf-8"))
        written |= set(doc["result"]) if doc["command"] == command else set()
    assert known <= written
