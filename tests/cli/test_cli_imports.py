"""Each of these runs in a process of its own: what is imported, how fast, and what a signal does."""

import json
import os
import resource
import signal
import statistics
import subprocess
import sys

import pytest

from hessdiag.cli.main import COMMANDS
from hessdiag.report.document import dumps
from tests.cli.commands import SETTABLE
from tests.documents import document, of_layers


def python(code, *args, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True, text=True, timeout=120, cwd=cwd, env={**os.environ, **environment},
    )  # fmt: skip


WATCHED = """
import sys
from hessdiag.cli.main import run
code = run(sys.argv[1:])
heavy = [name for name in ("torch", "scipy", "matplotlib", "transformers") if name in sys.modules]
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["ls"],
        ["init"],
        ["diag-share"],
        ["nonsense"],
        *([name, "--help"] for name in COMMANDS),
        *([name, *SETTABLE[name], shown] for name in SETTABLE for shown in ("--print-config", "--show-python")),
    ],
    ids=" ".join,
)
def test_no_torch(args, tmp_path):
    outcome = python(WATCHED, *args, cwd=tmp_path)
    assert outcome.returncode == (2 if args in (["diag-share"], ["nonsense"]) else 0), outcome.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts_import_no_torch(shell):
    assert "_HESSDIAG_COMPLETE" in python(WATCHED, "completion", shell).stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("hessdiag van", "vanishing"),
        ("hessdiag vanishing --acti", "--activation"),
        ("hessdiag vanishing --init he_", "he_normal"),
    ],
)
def test_completion_offers_commands_options_and_choices(words, offered):
    asked = {"_HESSDIAG_COMPLETE": "fish_complete", "COMP_WORDS": words, "COMP_CWORD": words.split()[-1]}
    outcome = python(WATCHED, **asked)
    assert offered in outcome.stdout, outcome.stderr


def test_importing_the_package_and_the_report_imports_no_torch():
    code = "import sys, hessdiag, hessdiag.questions.pages, hessdiag.report.html; assert 'torch' not in sys.modules"
    outcome = python(code)
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize("args", [["--help"], ["diag-share", "--help"]], ids=" ".join)
def test_help_is_quick(args):
    """The promise is 0.3 s. Processor time, for other tests run beside; that torch stays out is tested exactly, above."""
    seconds = []
    for _ in range(5):
        start = _children_seconds()
        assert (
            python("import sys; from hessdiag.cli.main import run; sys.exit(run(sys.argv[1:]))", *args).returncode == 0
        )
        seconds.append(_children_seconds() - start)
    assert statistics.median(seconds) < 0.6


def _children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("name", ["diag-share", "vanishing", "report"])
def test_report_works_where_torch_is_absent(tmp_path, name):
    (tmp_path / "r.json").write_text(dumps(document(name)), "utf-8")
    code = "import sys; sys.modules['torch'] = None\nfrom hessdiag.cli.main import run\nsys.exit(run(sys.argv[1:]))"
    outcome = python(code, "report", "r.json", "-o", "r.html", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / "r.html").read_text("utf-8").startswith("<!doctype html>")
    assert outcome.stdout.startswith("\n  ")


def test_env_says_what_a_bug_report_needs():
    outcome = python(
        "import sys; from hessdiag.cli.main import run; sys.exit(run(['env', '--json']))", SECRET="hunter2"
    )
    facts = json.loads(outcome.stdout)
    assert {"hessdiag", "torch", "numpy", "python", "platform", "devices", "threads"} <= set(facts)
    assert "hunter2" not in outcome.stdout


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and so their children, ignore it
from types import SimpleNamespace
import hessdiag.questions.diag_share.measure as measuring, hessdiag.problem.load as load
load.load_problem = lambda request, shared: SimpleNamespace(device=SimpleNamespace(type="cpu"))
def measure(problem, **options):
    options["progress"](0, 10, "started")
    time.sleep(60)
measuring.diag_share = measure
from hessdiag.cli.main import run
sys.exit(run(["diag-share", "builtin:lenet", "--json"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_with_130_and_one_line():
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_reader_that_leaves_is_no_error(tmp_path):
    (tmp_path / "r.json").write_text(dumps(of_layers(document("diag-share"), 128)), "utf-8")
    code = "import sys; from hessdiag.cli.main import run; sys.exit(run(['report', 'r.json', '--format', 'html']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == 0


MEASURED = """
import sys
from hessdiag.cli.main import run
net = "builtin:mlp(depth=3,width=6)"
for command in ("diag-share", "eigs", "spectrum", "bounds", "blocks", "forward"):
    assert run([command, net, "--json"]) == 0, command
assert run(["vanishing", "--depth", "4", "--width", "4", "--seeds", "20", "--json"]) == 0
assert run(["diag-share", net, "--rows", "50", "--json"]) == 0
slow = [name for name in ("scipy.stats", "sympy", "torch._dynamo", "matplotlib", "transformers") if name in sys.modules]
assert not slow, slow
"""


def test_measuring_imports_nothing_that_takes_longer_than_the_measurement():
    """0.4 s for scipy.stats, 0.3 for sympy, 1 for torch._dynamo: a small network is measured in less."""
    outcome = python(MEASURED)
    assert outcome.returncode == 0, outcome.stderr
