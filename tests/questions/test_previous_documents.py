"""Documents that were written before results were typed are shown to the letter as they were shown then.

But for `forward MODEL`, whose networks of fresh weights are called an experiment now.
"""

from pathlib import Path

import pytest

from hessdiag.questions.documents import load_document
from hessdiag.questions.pages import render
from hessdiag.questions.registry import NAMES

PREVIOUS = sorted((Path(__file__).parents[1] / "documents/previous").glob("*.json"))
# Their results were typed from the first.
NEWER = {"check", "compare", "escape", "precondition", "report", "sharpness", "transfer", "trust-radius"}


def test_every_command_has_some():
    commands = [load_document(path)["command"] for path in PREVIOUS]
    assert {command for command in commands if commands.count(command) >= 2} == set(NAMES) - NEWER


@pytest.mark.parametrize("path", PREVIOUS, ids=lambda path: path.stem)
def test_a_document_of_the_previous_version_is_shown_as_it_was(path):
    doc = load_document(path)
    assert render(doc, "text", width=100) == path.with_suffix(".txt").read_text("utf-8")
    assert render(doc, "markdown").startswith("#")
    assert render(doc, "html").startswith("<!doctype html>")
