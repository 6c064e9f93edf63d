"""A command that is killed at any moment goes on with --resume, and its document is that of one that was not."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from hessdiag.questions.common.runs import pieces

COMMANDS = {
    "neurons": ["diag-share", "builtin:mlp(depth=6, width=48)"],
    "rows": ["diag-share", "builtin:lenet", "--rows", "120", "--batch-size", "4"],
    "probes": ["blocks", "builtin:lenet", "--probes", "40", "--batch-size", "4"],
    "density": ["spectrum", "builtin:lenet", "--probes", "8", "--steps", "40", "--batch-size", "4"],
    "krylov": ["eigs", "builtin:lenet", "--tol", "1e-8", "--batch-size", "4"],
    "networks": ["vanishing", "--depth", "24", "--width", "16", "--seeds", "40"],
    "norms": ["forward", "--depth", "64", "--width", "64", "--seeds", "4000"],
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

    monkeypatch.setattr("hessdiag.questions.forward.measure.forward", interrupted)
    command = ["forward", "--init", "lecun", "--solve", "median", "--resume", "kept", *written]
    outcome = hessdiag(*command)
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1] == " ".join(["  try: hessdiag", *command, *(["--force"] if written else [])])


SIZES = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
ANNOUNCED = {
    "diag-share by neurons": ["diag-share", "builtin:mlp(depth=3, width=40)"],
    "diag-share by rows": ["diag-share", "builtin:mlp(depth=3, width=40)", "--rows", "60"],
    "eigs": ["eigs", "builtin:mlp(depth=3, width=40)", "--max-basis", "60", "--tol", "1e-9"],
    "spectrum": ["spectrum", "builtin:mlp(depth=3, width=40)", "--probes", "2", "--steps", "8"],
    "blocks whole": ["blocks", "builtin:mlp(depth=3, width=8)"],
    "blocks in pairs": ["blocks", "builtin:mlp(depth=3, width=40)"],
    "blocks by probes": ["blocks", "builtin:mlp(depth=3, width=40)", "--probes", "8"],
    "blocks by a partition": ["blocks", "builtin:mlp(depth=3, width=8)", "--by", "neuron", "--probes", "8"],
    "vanishing": ["vanishing", "--depth", "16", "--width", "8", "--seeds", "64"],
    "vanishing MODEL": ["vanishing", "builtin:mlp(depth={depth}, width=4)", "--depth", "8", "--seeds", "6"],
    "forward": ["forward", "--depth", "32", "--width", "64", "--seeds", "200"],
    "forward solved": ["forward", "--depth", "8", "--width", "16", "--init", "he_normal", "--solve", "median"],
    "forward MODEL": ["forward", "builtin:mlp(depth=6, width=8)", "--seeds", "40"],
}


@pytest.mark.parametrize("name", ANNOUNCED)
def test_what_the_folder_takes_is_said_before(name, hessdiag, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(pieces, "SAVE_SHARE", 1e9)
    outcome = hessdiag(*ANNOUNCED[name], "--resume", "kept", "--allow-inexact", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    said = re.findall(r"kept takes up to ([\d.]+) (bytes|kB|MB|GB) of disk", outcome.err)
    assert len(said) == 1, outcome.err
    size = float(said[0][0]) * SIZES[said[0][1]]
    found = sum(path.stat().st_size for path in (tmp_path / "kept").iterdir())
    assert found <= 1.01 * size
    bounds = name in ("forward solved", "spectrum", "eigs")  # how long these go on is not known before
    assert size <= max((20 if bounds else 3) * found, 20_000), (size, found)
