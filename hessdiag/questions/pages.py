"""From a result to text in any format: its question's view of it, drawn by the renderers."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from hessdiag.errors import LoadError
from hessdiag.questions import documents, registry
from hessdiag.questions.common.result import Result
from hessdiag.questions.common.view import findings, reproduction, self_checks, side_tables, spread, warnings
from hessdiag.report import document as text_form
from hessdiag.report import markdown, terminal
from hessdiag.report.names import Name
from hessdiag.report.view import Heat, Table, View
from hessdiag.report.visible import shown
from hessdiag.report.woven import woven


def render(subject: Result | Mapping[str, Any], form: str, *, width: int = 100, color: bool = False) -> str:
    """Render a result.

    Args:
        subject: The result, or its document.
        form: One of `hessdiag.report.formats.FORMATS`.
        width: Columns, for "text".
        color: Whether "text" carries ANSI colours.

    Raises:
        LoadError: if the document is not as its command writes it.
    """
    if form in ("json", "html"):
        doc = subject if isinstance(subject, Mapping) else documents.document(subject)
        if form == "json":
            return text_form.dumps(doc) + "\n"
        from hessdiag.report import html  # matplotlib takes half a second to import

        return html.render(doc, view_of(subject))
    view = view_of(subject)
    return markdown.render(view) if form == "markdown" else terminal.render(view, width=width, color=color)


def view_of(subject: Result | Mapping[str, Any]) -> View:
    """Lay out a result by its question, with every name in it made visible.

    Raises:
        LoadError: as `render` does.
    """
    result = documents.read(subject) if isinstance(subject, Mapping) else subject
    try:
        laid_out: View = _module_of(result).view(result)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        if not isinstance(subject, Mapping):
            raise
        raise LoadError(f"the {result.command} document is damaged: {type(error).__name__} {error}.") from error
    whole = replace(
        laid_out,
        subject=(*laid_out.subject, *spread(result.provenance)),
        extra=(*laid_out.extra, *side_tables(result)),
        command=result.command,
        warnings=(*warnings(result), *laid_out.warnings),
        verdict=findings(result),
        notes=result.problem.notes or (),
        checks=self_checks(result),
        reproduce=tuple(reproduction(result.problem, result.provenance)),
        argv=result.provenance.argv,
    )
    return shown(woven(whole) if whole.sections else _with_names(whole))


def _module_of(result: Result) -> ModuleType:
    """The module that lays out a result: the view beside its class, where a command has results of several kinds."""
    asked = registry.question(result.command)
    package = asked.variant(vars(result)).package
    return asked.module(f"{package}.view" if package else "view")


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
