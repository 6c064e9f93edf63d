"""A command that is killed at any moment goes on with --resume, and its document is that of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

COMMANDS = {
    "neurons": ["diag-share", "builtin:mlp(depth=6, width=48)"],
    "rows": ["diag-share", "builtin:lenet", "--rows", "120", "--batch-size", "4"],
    "probes": ["blocks", "builtin:lenet", "--probes", "40", "--batch-size", "4"],
}
SLOW = bool(os.environ.get("HESSDIAG_SLOW"))
KILLS = 10 if SLOW else 2


def _start(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "hessdiag", *arguments, "--json", "--no-progress"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _document(arguments):
    process = _start(arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.parametrize("name", COMMANDS if SLOW else ["rows"])
def test_a_killed_run_goes_on_where_it_stopped(name, tmp_path):
    whole = _document(COMMANDS[name])
    rng, seconds = random.Random(name), whole["provenance"]["wall_seconds"] + 1.0
    for _ in range(KILLS):
        process = _start([*COMMANDS[name], "--resume", str(tmp_path / "kept")])
        time.sleep(seconds * rng.uniform(0.4, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    resumed = _document([*COMMANDS[name], "--resume", str(tmp_path / "kept")])
    assert {key: value for key, value in resumed.items() if key != "provenance"} == {
        key: value for key, value in whole.items() if key != "provenance"
    }


@pytest.mark.parametrize(
    "written", [["-o", "r.json"], ["-or.json"], ["--output=r.json"], ["--save", "w.safetensors"], []], ids=" ".join
)
def test_the_command_that_goes_on_may_replace_what_the_first_one_wrote(hessdiag, monkeypatch, written):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hessdiag.diagnostics.forward.forward", interrupted)
    command = ["forward", "--init", "lecun", "--solve", "median", "--resume", "kept", *written]
    outcome = hessdiag(*command)
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1] == " ".join(["  try: hessdiag", *command, *(["--force"] if written else [])])
