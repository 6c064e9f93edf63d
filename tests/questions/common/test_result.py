"""A result is one object from measurement to page: JSON is its serialization, and is read back into the same class."""

import json
import math
import sys
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.errors import LoadError
from hessdiag.fields import Number, Real
from hessdiag.questions import documents, registry
from hessdiag.questions.common.result import OPTIONAL, Finding, Measured, ModelSubject, Result, Subject
from hessdiag.report import document as text_form
from tests.shown import DOCUMENTS


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return hessdiag.Problem(model, data=[(torch.randn(6, 3).double(), torch.arange(6) % 2)], loss="ce")


@pytest.fixture(scope="module")
def found(problem):
    return hessdiag.bounds(problem)


def test_python_has_all_that_the_command_line_says(found):
    assert found.problem.parameters == 26
    assert found.problem.layers[0].name == "0"
    assert found.provenance.versions["torch"] == str(torch.__version__)
    assert found.provenance.argv == ()
    assert found.provenance.wall_seconds > 0
    assert found.provenance.cost is None


def test_json_is_read_back_into_the_same_object(found, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(found.to_json(), "utf-8")
    again = hessdiag.load(path)
    assert type(again) is hessdiag.Bounds
    assert again == found
    assert again.to_json() == found.to_json()


def test_what_is_not_finite_survives(found):
    odd = replace(found, relative_stderr=math.inf, gershgorin=(-math.inf, math.nan))
    text = odd.to_json()
    assert '"Infinity"' in text
    again = documents.read(documents.loads(text))
    assert again.relative_stderr == math.inf
    assert again.gershgorin[0] == -math.inf
    assert math.isnan(again.gershgorin[1])


def test_a_page_and_markdown(found, tmp_path):
    page = tmp_path / "r.html"
    page.write_text("old", "utf-8")
    found.to_html(page)
    text = page.read_text("utf-8")
    assert "<h1>Where can the Hessian&#39;s eigenvalues be?</h1>" in text
    assert found.to_markdown().startswith("## Where can the Hessian's eigenvalues be?")


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(found):
    shown = found._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert "<h1>" not in shown


@dataclass(frozen=True, kw_only=True)
class Part:
    value: Real
    unseen: tuple[int, ...] = field(default=(), metadata={"apart": True})


@dataclass(frozen=True, kw_only=True)
class Answer(Measured):
    command: ClassVar[str] = "answer"

    number: Number
    parts: tuple[Part, ...]
    label: str = "NaN"
    remark: str | None = field(default=None, metadata=OPTIONAL)


@pytest.fixture
def asked(monkeypatch):
    """A question that only this file knows."""
    monkeypatch.setattr(registry, "NAMES", (*registry.NAMES, "answer"))
    monkeypatch.setattr(documents, "result_type", lambda command, raw=None: Answer)
    return Answer(number=1.5, parts=(Part(value=math.nan, unseen=(1,)),), findings=(Finding("ok", "A", "b", "c"),))


def test_documents_hold_the_envelope_beside_the_numbers(asked):
    doc = documents.document(asked)
    assert list(doc) == [
        "schema", "command", "status", "problem", "result", "theory", "checks", "thresholds", "verdict", "provenance"
    ]  # fmt: skip
    assert list(doc["result"]) == ["trusted", "check_tolerance", "point", "number", "parts", "label"]
    assert list(doc["result"]["parts"][0]) == ["value"]
    assert doc["verdict"] == [{"level": "ok", "says": "A", "because": "b", "try": "c"}]


def test_words_for_numbers_are_told_from_text(asked):
    again = documents.read(json.loads(text_form.dumps(documents.document(asked))))
    assert again.label == "NaN"
    assert math.isnan(again.parts[0].value)
    assert again.parts[0].unseen == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda doc: doc["result"].pop("number"), "`result.number` is missing"),
        (lambda doc: doc.pop("verdict"), "`verdict` is missing"),
        (lambda doc: doc["result"]["parts"].append({"value": "x"}), '`result.parts[1].value`: a number or null was expected, "x" found'),
        (lambda doc: doc["verdict"].append({"level": "ok", "says": "", "because": ""}), "`verdict[1].try` is missing"),
        (lambda doc: doc["verdict"].append({"level": "fine", "says": "", "because": "", "try": ""}), '`verdict[1].level`: "bad" or "note" or "ok" or "warn" was expected, "fine" found'),
        (lambda doc: doc["problem"].update(batches=-1), "`problem.batches`: a whole number from 0 was expected, -1 found"),
        (lambda doc: doc["checks"].update(a=[]), "`checks[...]`: a number or null was expected"),
        (lambda doc: doc.update(result=3), "`result`: an object was expected, 3 found"),
        (lambda doc: doc.update(command=["answer"]), "`command`: a list of 1 found, of which no report is known"),
    ],
)  # fmt: skip
def test_damage_is_named_with_its_path(asked, change, message):
    doc = json.loads(text_form.dumps(documents.document(asked)))
    change(doc)
    with pytest.raises(LoadError) as caught:
        documents.read(doc)
    assert message in caught.value.what


def test_less_is_said_of_networks_that_a_question_makes_itself():
    @dataclass(frozen=True, kw_only=True)
    class Own(Result):
        command: ClassVar[str] = "own"

    held = documents.document(Own(problem=Subject(model="builtin:mlp", device="cpu", dtype="float64", seed=0)))
    assert held["problem"] == {"model": "builtin:mlp", "device": "cpu", "dtype": "float64", "seed": 0}
    assert documents._subject_type(Own, held["problem"]) is Subject
    assert documents._subject_type(Own, {"parameters": 3}) is ModelSubject
    assert documents._subject_type(Answer, {}) is ModelSubject


def test_results_are_read_without_torch(found, tmp_path):
    import subprocess

    path = tmp_path / "r.json"
    path.write_text(found.to_json(), "utf-8")
    code = f"import hessdiag, sys; r = hessdiag.load({str(path)!r}); print(r.parameters, r.to_markdown()[:1], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["26", "#", "False"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_prompt_shows_one_line_of_every_result(name):
    result = documents.read(DOCUMENTS[name]())
    shown = repr(result)
    assert shown.startswith(f"<{type(result).__name__}")
    assert "\n" not in shown
    assert len(shown) < 600
    assert not result.findings or result.findings[0].says in shown
