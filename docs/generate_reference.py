"""Write what follows from the registries: reference and manual pages, README's table of commands, stubs for checkers.

python docs/generate_reference.py
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

import hessdiag
from hessdiag import results
from hessdiag.cli.main import COMMANDS, cli
from hessdiag.curvature.registry import OPERATORS
from hessdiag.questions.registry import QUESTIONS, Question

sys.path.insert(0, str(Path(__file__).parent))
from man_page import man_page

ROOT = Path(__file__).parent.parent
COMMAND_LINE = """\
# Command line

This page is what `--help` prints; `python docs/generate_reference.py` writes it. How models, data and losses are
named is in [Your own model](../how-to/your-own-model.md), what the exit codes mean in [Exit codes](exit-codes.md).
"""
PYTHON = """\
# Python

Every name is imported as it stands here: functions, operators and results from `hessdiag`, what results consist of
from `hessdiag.results` (for annotations; nothing there has to be made). Solvers and estimators for any operator are on
[a page of their own](linalg.md). Importing the packages does not import torch; using a name does. This page is written
by `python docs/generate_reference.py`.
"""
OPERATORS_HAVE = """\
All of them have `@`, `shape`, `dtype` and `device`, and what [operators](linalg.md#operators) have beside: `.T`, sums
and factors, `.diagonal()`, `.trace()`, `.to_scipy()`."""
STUB = '"""Written by docs/generate_reference.py from the registries: for type checkers and editors."""\n\n'
ROW = re.compile(rf"^\| `hessdiag (?:{'|'.join(asked.name for asked in QUESTIONS)})[ `].*\n", re.MULTILINE)


def command_line() -> str:
    """What `--help` of every command prints."""
    sections = [COMMAND_LINE]
    for name in ("", *COMMANDS):
        title = f"hessdiag {name}".strip()
        help_text = CliRunner().invoke(
            cli, [*name.split(), "--help"], prog_name="hessdiag", terminal_width=80, catch_exceptions=False
        )
        sections.append(f"## {title}\n\n```text\n{help_text.output.rstrip()}\n```\n")
    return "\n".join(sections)


def python() -> str:
    """All public names: a section for each question, with what its result consists of."""
    sections = [
        ("Problems", _listed("Problem", "ProblemRequest", "load_problem", "read_data", "sharded")),
        (
            "Matrices",
            [*_listed(*(entry.kind for entry in OPERATORS), "in_metric", "hessian", "hessian_block"), OPERATORS_HAVE],
        ),
        *(
            (asked.name.replace("-", " ").capitalize(), [*_listed(*_functions_first(asked)), *_parts(asked)])
            for asked in QUESTIONS
        ),
        ("While it trains", _listed("Monitor")),
        ("What results have in common", [*_listed("load"), *(f"::: hessdiag.results.{name}" for name in _shared())]),
        ("Errors", _listed("HessdiagError")),
    ]
    return "\n".join([PYTHON, *(f"## {title}\n\n" + "\n\n".join(entries) + "\n" for title, entries in sections)])


def _listed(*names: str) -> list[str]:
    return [f"::: hessdiag.{name}" for name in names]


def _functions_first(asked: Question) -> list[str]:
    return sorted(asked.public, key=lambda name: (not name.islower(), name))


def _parts(asked: Question) -> Iterator[str]:
    yield from (f"::: hessdiag.results.{name}" for name in _described(asked) if name not in asked.public)


def _described(asked: Question) -> list[str]:
    """The classes that the results of a question, of all kinds, are made of."""
    modules = ["result", *(f"{kind.package}.result" for kind in asked.variants)]
    return [name for module in modules for name in results.parts(asked.module(module))]


def _shared() -> list[str]:
    own = {name for asked in QUESTIONS for name in _described(asked)}
    return [name for name in results.__all__ if name not in own]


def table(page: str) -> str:
    """README with the rows of its table of commands as the registry has them."""
    rows = [
        f"| `hessdiag {asked.name}{asked.takes and ' '}{asked.takes}` | {asked.asks or asked.help} | {asked.shows} |\n"
        for asked in QUESTIONS
    ]
    first = ROW.search(page)
    assert first is not None
    return page[: first.start()] + "".join(rows) + ROW.sub("", page[first.start() :])


def package_stub() -> str:
    """The names of `hessdiag`."""
    homes = {name: home for name, home in hessdiag._HOMES.items() if home}
    modules = [name for name, home in hessdiag._HOMES.items() if not home]
    lines = [*(f"from hessdiag import {name} as {name}\n" for name in modules), *_imports(homes)]
    return STUB + "".join(lines) + "\n__version__: str\n" + _all(hessdiag.__all__)


def results_stub() -> str:
    """The names of `hessdiag.results`."""
    return (
        STUB
        + "from types import ModuleType\n\n"
        + "".join(_imports(results._HOMES))
        + "\ndef parts(module: ModuleType) -> list[str]: ...\n"
        + _all(results.__all__)
    )


def _imports(homes: dict[str, str]) -> list[str]:
    return [
        f"from {home} import {name} as {name}\n"
        for name, home in sorted(homes.items(), key=lambda one: (one[1], one[0]))
    ]


def _all(names: list[str]) -> str:
    return "\n__all__ = [\n" + "".join(f'    "{name}",\n' for name in names) + "]\n"


GENERATED = {
    ROOT / "docs" / "reference" / "cli.md": command_line,
    ROOT / "docs" / "reference" / "python.md": python,
    ROOT / "docs" / "man" / "hessdiag.1": man_page,
    ROOT / "README.md": lambda: table((ROOT / "README.md").read_text("utf-8")),
    ROOT / "hessdiag" / "__init__.pyi": package_stub,
    ROOT / "hessdiag" / "results.pyi": results_stub,
}


if __name__ == "__main__":
    for path, written in GENERATED.items():
        path.write_text(written(), "utf-8")
