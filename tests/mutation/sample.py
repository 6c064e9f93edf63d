"""How many wrong programs do the tests of a room let pass? A random sample of mutants, by mutmut.

    pip install -e '.[test,mutation]'
    python -m tests.mutation.sample linalg --each 40 --seed 0

A mutant is the program with one small mistake: a sign, a bound, a factor. It is killed by a test of the mirrored folder
or by an example in a docstring of its file. Survivors are printed as diffs: some are equivalent to the program, the
others show what no test looks at. Mutants run one after another on a quiet machine: a test that runs out of time counts
as a kill. This runs on request only; measured rates stand in CONTRIBUTING.md.
"""

import argparse
import doctest
import importlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("hessdiag", "tests", "examples", "docs", "pyproject.toml", "README.md")
SETTINGS = """[mutmut]
source_paths=hessdiag
only_mutate=hessdiag/{room}/*.py
pytest_add_cli_args=
    -n0
    -o
    addopts=
{apart}
pytest_add_cli_args_test_selection=tests/{tests}
also_copy=
    tests
    examples
    docs
    README.md
use_setproctitle=false
use_git_change_detection=false
track_dependencies=false
process_isolation=forkserver
timeout_multiplier=8
timeout_constant=10
"""
# Left out of mutmut's own runs. Processes that a test starts in a folder of its own do not find mutmut's settings there,
# which is an error while it counts who calls what: these tests run after the others, as a whole, on what they are for.
# The coverage of intervals by hundreds of runs takes half a minute, and is left out.
APART = {"tests/machine/test_processes.py": ("machine", "processes"), "tests/linalg/test_coverage.py": None}
DOCTEST_SECONDS = 60
SURVIVED = (0, 5, 33)  # how the tests ended, as mutmut keeps it: passed, or none looks at the function


def main() -> None:
    """Sample, run, and print a row for each file, then the survivors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("room", help="a folder of hessdiag/: linalg, theory, curvature, curvature/point")
    parser.add_argument("files", nargs="*", help="some of its modules, such as eigensolver; all, if none is named")
    parser.add_argument("--each", type=int, default=40, help="mutants of a file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = prepared(Path(place), options.room)
        files = options.files or sorted(path.stem for path in (work / "hessdiag" / options.room).glob("*.py"))
        mutmut(work, "run", "--max-children", "1", "no.such.mutant", check=False)  # writes all mutants, and runs none
        chosen = {name: sampled(work, options.room, name, options.each, options.seed) for name in files}
        chosen = {name: mutants for name, mutants in chosen.items() if mutants}
        mutmut(work, "run", "--max-children", "1", *(mutant for mutants in chosen.values() for mutant in mutants))
        print("| file | mutants | killed | survived |\n|---|---|---|---|")
        left = {}
        for name, mutants in chosen.items():
            codes = exit_codes(work, options.room, name)
            alive = [mutant for mutant in mutants if codes[mutant] in SURVIVED]
            left[name] = by_tests_apart(work, options.room, name, by_doctests(work, alive))
            killed = len(mutants) - len(left[name])
            print(f"| {options.room}/{name}.py | {len(mutants)} | {killed / len(mutants):.0%} | {len(left[name])} |")
        for mutant in (mutant for mutants in left.values() for mutant in mutants):
            print(mutmut(work, "show", mutant).stdout)


def prepared(place: Path, room: str) -> Path:
    """A copy of the tree with mutmut's settings: mutants never touch the tree itself."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", "out"))
        else:
            shutil.copy(source, place / name)
    apart = "\n".join(f"    --ignore={name}" for name in APART)
    (place / "setup.cfg").write_text(SETTINGS.format(room=room, tests=room.split("/")[0], apart=apart), "utf-8")
    return place


def mutmut(work: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run mutmut in a prepared copy."""
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    settings.pop("PYTHONPATH", None)  # the copy is what is imported
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(command, cwd=work, env=settings, capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def exit_codes(work: Path, room: str, name: str) -> dict[str, int | None]:
    """How the tests ended for each mutant of a file; `None` where they were not run."""
    place = work / "mutants" / "hessdiag" / room / f"{name}.py.meta"
    return json.loads(place.read_text("utf-8"))["exit_code_by_key"] if place.is_file() else {}


def sampled(work: Path, room: str, name: str, each: int, seed: int) -> Sequence[str]:
    """Some mutants of a file, the same for the same seed."""
    mutants = sorted(exit_codes(work, room, name))
    return sorted(random.Random(f"{seed}-{name}").sample(mutants, min(each, len(mutants))))


def by_doctests(work: Path, mutants: Iterable[str]) -> list[str]:
    """Which of some mutants also pass the examples in the docstrings of their file."""
    mutants = list(mutants)
    if not mutants:
        return []
    command = [sys.executable, "-c", "from tests.mutation.sample import survivors; survivors()"]
    done = subprocess.run(
        command,
        cwd=work / "mutants",
        env=os.environ | {"PYTHONPATH": str(work / "mutants"), "OMP_NUM_THREADS": "1"},
        input="\n".join(mutants),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return done.stdout.split()


def by_tests_apart(work: Path, room: str, name: str, mutants: Iterable[str]) -> list[str]:
    """Which of some mutants of a file also pass the tests that start processes, if there are some for this file."""
    tests = [test for test, of in APART.items() if of == (room, name)]
    if not tests:
        return list(mutants)
    command = [sys.executable, "-m", "pytest", "-n0", "-o", "addopts=", "-q", "-x", *tests]
    place = work / "mutants"
    settings = os.environ | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}

    def passes(mutant: str) -> bool:
        chosen = settings | {"MUTANT_UNDER_TEST": mutant}
        return not subprocess.run(command, cwd=place, env=chosen, capture_output=True, check=False).returncode

    return [mutant for mutant in mutants if passes(mutant)]


def survivors() -> None:
    """Read names of mutants of one file, and print those whose docstrings' examples hold: where mutants are imported."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError))
    for mutant in sys.stdin.read().split():
        module = importlib.import_module(mutant.rpartition(".")[0])
        found = [test for test in doctest.DocTestFinder().find(module) if "__mutmut_" not in test.name]
        os.environ["MUTANT_UNDER_TEST"] = mutant
        signal.alarm(DOCTEST_SECONDS)
        try:
            with redirect_stdout(io.StringIO()):
                failed = sum(doctest.DocTestRunner(optionflags=flags).run(test).failed for test in found)
        except TimeoutError:
            failed = 1
        finally:
            signal.alarm(0)
            os.environ["MUTANT_UNDER_TEST"] = ""
        if not failed:
            print(mutant)


if __name__ == "__main__":
    main()
