"""Lines of bash, for what happens to a process and cannot be tried within this one."""

import os
import subprocess
import sys


def bash(line, cwd, *, timeout=60, **environment):
    """Run a line; `hessdiag` stands for this one."""
    line = line.replace("hessdiag ", f"'{sys.executable}' -m hessdiag ")
    away = ("RANK", "WORLD_SIZE", "COLUMNS", "HESSDIAG_")
    known = {name: value for name, value in os.environ.items() if not name.startswith(away)}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env=known | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
