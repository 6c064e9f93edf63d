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


def printed(*groups: str) -> dict[str, list[dict[str, Any]]]:
    """What groups of runs print, in processes of their own; by group."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.device.pretended_runs", *groups]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {group: [line for line in lines if line["group"] == group] for group in groups}


def by_name(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same lines by what they are of."""
    return {line["name"]: line for line in lines}


def row(name: str, limit: Limit, counts: dict[str, float]) -> str:
    """One line of the table."""
    numbers = " | ".join(f"{counts[what]:,.0f}" for what in ("launches", "waits", "uploads"))
    return f"| {name} | {limit.before} | {numbers} |"


def main() -> None:
    """Print it."""
    counts = by_name(printed("parts")["parts"])
    print(HEAD)
    for name, limit in PARTS.items():
        print(row(name, limit, counts[name]["counts"]))


if __name__ == "__main__":
    main()
