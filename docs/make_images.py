"""Draw the figures of the gallery from real runs, and print the reports that its pages quote.

    python docs/make_images.py docs/gallery/digits.md        (all pages of the gallery, if none is named)

A page holds the command in a ```sh block, and behind it the images of that command's HTML report, each with the start
of its chart's heading as the image's title: `![what it shows](../images/gallery/NAME.svg "Norms against depth")`. A
command that no image follows is not run. What no report shows is drawn by a script of the examples, one image each:
`python examples/NAME.py -o NAME.svg`.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hessdiag.questions import documents
from hessdiag.questions.pages import render, view_of
from hessdiag.report import figures
from hessdiag.report.document import Document
from hessdiag.report.view import Table

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "docs" / "gallery"

_COMMAND = r"```sh\n(?P<command>(?:hessdiag|python examples/\w+\.py) .*?)\n```"
_IMAGE = r'!\[[^]]*\]\((?P<path>\S+\.svg) "(?P<title>[^"]+)"\)'
_PART = re.compile(f"{_COMMAND}|{_IMAGE}", re.DOTALL)


@dataclass(frozen=True)
class Run:
    """One command of a page, in words, and its images: the start of a chart's title, and a path.

    Attributes:
        arguments: Behind `hessdiag` or the script.
        images: That follow.
        script: In the place of `hessdiag`, an example.
    """

    arguments: tuple[str, ...]
    images: tuple[tuple[str, str], ...]
    script: str = ""


def _run(command: str, images: list[tuple[str, str]]) -> Run:
    program, *words = shlex.split(command)
    script = words.pop(0) if program == "python" else ""
    return Run(tuple(words), tuple(images), script)


def runs(text: str) -> Iterator[Run]:
    r"""The commands of a page with the images behind each.

    >>> list(runs('```sh\nhessdiag chain -o a.html\n```\n![b](c.svg "The output")'))
    [Run(arguments=('chain', '-o', 'a.html'), images=(('The output', 'c.svg'),), script='')]
    """
    command, images = "", list[tuple[str, str]]()
    for part in _PART.finditer(text):
        if part["path"]:
            images.append((part["title"], part["path"]))
            continue
        if command:
            yield _run(command, images)
        command, images = part["command"].replace("\\\n", " "), []
    if command:
        yield _run(command, images)


def measured(folder: Path, arguments: tuple[str, ...]) -> Document:
    """The document of a command that writes an HTML report, run in a folder."""
    words = [word.replace(".html", ".json") for word in arguments]
    subprocess.run([sys.executable, "-m", "hessdiag", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return documents.loads((folder / words[words.index("-o") + 1]).read_text("utf-8"))


def draw(page: Path, doc: Document, images: tuple[tuple[str, str], ...]) -> None:
    """Write the charts of a document's report to the paths that a page shows."""
    charts: list[Any] = [block for block in view_of(doc).blocks if not isinstance(block, Table)]
    for start, place in images:
        chart = next(chart for chart in charts if chart.title.startswith(start))
        path = (page.parent / place).resolve()
        path.parent.mkdir(exist_ok=True)
        path.write_text(figures.svg(chart), "utf-8")
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB")


def drawn(folder: Path, page: Path, run: Run) -> None:
    """Run a script that draws the one image behind it, and put that where the page shows it."""
    ((_, place),) = run.images
    subprocess.run([sys.executable, ROOT / run.script, *run.arguments], cwd=folder, check=True)
    shutil.copy(folder / run.arguments[run.arguments.index("-o") + 1], (page.parent / place).resolve())


def checkpoints(folder: Path) -> None:
    """What examples/digits.py saves, with its checkpoints."""
    command = [sys.executable, ROOT / "examples" / "digits.py", "--out", folder, "--checkpoints"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def examples(folder: Path) -> None:
    """The folder of examples."""
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("out", "__pycache__"))


def trained(folder: Path) -> None:
    """What examples/train_32x32.py saves."""
    command = [sys.executable, ROOT / "examples" / "train_32x32.py", "--out", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


PREPARE: dict[str, Callable[[Path], None]] = {  # what a page's commands find in their folder
    "digits.md": checkpoints,
    "does-not-train.md": examples,
    "adaptive-norms-figure-02.md": trained,
    "adaptive-norms-figure-06.md": examples,
    "block-structure.md": examples,
}


def remake(page: Path) -> None:
    """Run the commands of a page that images follow, draw those, and print the reports."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        PREPARE.get(page.name, lambda _: None)(folder)
        for run in runs(page.read_text("utf-8")):
            if not run.images:
                continue
            if run.script:
                drawn(folder, page, run)
                continue
            doc = measured(folder, run.arguments)
            draw(page, doc, run.images)
            print(render(doc, "text"))


if __name__ == "__main__":
    for name in map(Path, sys.argv[1:]) if len(sys.argv) > 1 else sorted(GALLERY.glob("*.md")):
        print(name)
        remake(name.resolve())
