"""Run the ```console blocks of Markdown pages, and write what they print back into the pages.

    python docs/console.py README.md docs/index.md        (all pages, if none is named)
    python docs/console.py --check                         (only say what is not as printed)

A block's lines that start with `$ ` are commands for bash; the others are their output. The blocks of a page run in
order in one empty folder that holds a copy of examples/; several pages run at once. Code under a title,
```python title="train.py", is a file that the reader has saved before the blocks below it. A comment above a block says
what is kept of its output, and how closely it can be repeated, in parts that semicolons divide:

- `<!-- show 1-20, Verdict+5 -->`: lines by number, and 5 from the first that says Verdict; `show none`: nothing. What
  is left out shows as an ellipsis.
- `<!-- about 20% -->`: what is measured in time or by chance, and never comes out the same.
- `<!-- rounding 1e-5 -->`: numbers below are of rounding, and only their order of magnitude says something.

The tests compare every quoted line with what is printed (`differences`).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(sys.executable).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:<!-- (?P<remark>(?:show|about|rounding) [^>]*?) -->\n)?```console\n(?P<body>.*?)```\n", re.DOTALL
)
_SAVED = re.compile(r'```\w+ title="(?P<name>[\w.-]+)"\n(?P<body>.*?)```\n', re.DOTALL)
# Compared by nothing but their kind, and by size alone: what differs from day to day and from machine to machine.
_PASSING = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d\S*)?|\b\d+\.\d+\.\d+[\w.+]*|\b(?=\w*\d)[0-9a-f]{12,}\b")
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?P<unit> ?(?:ms|s|min|h|[KMG]i?B)\b)?"
)
_BAR = re.compile("[█▏▎▍▌▋▊▉]+")
_PLOT = re.compile(r"^(?P<label>\s*\S*\s*[┤│])(?P<plot>.*)$")
_SPACE, _RULE = re.compile(r"\s+"), re.compile("─+")
RELATIVE = 1e-5  # of single precision, however many digits are printed
TIMES = 5.0  # by how much a time or a size of memory may differ
DRAWN = 0.8  # share of a plot's characters that are the same: a last digit can move a point


@dataclass(frozen=True)
class Block:
    """One block of a page: its commands, where its body lies in the text, and what its remark says.

    Attributes:
        commands: Without the `$ `.
        start: Of the body in the text.
        stop: Its end.
        line: Of the body's first line in the page, from 1.
        show: Which lines of the output are shown; `None` for all.
        about: How far numbers may be off, relative; `None` for the printed precision.
        rounding: What is below is of rounding.
    """

    commands: tuple[str, ...]
    start: int
    stop: int
    line: int
    show: str | None = None
    about: float | None = None
    rounding: float = 0.0


class CommandError(Exception):
    """A command of a page that failed, or whose output lacks what the page shows of it."""


def blocks(text: str) -> Iterator[Block]:
    """The ```console blocks of a page, in order."""
    for match in _BLOCK.finditer(text):
        commands = tuple(line[2:] for line in match["body"].splitlines() if line.startswith("$ "))
        remarks = dict(part.strip().split(maxsplit=1) for part in (match["remark"] or "").split(";") if part)
        start = match.start("body")
        yield Block(
            commands,
            start,
            match.end("body"),
            text.count("\n", 0, start) + 1,
            remarks.get("show"),
            float(remarks["about"].rstrip("%")) / 100 if "about" in remarks else None,
            float(remarks.get("rounding", 0)),
        )


def settings(programs: Path = PROGRAMS) -> dict[str, str]:
    """The environment of a reader: this tree's program first, a plain terminal 100 columns wide, one thread."""
    return os.environ | {
        "PATH": os.pathsep.join((str(programs), str(PROGRAMS), os.environ["PATH"])),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",  # so that sums have the same last digits everywhere
        "MKL_NUM_THREADS": "1",
    }


def run(command: str, folder: Path, programs: Path = PROGRAMS) -> subprocess.CompletedProcess[str]:
    """Run one command as a reader would, with what a folder has in the place of other programs."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=settings(programs),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def new_folder(place: Path) -> Path:
    """Where a page's commands run: an empty folder with examples/."""
    shutil.copytree(ROOT / "examples", place / "examples", ignore=shutil.ignore_patterns("out", "__pycache__"))
    return place


def files(text: str) -> Iterator[tuple[int, str, str]]:
    r"""The files that a page tells its reader to save: where each ends in the text, its name and what is in it.

    >>> list(files('```python title="a.py"\nx = 1\n```\n'))
    [(34, 'a.py', 'x = 1\n')]
    """
    for match in _SAVED.finditer(text):
        yield match.end(), match["name"], match["body"]


def printed(text: str, folder: Path, programs: Path = PROGRAMS) -> Iterator[tuple[Block, list[str]]]:
    """Each block of a page with what belongs into its body: its commands, each followed by what is shown of its output.

    Raises:
        CommandError: if a command fails.
    """
    saved = list(files(text))
    for block in blocks(text):
        while saved and saved[0][0] <= block.start:
            _, name, body = saved.pop(0)
            (folder / name).write_text(body, "utf-8")
        lines = []
        for command in block.commands:
            done = run(command, folder, programs)
            if done.returncode:
                raise CommandError(f"line {block.line}: `{command}` ended with {done.returncode}\n{done.stderr}")
            output = done.stdout.replace("/private/", "/").replace(str(folder), "~/work")
            try:
                shown = chosen(output, block.show)
            except ValueError as error:
                raise CommandError(f"line {block.line}: `{command}` {error}") from None
            lines += [f"$ {command}", *(line.rstrip() for line in shown)]
        yield block, lines


def chosen(output: str, show: str | None) -> list[str]:
    r"""The lines of an output that a page shows.

    Raises:
        ValueError: if a word to begin with is not there.

    >>> chosen("a\nb\nc\nd\ne", "1-2, d+1")
    ['a', 'b', '...', 'd', '...']
    """
    lines = output.strip("\n").splitlines()
    if show is None or not lines:
        return lines
    kept: list[str] = []
    last = 0
    for part in [] if show == "none" else show.split(","):
        first, stop = _span(part.strip(), lines)
        kept += ["..."] * (first > last) + lines[first:stop]
        last = stop
    return kept + ["..."] * (0 < last < len(lines))


def _span(part: str, lines: list[str]) -> tuple[int, int]:
    """First line, counted from 0, and the one after the last."""
    word, plus, count = part.partition("+")
    if plus:
        first = next((index for index, line in enumerate(lines) if word in line), None)
        if first is None:
            raise ValueError(f"prints no line with {word!r}, from which {count} are shown")
        return first, first + int(count)
    begin, end = map(int, part.split("-"))
    return begin - 1, end


def differences(text: str, block: Block, lines: Sequence[str]) -> list[str]:
    """Where a block of a page is not what is printed, as sentences that name the page's line.

    Words are the same. So are numbers to the precision that is printed (whole numbers exactly, others within one unit
    of the last digit, or of single precision), times and memory in size, and what the block's remark allows.

    Args:
        text: The page.
        block: One of its blocks.
        lines: What its body should hold.
    """
    wrong = []
    quoted = text[block.start : block.stop].splitlines()
    for number, (old, new) in enumerate(zip_longest(quoted, lines), start=block.line):
        if old is None or new is None:
            which = "printed and not quoted" if old is None else "quoted and not printed"
            return [*wrong, f"line {number}: {which}: {new if old is None else old}"]
        why = _difference(old, new, block)
        if why is not None:
            wrong.append(f"line {number}: {why}\n    quoted   {old}\n    printed  {new}")
    return wrong


def _difference(old: str, new: str, block: Block) -> str | None:
    """In what two lines differ; `None` where they say the same."""
    if old == new:
        return None
    plots = _PLOT.match(old), _PLOT.match(new)
    if plots[0] and plots[1]:
        pairs = list(zip_longest(*(plot["plot"].rstrip() for plot in plots if plot)))
        if sum(a == b for a, b in pairs) < DRAWN * len(pairs):
            return "another plot"
        old, new = (plot["label"] for plot in plots if plot)
    old, new = (_PASSING.sub("§", line) for line in (old, new))
    bars = [[len(bar) for bar in _BAR.findall(line)] for line in (old, new)]
    if len(bars[0]) == len(bars[1]) and any(abs(a - b) > 1 for a, b in zip(*bars, strict=True)):
        return "bars of other lengths"
    if _words(old) != _words(new):
        return "other words"
    for a, b in zip(_NUMBER.finditer(old), _NUMBER.finditer(new), strict=True):
        if not _alike(a, b, block):
            return f"{a[0].strip()} is {b[0].strip()}"
    return None


def _words(line: str) -> str:
    """What is left of a line without its numbers, and without how far apart things stand."""
    for pattern, sign in ((_NUMBER, r"#\g<unit>"), (_BAR, "█"), (_RULE, "─"), (_SPACE, " ")):
        line = pattern.sub(sign, line)
    return line.strip()


def _alike(old: re.Match[str], new: re.Match[str], block: Block) -> bool:
    """Whether two numbers are the same as far as one can ask."""
    texts = [match[0].removesuffix(match["unit"] or "").replace(",", "") for match in (old, new)]
    a, b = map(float, texts)
    larger, smaller = max(abs(a), abs(b)), min(abs(a), abs(b))
    if a == b:
        return True
    if old["unit"]:
        return larger <= TIMES * smaller
    if larger < block.rounding:
        return larger <= 10 * smaller
    if block.about is not None:
        return abs(a - b) <= block.about * larger
    if not re.search("[.e]", "".join(texts)):
        return False
    return abs(a - b) <= max(1.01 * min(map(_last_digit, texts)), RELATIVE * larger)


def _last_digit(number: str) -> float:
    """What one unit of the last digit counts.

    >>> _last_digit("1.20e-3"), _last_digit("12")
    (1e-05, 1.0)
    """
    digits, _, power = number.partition("e")
    return float(f"1e{int(power or 0) - len(digits.partition('.')[2])}")


def refreshed(text: str, folder: Path) -> str:
    """A page with the outputs of its blocks replaced."""
    parts, end = [], 0
    for block, lines in printed(text, folder):
        parts += [text[end : block.start], "\n".join(lines), "\n"]
        end = block.stop
    return "".join(parts) + text[end:]


def refresh(page: Path, *, check: bool) -> list[str]:
    """Run a page's blocks, and replace their outputs or say where they differ; also of failures, in sentences."""
    text = page.read_text("utf-8")
    with tempfile.TemporaryDirectory() as place:
        folder = new_folder(Path(place))
        try:
            if check:
                return [line for block, lines in printed(text, folder) for line in differences(text, block, lines)]
            page.write_text(refreshed(text, folder), "utf-8")
        except (CommandError, subprocess.TimeoutExpired) as error:
            return [str(error)]
    return []


def main() -> int:
    """All pages, or those that are named, several at once; a page whose commands fail stays as it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="change nothing, and say what is not as printed")
    options = parser.parse_args()
    pages = [page for page in options.pages or PAGES if any(blocks(page.read_text("utf-8")))]
    failed = False
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for page, wrong in zip(pages, pool.map(lambda page: refresh(page, check=options.check), pages), strict=True):
            print(page, *wrong, sep="\n  ", flush=True)
            failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
