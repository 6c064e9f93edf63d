import base64
import gzip
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from hessdiag.questions.documents import loads
from hessdiag.questions.pages import render, view_of
from hessdiag.report import figures
from hessdiag.report import html as page_module
from hessdiag.report.document import dumps
from hessdiag.report.drawing import NARROW, STYLE, WIDE
from hessdiag.report.html import _in_script
from hessdiag.report.view import Lines, Table
from hessdiag.report.visible import visible
from tests.documents import document, of_layers, renamed

VOID = {"meta", "img", "link", "br", "hr", "input"}
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&$x^2${{ 7*7 }}\u2028{}"


class Page(HTMLParser):
    """Every element with its attributes, the open stack checked, and text by element."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.stack, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.stack, f"left open: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.stack)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def all(self, tag):
        return [attrs for name, attrs, _ in self.elements if name == tag]

    def text(self, tag):
        return "".join(data for name, data in self.texts if name == tag)


def embedded(page):
    """The document that a page carries: as it is, or packed where it is large."""
    (script,) = page.all("script")
    text = page.text("script")
    packed = script["type"] == "application/gzip+base64"
    return loads(gzip.decompress(base64.b64decode(text)).decode() if packed else text)


def charts(view):
    """All figures of a view, those of its sections too."""
    own = [block for block in view.blocks if not isinstance(block, Table)]
    return own + [block for section in view.sections for block in charts(section.view)]


def test_page_is_well_formed_and_loads_nothing(html):
    text, page = html, Page(html)
    for _, attrs, _ in page.elements:
        for name in ("src", "href", "data", "action", "xlink:href"):
            assert attrs.get(name, "#").startswith(("#", "data:image/svg+xml,")), attrs
        assert not [name for name in attrs if name.startswith("on")]
    assert "@import" not in text
    assert "url(" not in text.replace("url(%23", "")  # but for what a figure refers to in itself
    assert len(page.all("script")) == 1
    assert page.all("script")[0]["type"] in ("application/json", "application/gzip+base64")  # data, which does not run
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_headings_are_in_order_and_figures_are_described(doc, html):
    page = Page(html)
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    view, images = view_of(doc), page.all("img")
    assert len(images) == len(charts(view)) == len(page.all("figcaption"))
    if not view.sections:  # whose tables are folded as well
        assert len(page.all("details")) == len(images)
    assert all(len(image["alt"]) > 20 for image in images)
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    ids = [attrs["id"] for _, attrs, _ in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(attrs["aria-labelledby"] in ids for _, attrs, _ in page.elements if "aria-labelledby" in attrs)


def test_every_figure_is_valid_svg_wide_and_narrow(html):
    images = [image["src"] for image in Page(html).all("img")]
    narrow = [source["srcset"] for source in Page(html).all("source")]
    assert len(images) == len(narrow)
    for image in images + narrow:
        assert image.startswith("data:image/svg+xml,")
        root = ElementTree.fromstring(unquote(image.partition(",")[2]))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not [e for e in root.iter() if e.tag.endswith(("script", "foreignObject"))]


def test_the_same_document_gives_the_same_bytes(doc, html):
    assert html == render(loads(render(doc, "json")), "html")


def test_hostile_names_are_text():
    doc = renamed(document("diag-share-trajectory"), HOSTILE)
    doc["problem"] |= {"model": HOSTILE, "spec": HOSTILE, "notes": [HOSTILE]}
    doc["verdict"][0] |= {"says": HOSTILE, "because": HOSTILE, "try": HOSTILE}
    doc["result"]["trajectory"][0]["label"] = HOSTILE
    doc["provenance"]["argv"] = ["hessdiag", HOSTILE]
    page = Page(render(doc, "html"))
    assert {image.get("src", "")[:10] for image in page.all("img")} == {"data:image"}
    assert len(page.all("script")) == 1
    assert visible(HOSTILE) in page.text("title")
    assert visible(HOSTILE.format(0)) in page.text("th")
    assert json.loads(page.text("script")) == json.loads(render(doc, "json"))


def test_embedded_data_is_the_document(doc, html):
    assert embedded(Page(html)) == doc


def test_embedded_data_cannot_end_its_element():
    text = _in_script(dumps({"name": "</script><!--<script>\u2028&"}, indent=None))
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"name": "</script><!--<script>\u2028&"}


def test_nan_stays_readable():
    doc = document("vanishing")
    doc["result"]["depths"][0]["gradient_norm"]["median"] = math.nan
    page = Page(render(doc, "html"))
    assert json.loads(page.text("script"))["result"]["depths"][0]["gradient_norm"]["median"] == "NaN"
    assert "NaN" in page.text("td")


@pytest.mark.parametrize("name", ["diag-share-rows", "eigs-exact", "vanishing", "blocks-exact", "blocks"])
def test_a_report_of_128_layers_stays_below_a_megabyte(name):
    assert len(render(of_layers(document(name), 128), "html").encode()) < 1_000_000


def test_a_large_document_is_embedded_compressed():
    doc = of_layers(document("blocks"), 96)
    page = Page(render(doc, "html"))
    (script,) = page.all("script")
    assert script["type"] == "application/gzip+base64"
    assert embedded(page) == doc
    assert "gzipped JSON" in page.text("p")


def test_a_larger_one_is_rounded_and_that_is_said(monkeypatch):
    doc = of_layers(document("blocks"), 64)
    doc["result"]["norm"] = math.pi
    monkeypatch.setattr(page_module, "LARGE", 1000)
    monkeypatch.setattr(page_module, "LARGEST", 1000)
    page = Page(render(doc, "html"))
    held = embedded(page)
    assert held["result"]["norm"] == 3.14159
    assert held["problem"] == doc["problem"]
    assert "rounded to 6 digits" in page.text("p")


def test_numbers_do_not_break_and_names_do():
    assert page_module._breaking("a <b> 2.81e-22, -1e-3") == (
        'a &lt;b&gt; <span class="kept">2.81e-22</span>, <span class="kept">-1e-3</span>'
    )
    assert page_module._breaking("encoder.layer.11.dense") == "encoder.<wbr/>layer.11.<wbr/>dense"
    assert page_module._breaking("0.25 of it") == "0.25 of it"


def test_no_line_of_a_heading_ends_within_the_name_of_a_command():
    page = render(document("compare"), "html")
    assert re.search(r'<h1>[^<]*results of <span class="kept">diag-share</span>, and [^<]*</h1>', page)


def test_a_reason_with_numbers_in_it_is_one_column(html):
    """The row is a flex container: each child of its own would stand beside the others."""
    found = re.findall(r'<p class="because">(.*?)</p>', html, flags=re.DOTALL)
    for inner in found:
        plain = re.sub(r'<span class="kept">([^<]*)</span>', r"\1", inner).replace("<wbr/>", "")
        assert re.fullmatch(r"<span>(because|try)</span> <(span|code)>[^<]*</(span|code)>", plain), inner
    assert len(found) > 1


def test_long_tables_in_markdown_say_what_is_between():
    text = render(of_layers(document("diag-share"), 60), "markdown")
    assert "| 36 rows between: --json has them |" in text
    assert text.count("Linear |") == 24
    assert "rows between" not in render(of_layers(document("diag-share"), 40), "markdown")


def test_on_paper_a_long_table_says_what_is_between():
    page = Page(render(of_layers(document("diag-share"), 60), "html"))
    assert "36 rows between: on the screen, and in the JSON" in page.text("td")
    rows = [attrs.get("class") for attrs in page.all("tr")]
    assert rows.count("more") == 36
    assert not [
        name
        for name in (
            attrs.get("class") for attrs in Page(render(of_layers(document("diag-share"), 40), "html")).all("tr")
        )
        if name
    ]


def test_a_figure_follows_the_scheme_and_is_drawn_for_the_width_of_a_phone():
    chart = next(block for block in view_of(document("diag-share")).blocks if not isinstance(block, Table))
    wide, narrow = figures.svg(chart), figures.svg(chart, NARROW)
    for text in (wide, narrow):
        assert "prefers-color-scheme:dark" in text
        painted = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text))
        assert not painted, painted
    assert [float(re.search(r'width="([\d.]+)pt"', text)[1]) for text in (wide, narrow)] == [648.0, 252.0]


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1e3), (1e-40, 1e5), (0.01, 3.0)])
@pytest.mark.parametrize("page", [WIDE, NARROW])
def test_log_axes_are_labelled_at_decades(low, high, page):
    said = [text for text in labels_of(low, high, page) if re.fullmatch("1|10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", text)]
    assert 2 <= len(said) == len(set(said)) <= 2 * page.decades + 1


def test_within_a_decade_plain_numbers_label_the_axis():
    assert {"0.2", "0.5"} <= set(labels_of(0.2, 0.9, WIDE))


def labels_of(low, high, page):
    chart = next(block for block in view_of(document("forward")).blocks if isinstance(block, Lines))
    values = tuple(low * (high / low) ** (index / (len(chart.x) - 1)) for index in range(len(chart.x)))
    alone = replace(
        chart, x=tuple(1000 * x for x in chart.x), series=(replace(chart.series[0], values=values, low=(), high=()),)
    )
    return re.findall(r">([^<>\n]+)</text>", figures.svg(alone, page))


def test_everything_to_reproduce_is_there():
    doc = document("diag-share")
    problem, provenance = doc["problem"], doc["provenance"]
    problem["trusted_code"], provenance["wall_seconds"], provenance["peak_memory_bytes"] = True, 1.25, 250_000_000
    page = Page(render(doc, "html"))
    text = page.text("dd") + page.text("code") + page.text("dt") + page.text("span")  # an option is kept unbroken
    for needed in ("hessdiag diag-share model.pt", f"torch {provenance['versions']['torch']}",
                   problem["weights_sha256"], problem["data_sha256"], problem["files"][0]["sha256"], "float32, seed 0",
                   "1.25 s", "238 MiB", "math kernel", "1 thread", "--trust-code"):  # fmt: skip
        assert needed in text, needed


def test_markdown_tables_are_rectangular(doc):
    hostile = renamed(document("diag-share"), "a|b`<img>{}")
    for text in (render(doc, "markdown"), render(hostile, "markdown")):
        assert "<img" not in text
        for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert len({line.count("|") for line in block.splitlines()}) == 1
        assert "### Verdict" in text or "### Findings" in text


def test_theory_and_checks_are_on_the_page():
    doc = document("vanishing")
    doc["theory"] |= {"exact": True, "typical_growth": 0.9596}
    doc["checks"] = {"hvp_symmetry": 2e-9}
    doc["thresholds"] = {"hvp_symmetry": 1e-5}
    page = Page(render(doc, "html"))
    assert {"exact", "typical growth", "symmetry of the products"} <= {data for tag, data in page.texts if tag == "th"}
    assert {"yes", "0.960", "2.0e-9", "1e-5", "passed"} <= {data for tag, data in page.texts if tag in ("td", "span")}


def test_no_legend_is_wider_than_its_figure():
    chart = next(block for block in view_of(document("forward")).blocks if isinstance(block, Lines))
    long = tuple(
        replace(series, name=f"quite a long name of an initialization: {series.name}", group=index % 3)
        for index, series in enumerate(chart.series)
    )
    with mpl.rc_context(STYLE):
        (legend,) = figures._lines(replace(chart, series=long)).legends
    assert legend.get_window_extent().width <= legend.get_figure().bbox.width
