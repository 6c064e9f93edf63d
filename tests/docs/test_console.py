"""What compares the pages' outputs with what is printed finds every wrong number, and forgives what cannot be repeated."""

import re
from dataclasses import replace

import pytest

from tests.docs.test_docs import PAGES, console, relative

QUOTED = """# A page

```console
$ hessdiag vanishing
  ×0.961  per layer: from depth 2 to 128 the median gradient norm goes from 31.8 to 2.19
  layer  parameters   share
  ─────────────────────────
  0           1,440  5.81e-4 ± 0.00012
```
"""


def quoted(text=QUOTED):
    """The first block of a page, and the lines of its body."""
    block = next(console.blocks(text))
    return block, text[block.start : block.stop].splitlines()


def found(old, new, **remark):
    """What is said of one line that says `old` where `new` is printed."""
    block, _ = quoted()
    return console._difference(old, new, replace(block, **remark))


def numbers(line):
    return [match for match in console._NUMBER.finditer(line) if not match["unit"]]


def spoiled(line, match):
    """The line with a number that is 5 % or so larger: by 3 units of its last digit at least, or one if it is whole."""
    text = match[0]
    value = float(text.replace(",", ""))
    unit = console._last_digit(text.replace(",", ""))
    steps = 1 if not re.search("[.e]", text) else 3
    wrong = value + max(steps, round(0.05 * abs(value) / unit)) * unit
    return f"{line[: match.start()]}{wrong:.12g}{line[match.end() :]}"


@pytest.mark.parametrize("wrong", ["×0.123", "×0.951", "×0.963", "×9.61", "×96.1", "×0.961e-3", "×-0.961", "0.961"])
def test_a_wrong_rate_is_found(wrong):
    """The one that once passed, and others."""
    block, lines = quoted()
    assert console.differences(QUOTED, block, lines) == []
    page = QUOTED.replace("×0.961", wrong)
    (said,) = console.differences(page, quoted(page)[0], lines)
    assert said.startswith("line 5: ")
    assert wrong in said
    assert "×0.961" in said


@pytest.mark.parametrize("page", [page for page in PAGES if any(console.blocks(page.read_text("utf-8")))], ids=relative)
def test_every_number_that_a_page_quotes_is_looked_at(page):
    text, looked = page.read_text("utf-8"), 0
    for block in console.blocks(text):
        for old in text[block.start : block.stop].splitlines():
            if old.startswith("$ "):
                continue
            line = old
            plot = console._PLOT.match(line)
            line = plot["label"] if plot else console._PASSING.sub("§", line)
            for match in numbers(line):
                new, value = spoiled(line, match), abs(float(match[0].replace(",", "")))
                looked += 1
                if 0 < value < block.rounding:
                    new = f"{line[: match.start()]}{value * 20:.3g}{line[match.end() :]}"
                elif block.about is not None:
                    new = f"{line[: match.start()]}{value * (1 + 2 * block.about):.3g}{line[match.end() :]}"
                assert console._difference(line, new, block) is not None, f"{line}\n{new}"
    outputs = any(block.show != "none" for block in console.blocks(text))
    assert looked or not outputs or page.name in ("many-processes.md",)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  31.8 to 2.19", "  31.9 to 2.18"),
        ("9.99  a", "10.0   a"),
        ("5.81e-4 ± 0.00012", "5.82e-4 ± 0.00013"),
        ("9.4767179", "9.4767208"),
        ("up to 400 vectors in 14 MiB", "up to 400 vectors in 41 MiB"),
        ("took 2.1 s", "took 6.0 s"),
        ("hessdiag 0.1.0, torch 2.6.0", "hessdiag 0.2.0, torch 2.13.0+cpu"),
        ("on 2026-01-02 03:04:05", "on 2027-11-12"),
        ("sha256 0a1b2c3d4e5f6071", "sha256 ffb2c3d4e5f60710"),
        ("OLS  █████▋  0.0355", "OLS  ██████▏  0.0355"),
        ("  layer  share\n", "  layer   share"),
        ("1e2 ┤  ●·●·····●···", "1e2 ┤  ●·●······●··"),
    ],
)
def test_what_cannot_be_repeated_is_forgiven(old, new):
    assert found(old, new) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("195 rows", "196 rows"),
        ("1,251 rows", "1,252 rows"),
        ("31.8", "32.1"),
        ("9.4767179", "9.4768208"),
        ("5.81e-4", "5.81e-5"),
        ("-0.383", "0.383"),
        ("the first", "the last"),
        ("float32", "float64"),
        ("3×7×7", "3×8×7"),
        ("14 MiB", "140 MiB"),
        ("14 MiB", "14 GiB"),
        ("2.1 s", "2.1 min"),
        ("OLS  █████▋  0.0355", "OLS  █████████  0.0355"),
        ("OLS  █████▋  0.0355", "OLS  0.0355"),
        ("1e2 ┤  ●·●·····●···", "1e2 ┤  ···●●●●····"),
        ("1e2 ┤  ●·●·····●···", "1e3 ┤  ●·●·····●···"),
        ("gains 1", "gains"),
    ],
)
def test_what_is_wrong_is_found(old, new):
    assert found(old, new) is not None


def test_remarks_loosen_one_block():
    assert found("12.3 of 40", "13.1 of 41", about=0.1) is None
    assert found("12.3 of 40", "13.1 of 61", about=0.1) is not None
    assert found("residual 1.30e-6", "residual 4e-6", rounding=1e-5) is None
    assert found("residual 1.30e-6", "residual 4e-5", rounding=1e-5) is not None
    assert found("residual 1.30e-6", "residual 4e-5") is not None


def test_lines_that_are_missing_or_too_many():
    block, lines = quoted()
    (said,) = console.differences(QUOTED, block, lines[:-1])
    assert said == f"line 8: quoted and not printed: {lines[-1]}"
    (said,) = console.differences(QUOTED, block, [*lines, "more"])
    assert said == "line 9: printed and not quoted: more"


def test_blocks_and_what_they_show():
    text = "<!-- show 1-1, end+1; about 20%; rounding 1e-5 -->\n```console\n$ seq 3; echo end\nold\n```\nand\n```console\n$ true\n```\n"
    first, second = console.blocks(text)
    assert first.commands == ("seq 3; echo end",)
    assert text[first.start : first.stop] == "$ seq 3; echo end\nold\n"
    assert (first.line, first.about, first.rounding) == (3, 0.2, 1e-5)
    assert (second.line, second.show, second.about, second.rounding) == (8, None, None, 0.0)
    assert console.chosen("1\n2\n3\nend\n", first.show) == ["1", "...", "end"]
    assert console.chosen("1\n2\n", "none") == []
    with pytest.raises(ValueError, match="no line with 'end', from which 1 are shown"):
        console.chosen("1\n2\n", first.show)


def test_a_page_is_refreshed_and_then_as_printed(tmp_path):
    text = "Numbers:\n\n<!-- show 2-2 -->\n```console\n$ seq 3; pwd\n7\n```\n\nand where:\n\n```console\n$ echo 0.5\n$ pwd\n```\n"
    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")
    (said,) = console.refresh(page, check=True)[:1]
    assert "line 6: other words" in said
    assert page.read_text("utf-8") == text
    assert console.refresh(page, check=False) == []
    assert (
        "$ seq 3; pwd\n...\n2\n...\n```\n\nand where:\n\n```console\n$ echo 0.5\n0.5\n$ pwd\n~/work\n```\n"
        in page.read_text("utf-8")
    )
    assert console.refresh(page, check=True) == []


def test_a_command_that_fails_leaves_the_page_alone(tmp_path):
    text = "```console\n$ echo no >&2; exit 3\nold\n```\n"
    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")
    assert console.refresh(page, check=False) == ["line 2: `echo no >&2; exit 3` ended with 3\nno\n"]
    assert page.read_text("utf-8") == text
