import math
import re

import pytest
from rich.cells import cell_len

from hessdiag.errors import LoadError
from hessdiag.questions.pages import render, view_of
from hessdiag.report import columns
from hessdiag.report.formats import FORMATS
from hessdiag.report.view import Table
from tests.documents import document, of_layers, renamed
from tests.shown import ruin


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(doc, width):
    assert max(map(len, render(doc, "text", width=width).splitlines())) <= width


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_of_a_table_is_cut(doc, width):
    if doc["command"] == "report":
        pytest.skip("shows some rows and columns of each answer: tests/report/test_report_whole.py")
    text = render(doc, "text", width=width)
    view = view_of(doc)
    shown = [b if isinstance(b, Table) else b.table for b in view.blocks if isinstance(b, Table) or b.text == "table"]
    assert shown
    for table in shown:
        for row in table.rows:
            kept = [
                cell
                for name, cell in zip(table.columns, row, strict=True)
                if name not in table.optional and table.columns.index(name) >= table.text_columns
            ]
            pattern = r".*\s".join(re.escape(cell) for cell in kept)
            assert re.search(rf"(^|\s){pattern}(\s|$)", text, re.M), row
    assert "…" not in text.replace(" … ", "")


@pytest.mark.parametrize("width", [40, 60])
def test_narrow_tables_come_in_parts_and_cut_no_number(doc, width):
    words = set(render(doc, "text", width=width).split())
    blocks = view_of(doc).blocks
    for table in (b if isinstance(b, Table) else b.table for b in blocks if isinstance(b, Table) or b.text == "table"):
        start, end = columns.folded(len(table.rows))
        for row in (*table.rows[:start], *table.rows[len(table.rows) - end :]):
            numbers = zip(table.columns[table.text_columns :], row[table.text_columns :], strict=True)
            assert {word for name, cell in numbers if name not in table.optional for word in cell.split()} <= words


def test_columns_left_out_are_named_and_long_tables_say_what_is_missing():
    doc = of_layers(document("diag-share-rows"), 60)
    text = render(doc | {"verdict": []}, "text", width=60)
    assert "(left out for room: kind, rows, 95 % interval)" in " ".join(text.split())
    assert "36 rows between" in text
    assert len(text.splitlines()) < 100
    assert "left out" not in render(document("diag-share-rows"), "text", width=120)


def test_wide_characters_are_counted_as_they_are_drawn():
    doc = renamed(document("diag-share"), "層.{}.注意の出力を線形に写すとても長い名前")
    for width in (40, 80):
        assert max(map(cell_len, render(doc, "text", width=width).splitlines())) <= width


def test_long_names_break_over_lines_and_lose_nothing():
    name = "model.encoder.layers.{}.attention.self.output.dense_projection_with_a_long_name"
    text = render(renamed(document("diag-share"), name), "text", width=80)
    start = text[text.index("Per layer") :]
    column = "".join(line.strip().split("  ")[0].strip() for line in start.splitlines()[3:])
    short = name.removeprefix("model.encoder.layers.")
    assert short.format(0) in column
    assert short.format(1) in column
    assert "names of layers are shortened: 0.* is model.encoder.layers.0.*" in text


def test_plain_text_has_no_escape_codes_and_colour_changes_nothing_else(doc):
    plain, coloured = render(doc, "text"), render(doc, "text", color=True)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    strip = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in coloured.splitlines()]
    assert strip == plain.splitlines()


def test_levels_are_said_in_words():
    doc = document("diag-share")
    doc["verdict"] = [
        {"level": level, "says": "S.", "because": "B", "try": None} for level in ("ok", "note", "warn", "bad")
    ]
    text = render(doc, "text")
    for word in ("good: S.", "note: S.", "warning: S.", "bad: S."):
        assert word in text


@pytest.mark.parametrize(
    ("status", "word"), [("inexact", "NOT TRUSTWORTHY"), ("interrupted", "INTERRUPTED"), ("ok", None)]
)
@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_status_is_said(status, word, form):
    text = render(document("vanishing") | {"status": status}, form)
    assert {w for w in ("NOT TRUSTWORTHY", "INTERRUPTED") if w in text} == ({word} if word else set())


@pytest.mark.parametrize("replacement", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e-300, None])
@pytest.mark.parametrize("form", ["text", "markdown"])
def test_any_number_may_be_missing_or_absurd(doc, replacement, form):
    if doc["command"] == "report":
        pytest.skip("its sections are whole documents, some of whose numbers have bounds")
    assert render(doc | {"result": ruin(doc["result"], replacement)}, form)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "json"])
def test_damaged_and_foreign_documents_are_refused(form):
    doc = document("diag-share")
    with pytest.raises(LoadError, match="damaged"):
        render(doc | {"result": {}}, form)
    with pytest.raises(LoadError, match="elsewhere"):
        render(doc | {"command": "elsewhere"}, form)
