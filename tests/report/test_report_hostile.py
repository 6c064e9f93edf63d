"""Documents in which every name commands a terminal, ends an element, opens a link or turns the text around."""

import json
import re
import subprocess
import unicodedata
from urllib.parse import unquote

import pytest

from hessdiag.questions.pages import render
from hessdiag.report import document, shell
from hessdiag.report.visible import visible
from tests.shown import DOCUMENTS

HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07\x9b2J\r\b\x00\x7f\u202eback\u2066\u200b\u2028\ufeff\U000e0041\u3164"
    "\nnew *b* _i_ ~~s~~ `c` | pipe | [l](javascript:x) ![i](x) <img src=x onerror=alert(1)> </title></script> &amp; $x^2$ '\"\\"
)
COMMAND = re.compile(r"^```sh\n[\w'$].*\n```$", re.M)  # a line of its own, in which nothing is anything but text
# What documents hold as one of a few words: another one is refused where it is read.
CHOICES = {
    "schema", "command", "status", "level", "method", "operator", "init", "distribution", "activation", "kind",
    "what", "scope", "quantity", "id", "target", "bound", "loss_in_output", "hessian_method", "outcome",
    "ended", "preset", "state", "optimizer_state", "error_of", "decided_by", "regime", "varied", "role", "held", "multipliers", "weighted_at",
    "how", "way",
}  # fmt: skip


def hostile(value, key=""):
    """The same document with the hostile text at the end of every name in it."""
    if isinstance(value, dict) and key == "point":  # of words that are known
        return value
    if isinstance(value, dict):
        return {name: hostile(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, key) for item in value]
    return value + HOSTILE if isinstance(value, str) and key not in CHOICES else value


def raw(text):
    """The characters of a text that ought not to be in it."""
    return {
        sign
        for sign in text
        if sign != "\n" and (sign == "\u3164" or unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    }


@pytest.fixture(params=[name for name in DOCUMENTS if name not in ("one-layer", "chain-of-one", "shallow")])
def doc(request):
    made = hostile(DOCUMENTS[request.param]())
    made["provenance"]["argv"] = ["hessdiag", "eigs", HOSTILE]
    return made


@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_nothing_raw_reaches_a_medium(doc, form):
    text = render(doc, form)
    assert raw(text) == set()
    assert form == "json" or r"\x1b" in text.replace(r"\\", "\\")


def test_colours_are_ours_alone(doc):
    text = render(doc, "text", color=True)
    assert raw(re.sub(r"\x1b\[[0-9;]*m", "", text)) == set()
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == render(doc, "text")


def test_markdown_is_text(doc):
    """No name makes a tag, a link, code, emphasis or a cell."""
    text = COMMAND.sub("", render(doc, "markdown"))
    assert "<" not in text
    for sign in "`[]~":
        assert not re.search(rf"(?<!\\)(?:\\\\)*{re.escape(sign)}", text)
    assert "$" not in text
    assert "| pipe |" not in text


def test_the_page_is_text_and_its_figures_hold_no_name_raw():
    for name in ("sampled", "blocks-exact", "eigs"):
        page = render(hostile(DOCUMENTS[name]()), "html")
        assert raw(page) == set()
        assert page.count("<script") == page.count("</script") == 1
        assert "<img src=x" not in page
        for image in re.findall(r"data:image/svg\+xml,([^\"]+)", page):
            drawn = unquote(image)
            assert raw(drawn) == set()
            assert "<img" not in drawn
            assert "<script" not in drawn


def test_the_command_to_paste_is_the_command_that_ran(tmp_path):
    argv = ["hessdiag", "eigs", "it's \\ \x1b[31m\u202e\n$(touch x) `id`", "plain", ""]
    line = shell.line(argv)
    assert raw(line) == set()
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, cwd=tmp_path, check=True)
    assert said.stdout.decode().split("\0")[:-1] == argv


def test_json_holds_what_it_held(doc):
    assert json.loads(document.dumps(doc)) == json.loads(json.dumps(document._encode(doc)))


@pytest.mark.parametrize("text", ["Größe θ × 層.重み", "layer.0.weight", "emoji 🙂", "é e\u0301"])
def test_scripts_of_people_stay(text):
    assert visible(text) == text
