"""From a result document to text in any format."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from hessdiag.errors import LoadError
from hessdiag.questions import registry
from hessdiag.report import document, markdown, terminal
from hessdiag.report.names import Name
from hessdiag.report.self_checks import self_checks
from hessdiag.report.view import Heat, Table, View
from hessdiag.report.visible import shown

FORMATS = ("text", "json", "markdown", "html")
SUFFIXES = {
    ".txt": "text",
    ".json": "json",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
}


def render(doc: Mapping[str, Any], form: str, *, width: int = 100, color: bool = False) -> str:
    """Render a result document.

    Args:
        doc: As `document.document` or `document.loads` give it.
        form: One of `FORMATS`.
        width: Columns, for "text".
        color: Whether "text" carries ANSI colours.

    Raises:
        LoadError: if the document comes from a command that is not known here, or lacks a key.
    """
    if form == "json":
        return document.dumps(doc) + "\n"
    view = view_of(doc)
    if form == "markdown":
        return markdown.render(view)
    if form == "html":
        from hessdiag.report import html  # matplotlib takes half a second to import

        return html.render(doc, view)
    return terminal.render(view, width=width, color=color)


def view_of(doc: Mapping[str, Any]) -> View:
    """Lay out a document by its command, with every name in it made visible.

    Raises:
        LoadError: as `render` does.
    """
    if doc["command"] not in registry.NAMES:
        raise LoadError(f"no report is known for the command {doc['command']!r}.", "pip install -U hessdiag")
    layout = registry.question(doc["command"]).module("view").view
    try:
        return shown(_with_names(replace(layout(doc), checks=self_checks(doc))))
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise LoadError(f"the {doc['command']} document is damaged: {type(error).__name__} {error}.") from error


def _with_names(view: View) -> View:
    """The same, with a word on names that are shown shortened: options and the JSON have them in full."""
    short = max(_shortened(view), key=lambda name: len(name.full) - len(name), default=None)
    if short is None:
        return view
    start = short.partition(".")[0]
    front = short.full.removesuffix(short) + start
    rest = ".*" if start != short else ""
    return replace(view, notes=(*view.notes, f"names of layers are shortened: {start}{rest} is {front}{rest}"))


def _shortened(view: View) -> Iterator[Name]:
    """The names of single layers of which a part at the front is not shown."""
    for block in (*view.blocks, *view.extra):
        table = block if isinstance(block, Table) else block.table
        labels = block.labels if isinstance(block, Heat) else ()
        cells = (cell for row in table.rows for cell in row[: table.text_columns])
        names = (name for name in (*cells, *labels) if isinstance(name, Name) and name.full != name)
        yield from (name for name in names if name.full.endswith(name))
