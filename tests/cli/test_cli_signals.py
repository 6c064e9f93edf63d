"""SIGINT, SIGTERM and SIGHUP at every stage: one line, a published code, no half file."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hessdiag.cli import signals

# A measurement that takes as long as wanted, behind the same door as the console script.
PROGRAM = """
import sys, time, types
from hessdiag import __main__ as door
from hessdiag.cli import main, output
from tests.documents import document

def stage(name):
    print(name, file=sys.__stderr__, flush=True)
    try:
        time.sleep(20)
    except KeyboardInterrupt:
        return True
    return False

doc = document("diag-share")

def measure(**request):
    from hessdiag.cli import signals
    with signals.computing():
        if sys.argv[1] == "computing":
            doc["status"] = "interrupted" if stage("computing") else "ok"
        elif sys.argv[1] == "loading":
            print("loading", file=sys.__stderr__, flush=True)
            time.sleep(20)
        elif sys.argv[1] == "swallowed":
            try:
                stage("swallowed")
                raise RuntimeError("this was a KeyboardInterrupt")
            finally:
                pass
    out = output.prepare(False, "json", "r.json", False, "auto", True, False, (), None, "10%", False)
    render = output.render
    def slow(*args, **keys):
        if sys.argv[1] == "rendering":
            print("rendering", file=sys.__stderr__, flush=True)
            end = time.monotonic() + float(sys.argv[2])
            while time.monotonic() < end:
                time.sleep(0.05)
        return render(*args, **keys)
    output.render = slow
    return output.finish(doc, out)

main.COMMANDS["slow"] = ("slow", "")
import click
command = click.command("slow")(measure)
sys.modules["slow"] = types.SimpleNamespace(command=command)
stage_argv, sys.argv = sys.argv, sys.argv
run = main.run
main.run = lambda: run(["slow"])
if sys.argv[1] == "starting":
    pause = main.cli.main
    def cli_main(**keys):
        stage("starting")
    main.cli.main = cli_main
door.main()
"""


def interrupted(tmp_path, stage, *numbers, apart=0.0, rendering="1.5"):
    """Start the program, wait for the stage, send signals; what it left."""
    tests = os.path.dirname(os.path.dirname(__file__))
    path = os.pathsep.join([os.path.dirname(tests), tests])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, stage, rendering],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline().strip() == stage
    for index, number in enumerate(numbers):
        time.sleep(apart if index else 0.1)
        process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=15)
    assert "Traceback" not in err
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left in ([], ["r.json"])
    return process.returncode, out, err, time.monotonic() - began


CASES = [
    (signal.SIGINT, 130, "interrupted\n"),
    (signal.SIGTERM, 143, "terminated\n"),
    (signal.SIGHUP, 143, "terminated\n"),
]


@pytest.mark.parametrize(("number", "code", "said"), CASES)
def test_while_computing_what_is_there_is_delivered(tmp_path, number, code, said):
    # `timeout` sends its signal twice within a moment: that is one.
    got, out, err, _ = interrupted(tmp_path, "computing", number, number)
    assert (got, err) == (code, f"Wrote r.json\n{said}")
    assert json.loads(out)["status"] == "interrupted"
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(out)


@pytest.mark.parametrize("stage", ["starting", "loading"])
def test_before_anything_is_computed_one_line_comes(tmp_path, stage):
    got, out, err, _ = interrupted(tmp_path, stage, signal.SIGTERM)
    assert (got, out, err) == (143, "", "terminated\n")
    assert not list(tmp_path.iterdir())


def test_of_several_processes_the_first_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    got, out, err, _ = interrupted(tmp_path, "starting", signal.SIGTERM)
    assert (got, out, err) == (143, "", "")


def test_while_rendering_the_answer_is_complete(tmp_path):
    got, out, err, _ = interrupted(tmp_path, "rendering", signal.SIGTERM)
    assert got == 143
    assert json.loads(out)["status"] == "ok"
    assert "the answer was computed, and is complete" in err
    assert json.loads((tmp_path / "r.json").read_text())["status"] == "ok"


def test_a_second_signal_ends_at_once(tmp_path):
    got, out, err, seconds = interrupted(tmp_path, "rendering", signal.SIGINT, signal.SIGINT, apart=1.3, rendering="12")
    assert (got, out) == (130, "")
    assert seconds < 8
    assert "interrupted" in err
    assert not list(tmp_path.iterdir())


def test_code_that_makes_another_error_of_it_hides_nothing(tmp_path):
    got, _, err, _ = interrupted(tmp_path, "swallowed", signal.SIGTERM)
    assert (got, err) == (143, "terminated\n")


def test_what_is_ignored_stays_ignored(tmp_path):
    program = "import signal, sys; from hessdiag.cli import signals\nwith signals.watched(): print(signal.getsignal(signal.SIGHUP))"
    line = f"trap '' HUP; '{sys.executable}' -c '{program}'"
    said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
    assert "SIG_IGN" in said or said.strip() == "1"


def test_workers_of_a_data_loader_keep_the_usual_signals():
    program = (
        "import os, signal\nfrom hessdiag.cli import signals\n"
        "with signals.watched():\n"
        "    if os.fork() == 0:\n"
        "        os._exit(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)\n"
        "    print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "0\n"


def test_at_the_very_end_a_signal_changes_no_code():
    program = (
        "import os, signal\nfrom hessdiag.cli import signals\n"
        "class Late:\n"  # whose end comes when Python has taken its handlers away
        "    def __del__(self, kill=os.kill, own=os.getpid(), number=signal.SIGINT):\n"
        "        kill(own, number)\n"
        "late = Late()\n"
        "with signals.watched(): pass\n"
        "signals.leave(0)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], env=os.environ | {"WORLD_SIZE": ""}).returncode == 0


@pytest.mark.parametrize(("idle", "held", "ends"), [(True, True, True), (False, False, True), (False, True, False)])
def test_an_import_of_torch_ends_the_process_only_where_nothing_is_computed(monkeypatch, idle, held, ends):
    """Provenance may be the first to import it, when the answer is there."""
    ended = []
    monkeypatch.setattr(signals, "_state", signals._State(idle=idle, held=held))
    monkeypatch.setattr(signals, "_is_importing_torch", lambda: True)
    monkeypatch.setattr(signals, "_end", ended.append)
    with contextlib.suppress(KeyboardInterrupt):
        signals._first(signal.SIGINT, None)
    assert bool(ended) is ends
