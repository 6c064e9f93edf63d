"""A report of several answers, in every form: real documents, of this network and of others."""

import copy
import json
import re
from itertools import pairwise
from urllib.parse import unquote

import pytest

from hessdiag.errors import LoadError
from hessdiag.questions.pages import render, view_of
from hessdiag.report import html, svg
from hessdiag.report.document import dumps
from hessdiag.report.view import Finding, Section, Table, View
from hessdiag.report.woven import by_turns, first, woven
from tests.documents import document, of_layers
from tests.report.test_report_html import Page


@pytest.fixture(scope="module")
def doc():
    return document("report")


@pytest.fixture(scope="module")
def page(doc):
    return Page(render(doc, "html"))


def part(says, *, level="note", because="", notes=(), subject=()):
    finding = Finding(level, says, because, "")
    return View("?", subject, ("1", "is it"), (), (), verdict=(finding,), notes=notes)


def whole(*parts, verdict=(), headline="fine"):
    sections = tuple(Section(f"s{number}", view, "1 s") for number, view in enumerate(parts))
    return woven(View("?", (("model", "m"),), (headline, ""), (), (), verdict=verdict, sections=sections))


def deep(doc, layers):
    """The same report of a network of so many layers."""
    made = copy.deepcopy(doc)
    for section in made["result"]["sections"]:
        if section["command"] in ("diag-share", "eigs", "blocks"):
            section["document"] = of_layers(section["document"], layers)
    return made


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = [attrs["id"] for _, attrs, _ in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in page.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert all(attrs["aria-labelledby"] in ids for _, attrs, _ in page.elements if "aria-labelledby" in attrs)


def test_headings_are_in_order_and_every_figure_is_described(doc, page):
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    charts = [b for one in view_of(doc).sections for b in one.view.blocks if not isinstance(b, Table)]
    assert len(page.all("img")) == len(page.all("source")) == len(page.all("figcaption")) == len(charts)
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))


def test_the_page_holds_every_section_its_command_and_what_was_left_out(doc, page):
    said = page.text("code")
    for one in doc["result"]["sections"]:
        assert one["command"] in {attrs.get("id") for attrs in page.all("section")}
        assert " ".join(one["argv"][:2]) in said
    for one in doc["result"]["left_out"]:
        assert one["command"] in page.text("strong")
    assert doc["verdict"][0]["says"] in page.text("strong")


def test_nothing_is_fetched(page):
    for _, attrs, _ in page.elements:
        for name in ("src", "href", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:image/svg+xml,")), attrs


def test_addresses_among_several_have_no_spaces(page):
    assert not [source["srcset"] for source in page.all("source") if " " in source["srcset"]]


def test_a_page_of_a_hundred_layers_stays_below_a_megabyte(doc):
    assert len(render(deep(doc, 101), "html").encode()) < 1_000_000


def test_a_result_too_large_for_the_page_is_not_in_it_and_that_is_said(doc, monkeypatch):
    monkeypatch.setattr(html, "ROOM", 1000)
    monkeypatch.setattr(html, "_image", lambda chart, page=None: "data:image/svg+xml,")
    text = render(doc, "html")
    assert "too large for this page" in text
    assert "<script" not in text


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 140])
def test_text_fits_any_terminal(doc, width):
    text = render(deep(doc, 101), "text", width=width)
    commands = [line for line in text.splitlines() if line.startswith("      hessdiag ")]
    longest = max(len(line) for line in text.splitlines() if line not in commands)
    assert longest <= max(width, 32)
    for one in doc["result"]["sections"]:
        assert re.search(rf"^  {one['command']}\b", text, re.M)


def test_text_takes_two_screens_however_deep_the_network(doc):
    lines = [render(deep(doc, count), "text", width=100).count("\n") for count in (3, 101)]
    assert lines[1] <= lines[0] + 2
    assert max(lines) <= 80


def test_markdown_tables_are_rectangular_and_short(doc):
    text = render(deep(doc, 101), "markdown")
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1
        assert block.count("\n") < 45
    for one in doc["result"]["sections"]:
        assert f"### {one['command']}: " in text


def test_json_is_the_document(doc):
    assert json.loads(render(doc, "json")) == json.loads(dumps(doc))


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_a_damaged_section_is_one_clear_line_that_names_it(doc, form):
    damaged = copy.deepcopy(doc)
    section = next(one for one in damaged["result"]["sections"] if one["command"] == "eigs")
    section["document"]["result"]["largest"] = "much"
    with pytest.raises(LoadError, match=r"eigs.*largest.*much") as raised:
        render(damaged, form)
    assert "\n" not in raised.value.what


def test_what_sections_share_is_said_once_at_the_head():
    common = part("alike", notes=("assumed",), subject=(("model", "m"), ("mode", "train")))
    made = whole(
        common, common, part("own"), verdict=(Finding("note", "alike", "", ""), Finding("note", "own", "", ""))
    )
    assert made.notes == ("assumed",)
    assert [one.sections for one in made.verdict] == [("s0", "s1"), ("s2",)]
    assert [[f.says for f in one.view.verdict] for one in made.sections] == [[], [], ["own"]]
    assert made.sections[0].view.notes == ()
    assert made.sections[0].view.subject == (("mode", "train"),)


def test_what_sections_share_but_the_whole_does_not_say_stays_with_them():
    made = whole(part("alike"), part("alike"))
    assert [len(one.view.verdict) for one in made.sections] == [1, 1]


def test_a_reason_that_begins_with_a_section_links_to_it_and_is_told_once():
    answer, cause = Finding("bad", "It will not: x.", "s0: 3 of 4", ""), Finding("bad", "X.", "s0: 3 of 4", "")
    made = whole(part("X."), verdict=(answer, cause, Finding("note", "other", "", "")), headline="It will not: x.")
    head, others = first(made)
    assert (head.because, head.sections) == ("3 of 4", ("s0",))
    assert [one.says for one in others] == ["other"]


def test_of_many_findings_each_section_is_heard_before_any_is_heard_twice():
    findings = [Finding("note", says, "", "", (says[0],)) for says in ("a1", "a2", "a3", "b1", "c1", "c2")]
    assert [one.says for one in by_turns(findings)] == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_a_figure_in_an_address_is_the_figure():
    drawn = '<svg a="1"><text>50 % of "it\'s" &lt;img&gt; #1 ⁻³</text></svg>'
    address = svg.data_uri(drawn)
    assert not set(address) & set('"&#')
    assert unquote(address.partition(",")[2]) == drawn.replace('a="1"', "a='1'")


def test_each_finding_is_told_once_where_a_note_stands_before_a_warning(doc):
    levels = ["ok", "note", "warn", "note"]
    told = [{"level": level, "says": f"Says {n}.", "because": f"b{n}", "try": None} for n, level in enumerate(levels)]
    text = render({**doc, "verdict": told}, "text")
    assert [text.count(f"Says {n}.") for n in (1, 2, 3)] == [1, 1, 1]
