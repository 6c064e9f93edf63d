"""Each row of the table of faults is true."""

import json
from pathlib import Path

import pytest
from cli.bash import bash
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
    done = bash(fault.line, tmp_path, timeout=120)
    assert (done.returncode, held(done.stdout)) == (fault.code, fault.stdout), done.stderr
    assert fault.said in done.stderr
    assert "Traceback" not in done.stderr
    file = tmp_path / "r.json"
    assert held(file.read_text() if file.exists() else "") == fault.file
    assert not list(tmp_path.rglob("*.part"))


def test_the_table_of_the_docs_is_this_one():
    assert table() in (Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
