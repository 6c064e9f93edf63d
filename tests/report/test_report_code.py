"""Code for the reader's own script: as it is in every form, however long its lines are."""

from hessdiag.questions.pages import render
from tests.documents import document

LONG = (
    "hooks = ["
    + ", ".join(f"model.get_submodule('blocks.{index}').register_forward_hook(fit)" for index in range(9))
    + "]"
)


def with_code():
    doc = document("check")
    doc["result"]["trial"]["code"] = f"for layer in layers:\n    {LONG}\n\nassert a < b & c"
    return doc


def test_lines_are_neither_folded_nor_cut():
    text = render(with_code(), "text", width=60)
    assert f"  In your code\n  for layer in layers:\n      {LONG}\n\n  assert a < b & c\n" in text
    assert f"```python\nfor layer in layers:\n    {LONG}\n\nassert a < b & c\n```" in render(with_code(), "markdown")


def test_a_page_shows_it_as_text():
    page = render(with_code(), "html")
    assert "assert a &lt; b &amp; c" in page
    assert '<h2 id="code">In your code</h2>' in page
    assert '<h2 id="code">' not in render(document("check-healthy"), "html")
