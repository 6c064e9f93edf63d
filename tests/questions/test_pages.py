"""The text of every question's document, as it was looked at."""

from pathlib import Path

import pytest
from report import example_documents

from hessdiag.questions.pages import render

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("diag-share", lambda: example_documents.diag_share(4, sampled=True, trajectory=True)),
        ("vanishing", example_documents.vanishing),
        ("vanishing-model", example_documents.vanishing_model),
        ("eigs", lambda: example_documents.eigs(14, exact=True)),
        ("chain", example_documents.chain),
        ("forward", lambda: example_documents.forward(solved=True)),
        ("forward-layers", example_documents.forward_layers),
        ("blocks", lambda: example_documents.blocks(4)),
        ("spectrum", example_documents.spectrum),
        ("bounds", example_documents.bounds),
    ],
)
def test_text_is_as_it_was_looked_at(name, make):
    """To renew after looking at it: write `render(make(), "text", width=100)` to the golden file."""
    assert render(make(), "text", width=80 if name == "blocks" else 100) == (GOLDEN / f"{name}.txt").read_text("utf-8")
