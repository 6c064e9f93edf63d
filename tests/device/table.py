"""The table of launches and waits in docs/performance.md: `python -m tests.device.table`; some 15 s, without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.device.lines import PARTS, Limit

ROOT = Path(__file__).parents[2]
HEAD = "| on a pretended GPU | at first | launches | waits | uploads |\n|---|---|---:|---:|---:|"


def found(group: str) -> dict[str, dict[str, Any]]:
    """What a group of runs prints, by name."""
    return {one["name"]: one for one in printed(group)}


def printed(group: str) -> list[dict[str, Any]]:
    """What a group of runs prints, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.device.pretended_runs", group]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def row(name: str, limit: Limit, counts: dict[str, float]) -> str:
    """One line of the table."""
    numbers = " | ".join(f"{counts[what]:,.0f}" for what in ("launches", "waits", "uploads"))
    return f"| {name} | {limit.before} | {numbers} |"


def main() -> None:
    """Print it."""
    counts = found("parts")
    print(HEAD)
    for name, limit in PARTS.items():
        print(row(name, limit, counts[name]["counts"]))


if __name__ == "__main__":
    main()
