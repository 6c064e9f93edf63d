"""Time the main commands, for docs/performance.md.

Each runs three times, in processes of their own; the median counts. Leave the machine alone meanwhile.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from hessdiag import __version__

EXAMPLES = Path(__file__).parent.parent / "examples"
MODEL = "torch.save(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)), 'model.pt')"
COMMANDS = (
    "hessdiag --help",
    "hessdiag vanishing --depth 32 --width 32",
    "hessdiag vanishing --depth 128 --width 32",
    "hessdiag vanishing --depth 128 --width 32 --activation tanh",
    "hessdiag diag-share model.pt",
    "hessdiag diag-share mlp-trained.pt --data batch.npz --loss ce",
    "hessdiag diag-share cnn-trained.pt --data batch.npz --loss ce",
    "hessdiag diag-share builtin:lenet",
)


def seconds(command: str, folder: str) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command.split()], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {python}, torch {torch.__version__}, ", end="")
    print(f"hessdiag {__version__}\n\n| command | median of 3 | least | most |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", f"import torch; from torch import nn; {MODEL}"], cwd=folder, check=True)
        digits = [sys.executable, str(EXAMPLES / "digits.py"), "--out", folder]
        subprocess.run(digits, check=True, capture_output=True)
        for command in COMMANDS:
            times = sorted(seconds(command, folder) for _ in range(3))
            middle = statistics.median(times)
            print(f"| `{command}` | {middle:.1f} s | {times[0]:.1f} s | {times[-1]:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
