"""The text of every question's document, as it was looked at."""

from pathlib import Path

import pytest

from hessdiag.questions.pages import render
from tests.documents import document, of_layers

GOLDEN = Path(__file__).parent / "golden"
SHOWN = {
    "check": lambda: document("check"),
    "diag-share": lambda: document("diag-share-trajectory"),
    "vanishing": lambda: document("vanishing"),
    "vanishing-model": lambda: document("vanishing-model"),
    "eigs": lambda: of_layers(document("eigs-exact"), 14),
    "chain": lambda: document("chain"),
    "forward": lambda: document("forward"),
    "forward-layers": lambda: document("forward-layers"),
    "blocks": lambda: document("blocks"),
    "blocks-by": lambda: document("blocks-by"),
    "spectrum": lambda: document("spectrum"),
    "bounds": lambda: document("bounds"),
    "trust-radius": lambda: document("trust-radius-kinks"),
    "sharpness": lambda: document("sharpness"),
    "transfer": lambda: document("transfer"),
    "precondition": lambda: document("precondition"),
    "escape": lambda: document("escape"),
    "report-run": lambda: document("report-run"),
    "compare": lambda: document("compare"),
    "compare-course": lambda: document("compare-course"),
    "report": lambda: document("report"),
}


def text_of(name):
    return render(SHOWN[name](), "text", width=80 if name == "blocks" else 100)


@pytest.mark.parametrize("name", SHOWN)
def test_text_is_as_it_was_looked_at(name):
    """To renew after looking at it: `python -m tests.questions.test_pages`."""
    assert text_of(name) == (GOLDEN / f"{name}.txt").read_text("utf-8")


if __name__ == "__main__":
    for each in SHOWN:
        (GOLDEN / f"{each}.txt").write_text(text_of(each), "utf-8")
