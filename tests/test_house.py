"""Which file of the package imports which, read from the sources: arrows between rooms run one way.

What does not hold yet stands in a list. It may only become shorter: an entry that is no longer needed fails.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from hessdiag.questions.registry import QUESTIONS

ROOT = Path(__file__).parents[1]
GROUND = {"errors", "fields", "files", "lazy", "numbers", "packages", "suggest", "version"}
FOLDER_MODULES, MODULE_LINES, FUNCTION_LINES = 24, 400, 80

# What each room may import besides itself and the ground.
BELOW: Mapping[str, set[str]] = {
    **{name: set() for name in GROUND},
    "machine": set(),
    "statistics": set(),
    "theory": set(),
    "report": set(),
    "linalg": {"machine", "statistics"},
    "nets": {"machine"},
    "problem": {"machine", "nets"},
    "shards": {"machine", "problem"},
    "curvature": {"machine", "nets", "problem", "linalg", "shards"},
    "optimizers": {"machine", "problem", "shards", "curvature", "linalg", "theory"},
    "questions": {
        "machine",
        "nets",
        "problem",
        "linalg",
        "shards",
        "curvature",
        "optimizers",
        "theory",
        "statistics",
        "report",
    },
    "monitor": {"machine", "problem", "linalg", "curvature", "optimizers", "theory", "report", "questions"},
    "cli": {"machine", "nets", "problem", "shards", "curvature", "optimizers", "report", "questions"},
}
PROBLEM = (  # within its room: each part may import those of the lines before
    {"graph", "nearby"},
    {"measuring", "modes", "once", "replaced", "seeds", "spec", "structure"},
    {"files"},
    {"batches"},
    {"device", "finite", "losses"},
    {"evaluation", "layers", "lightning", "order", "wrappers"},
    {"problem"},
    {"as_it_trains", "describe", "touched"},
    {"parts"},
    {"partition"},
    {"loading"},
    {"load"},
)


@dataclass(frozen=True)
class Import:
    """An import of one module of the package, or of torch, by another.

    Attributes:
        source: Who imports.
        target: What is imported.
        typing: Whether only type checkers see it.
    """

    source: str
    target: str
    typing: bool

    @property
    def arrow(self) -> tuple[str, str]:
        return self.source, self.target


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): path for path in sorted((ROOT / "hessdiag").rglob("*.py"))}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def _statements(node: ast.AST, typing: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """All imports below a node, wherever they stand, and whether only type checkers see them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, typing
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for inside in child.body:
                yield from _statements(ast.Module([inside], []), True)
            for other in child.orelse:
                yield from _statements(ast.Module([other], []), typing)
        else:
            yield from _statements(child, typing)


def _targets(statement: ast.Import | ast.ImportFrom) -> set[str]:
    """Modules that a statement imports: `from a import b` is a.b, where that is one."""
    if isinstance(statement, ast.Import):
        return {name.name for name in statement.names}
    assert statement.level == 0, "imports are absolute"
    base = statement.module or ""
    full = {f"{base}.{name.name}" for name in statement.names}
    return {name if name in MODULES else base for name in full}


@cache
def imports() -> tuple[Import, ...]:
    """All imports between modules of the package, and those of torch."""
    found = {
        Import(module, "torch" if target.partition(".")[0] == "torch" else target, typing)
        for module in MODULES
        for statement, typing in _statements(_tree(module))
        for target in _targets(statement)
        if target in MODULES or target.partition(".")[0] == "torch"
    }
    return tuple(sorted(found, key=lambda one: (*one.arrow, one.typing)))


def inner() -> list[Import]:
    """Imports between modules of the package."""
    return [one for one in imports() if one.target in MODULES and one.target != one.source]


def room(module: str) -> str:
    """The part of a name that says which room it is in; empty for the top."""
    return module.split(".")[1] if "." in module else ""


def exactly(found, known, what):
    """That nothing is found beside what is known, and that all of that is still found."""
    new, gone = sorted(set(found) - set(known)), sorted(set(known) - set(found))
    assert not new, f"{what}: {new}"
    assert not gone, f"no longer so, and off the list with it: {gone}"


def circles(arrows):
    """Groups of modules that reach each other (Tarjan's strongly connected components), and what imports itself."""
    after = {}
    for source, target in arrows:
        after.setdefault(source, []).append(target)
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in after.get(node, ()):
            if other not in number:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in after:
        if node not in number:
            visit(node)
    return found


def test_circles_are_found():
    arrows = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "d"), ("a", "f")]
    assert sorted(circles(arrows)) == [["b", "c"], ["d", "e", "f"]]


def test_imports_are_found_wherever_they_stand():
    arrows = {(one.target, one.typing) for one in imports() if one.source == "hessdiag.machine.cost"}
    assert ("hessdiag.errors", False) in arrows
    assert ("torch", True) in arrows
    assert any(one.source == "hessdiag.cli.answer" and one.target == "hessdiag.problem.load" for one in inner())


def test_no_two_files_import_each_other():
    assert circles({one.arrow for one in inner()}) == []


def test_rooms_import_those_below():
    found = {
        one.arrow
        for one in inner()
        if room(one.source) in BELOW
        and room(one.target)
        and room(one.target) not in {room(one.source)} | BELOW[room(one.source)] | GROUND
        and not (one.source.endswith(".command") and room(one.target) == "cli")
    }
    exactly(found, set(), "rooms import what is not below them")
    assert {room(module) for module in MODULES} - set(BELOW) == {"", "__main__", "results"}


def test_parts_of_the_problem_import_those_before():
    def part(module):
        return module.removeprefix("hessdiag.problem.").partition(".")[0]

    inside = [one for one in inner() if one.source.startswith("hessdiag.problem.") and room(one.target) == "problem"]
    line = {name: number for number, names in enumerate(PROBLEM) for name in names}
    assert set(line) == {part(one.source) for one in inside} | {part(one.target) for one in inside}
    across = [one.arrow for one in inside if part(one.source) != part(one.target)]
    assert across
    assert [arrow for arrow in across if line[part(arrow[0])] <= line[part(arrow[1])]] == []


def test_nothing_inside_imports_the_top():
    assert [one.arrow for one in inner() if one.target == "hessdiag"] == []


def test_nothing_imports_main_but_the_entry():
    assert {one.source for one in inner() if one.target == "hessdiag.cli.main"} == {"hessdiag.__main__"}


def test_questions_import_no_other_question():
    packages = {question.package for question in QUESTIONS}
    pairs = [(package, other) for package in packages for other in packages - {package}]
    found = [
        one.arrow
        for one in inner()
        if any(one.source.startswith(f"{package}.") and one.target.startswith(f"{other}.") for package, other in pairs)
    ]
    assert found == []


def _reaching(targets: set[str], *, typing: bool) -> set[str]:
    """Modules that import one of these, or a module or a package that does."""
    arrows = [one.arrow for one in imports() if typing or not one.typing]
    arrows += [(module, module.rpartition(".")[0]) for module in MODULES if "." in module and not typing]
    found = set(targets)
    while more := {source for source, target in arrows if target in found} - found:
        found |= more
    return found


@pytest.mark.parametrize("part", ["result", "verdict", "view"])
def test_what_reads_results_imports_no_torch(part):
    modules = {f"{question.package}.{part}" for question in QUESTIONS} & set(MODULES)
    assert len(modules) == len(QUESTIONS)
    assert modules & _reaching({"torch"}, typing=False) == set()


def test_what_reads_results_knows_no_measurement():
    measuring = {f"{question.package}.{part}" for question in QUESTIONS for part in ("measure", "command")}
    assert measuring <= set(MODULES)
    readers = {f"{question.package}.{part}" for question in QUESTIONS for part in ("result", "verdict", "view")}
    assert readers & _reaching(measuring, typing=True) == set()


def test_folders_are_of_a_size_that_can_be_looked_over():
    widths = Counter(path.parent.relative_to(ROOT).as_posix() for path in MODULES.values())
    found = {folder for folder, count in widths.items() if count > FOLDER_MODULES}
    exactly(found, set(), f"folders of more than {FOLDER_MODULES} modules")


def test_modules_are_of_a_size_that_can_be_read():
    found = {name for name, path in MODULES.items() if len(path.read_text().splitlines()) > MODULE_LINES}
    assert sorted(found) == []


def test_functions_are_of_a_size_that_can_be_read():
    found = {
        f"{module}.{node.name}"
        for module in MODULES
        for node in ast.walk(_tree(module))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES
    }
    assert sorted(found) == []
