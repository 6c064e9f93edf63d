"""Run the ```console blocks of Markdown pages, and write what they print back into the pages.

    python docs/console.py README.md docs/index.md        (all pages, if none is named)

A block's lines that start with `$ ` are commands for bash; the others are their output. The blocks of a page run in
order in one empty folder that holds a copy of examples/. A comment above a block chooses what is kept of its output:
`<!-- show 1-20, Verdict+5 -->` lines by number, and 5 from the first that says Verdict; `<!-- show none -->` nothing.
What is left out shows as an ellipsis.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"(?:<!-- show (?P<show>[^>]*?) -->\n)?```console\n(?P<body>.*?)```\n", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block of a page: its commands, where its body lies in the text, and which output lines it shows."""

    commands: tuple[str, ...]
    start: int
    stop: int
    show: str | None


def blocks(text: str) -> Iterator[Block]:
    """The ```console blocks of a page, in order."""
    for match in _BLOCK.finditer(text):
        commands = tuple(line[2:] for line in match["body"].splitlines() if line.startswith("$ "))
        yield Block(commands, match.start("body"), match.end("body"), match["show"])


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one command as a reader would: this Python's programs first, a plain terminal 100 columns wide."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def new_folder(place: Path) -> Path:
    """Where a page's commands run: an empty folder with examples/."""
    shutil.copytree(ROOT / "examples", place / "examples", ignore=shutil.ignore_patterns("out", "__pycache__"))
    return place


def chosen(output: str, show: str | None) -> list[str]:
    r"""The lines of an output that a page shows.

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
        first = next(index for index, line in enumerate(lines) if word in line)
        return first, first + int(count)
    first, last = map(int, part.split("-"))
    return first - 1, last


def refresh(page: Path) -> None:
    """Run a page's blocks and replace their outputs."""
    text = page.read_text("utf-8")
    parts, end = [], 0
    with tempfile.TemporaryDirectory() as place:
        folder = new_folder(Path(place))
        for block in blocks(text):
            lines = []
            for command in block.commands:
                done = run(command, folder)
                if done.returncode:
                    sys.exit(f"{page}: `{command}` ended with {done.returncode}\n{done.stderr}")
                lines += [f"$ {command}", *chosen(done.stdout, block.show)]
            body = "\n".join(line.rstrip() for line in lines).replace("/private/", "/").replace(place, "~/work")
            parts += [text[end : block.start], body, "\n"]
            end = block.stop
    page.write_text("".join(parts) + text[end:], "utf-8")


if __name__ == "__main__":
    for name in map(Path, sys.argv[1:]) if len(sys.argv) > 1 else PAGES:
        print(name)
        refresh(name)
