"""One self-contained page: opens offline, runs no script, and is the same bytes each time."""

import base64
import gzip
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from hessdiag.report import columns, document, figures, shell, svg
from hessdiag.report.drawing import NARROW, WIDE, Page
from hessdiag.report.names import Name
from hessdiag.report.overview import MOST_OTHERS, SEVERE
from hessdiag.report.pieces import WORDS
from hessdiag.report.spoken import spoken
from hessdiag.report.terminal import CODE
from hessdiag.report.view import Drawn, Table, View, checks_table
from hessdiag.report.woven import by_turns, first

# Within a page, `<` could end the data block, and the two separators end a line of JavaScript.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}

LARGE = 120_000  # characters of JSON above which it is embedded compressed
LARGEST = 600_000  # characters of compressed JSON above which its numbers are rounded
ROOM = 200_000  # characters of it in a page of several answers; a larger one is not embedded
MOST_PACKED = 12  # times as many characters as that take more room however they are packed
DIGITS = 6
PRINTED = (90, 120)  # characters across a table that fit on paper in common and in small type
LONG_WORD = 12  # characters above which a word is a name or a path, and may be broken
_TOGETHER = re.compile(r"(?<=\d) (?=%)|(?<=[≤≥±×<=]) (?=[-\d])|(?<=\bp) (?=[<=])")  # a number, its sign and its unit
_HYPHENED = re.compile(r"\b[a-z]+-[a-z]+\b")  # a word in a heading
# A line may end after a hyphen, but not in a number, a time or the name of an option.
_KEPT = re.compile(r"(?<![\w.])-?\d[\d.,]*e-\d+\b|(?<!\S)--?[a-z][\w-]*|\b\d{4}-\d\d-\d\d(?:T[\d:]+)?")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hessdiag.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["image"] = _image
    environment.filters["narrow_image"] = _narrow_image
    environment.filters["size"] = _size
    environment.filters["breaking"] = _breaking
    environment.filters["question"] = _question
    environment.filters["cell"] = _cell
    environment.filters["full"] = _full
    environment.filters["charts"] = _charts
    environment.filters["tables"] = _tables
    environment.filters["first"] = first
    environment.filters["by_turns"] = by_turns
    environment.filters["shell_line"] = _command
    environment.filters["spoken"] = spoken
    environment.globals |= {
        "folded": columns.folded,
        "words": WORDS,
        "code_title": CODE,
        "severe_levels": SEVERE,
        "shown_findings": MOST_OTHERS,
    }
    return environment


def render(doc: Mapping[str, Any], view: View) -> str:
    """Write a view as a page, with its document embedded as data."""
    environment = _environment()
    style = Markup(environment.loader.get_source(environment, "style.css")[0]) if environment.loader else ""
    template = environment.get_template("whole.html" if view.sections else "page.html")
    return template.render(view=view, style=style, **_embedded(doc, most=ROOM if view.sections else None))


def _charts(view: View) -> list[Drawn]:
    return [block for block in view.blocks if not isinstance(block, Table)]


def _tables(view: View) -> list[Table]:
    """The tables of a view, its self-checks the last."""
    tables = [block for block in view.blocks if isinstance(block, Table)]
    return [*tables, *view.extra, *([checks_table(view.checks)] if view.checks else [])]


def _breaking(text: str) -> Markup:
    """Text whose long words may go on in the next line after a dot, a slash or an underscore."""
    words = (
        columns.WITHIN.sub("<wbr/>", str(escape(word))) if len(word) > LONG_WORD else str(escape(word))
        for word in _TOGETHER.sub("\N{NO-BREAK SPACE}", text).split(" ")
    )
    return _kept(" ".join(words))


def _question(text: str) -> Markup:
    """A heading, in which no line ends within the name of a command."""
    return Markup(_HYPHENED.sub(r'<span class="kept">\g<0></span>', str(_breaking(text))))


def _command(argv: tuple[str, ...]) -> Markup:
    return _kept(str(escape(shell.line(argv))))


def _kept(markup: str) -> Markup:
    return Markup(_KEPT.sub(r'<span class="kept">\g<0></span>', markup))


def _cell(text: str, *, number: bool, size: str) -> str:
    """A cell of a table: only in small type on paper may the lines of a number end, and then at no hyphen."""
    return text if number and "widest" not in size else _breaking(text)


def _full(cell: str) -> str:
    """The full name that a shortened one stands for, else nothing."""
    return cell.full if isinstance(cell, Name) and cell.full != cell else ""


def _size(table: Table) -> str:
    """How much room a table takes: the class that sets its type on paper and folds it on the screen."""
    across = sum(max(map(len, cells)) + 2 for cells in zip(table.columns, *table.rows, strict=True))
    width = "" if across <= PRINTED[0] else " wide" if across <= PRINTED[1] else " widest"
    return width + (" long" if columns.folded(len(table.rows))[1] else "")


def _image(chart: Drawn, page: Page = WIDE) -> str:
    return Markup(svg.data_uri(figures.svg(chart, page)))  # holds no quotation mark and no ampersand


def _narrow_image(chart: Drawn) -> str:
    return Markup(_image(chart, NARROW).replace(" ", "%20"))  # spaces end an address in a `srcset`


def _embedded(doc: Mapping[str, Any], *, most: int | None = None) -> dict[str, Any]:
    """The document as the page carries it: as it is, compressed, rounded, or not at all, as its size allows."""
    text = document.dumps(doc, indent=None)
    inline = _in_script(text)
    if len(inline) <= LARGE:
        return {"data": Markup(inline), "data_type": "application/json", "data_form": "JSON"}
    if most is not None and len(text) > MOST_PACKED * most:
        return {"data": "", "data_type": "", "data_form": ""}
    form, data = "gzipped JSON in base64", _packed(text)
    if len(data) > (most or LARGEST):
        form += f", its numbers rounded to {DIGITS} digits"
        data = _packed(document.dumps(_rounded(doc), indent=None))
    if most is not None and len(data) > most:
        form, data = "", ""
    return {"data": data, "data_type": "application/gzip+base64", "data_form": form}


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("utf-8", "surrogatepass"), 9, mtime=0)).decode()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def _in_script(text: str) -> str:
    for sign, escaped in _ESCAPES.items():
        text = text.replace(sign, escaped)
    return text
