"""Each row of the table of faults is true."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.length import LONG

from faults.faults import FAULTS, table

SLOW = "import sys, time\nprint('slow', file=sys.stderr, flush=True)\ntime.sleep(60)\n"


def held(text):
    """What a document is worth: "answer", "interrupted", or "" for none."""
    if not text:
        return ""
    return "interrupted" if json.loads(text)["status"] == "interrupted" else "answer"


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.quick or LONG], ids=lambda fault: fault.what[:40])
def test_a_fault(fault, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "full.json").symlink_to("/dev/full")
    line = fault.line.replace("hessdiag ", f"'{sys.executable}' -m hessdiag ")
    known = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "COLUMNS")}
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=known, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, held(done.stdout)) == (fault.code, fault.stdout), done.stderr
    assert fault.said in done.stderr
    assert "Traceback" not in done.stderr
    file = tmp_path / "r.json"
    assert held(file.read_text() if file.exists() else "") == fault.file
    assert not list(tmp_path.rglob("*.part"))


def test_the_table_of_the_docs_is_this_one():
    assert table() in (Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
