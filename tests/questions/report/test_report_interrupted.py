"""Ctrl-C on a running report, as the system sends it: what was answered by then is printed."""

import json
import os
import signal
import subprocess
import sys
import threading

PROGRAM = """
import sys
from hessdiag.__main__ import main
sys.argv = ["hessdiag", *sys.argv[1:]]
main()
"""


def test_sigint_keeps_what_is_answered(tmp_path):
    args = ["report", "builtin:mlp(depth=6, width=48)", "--budget", "none", "-o", "r.json"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *args], cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    killer = threading.Timer(240, process.kill)
    killer.start()
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if "blocks, about" in line and "then" not in line:  # its turn has come: check and eigs are answered
                process.send_signal(signal.SIGINT)
                break
        process.stderr.read()
        process.wait()
    finally:
        killer.cancel()
    assert process.returncode == 130, said
    report = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert report["status"] == "interrupted"
    answered = [one["command"] for one in report["result"]["sections"]]
    assert {"check", "eigs", "sharpness"} <= set(answered)
    assert {"precondition", "bounds"} <= {one["command"] for one in report["result"]["left_out"]}
