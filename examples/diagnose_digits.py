"""Diagnose the four networks of digits.py: the MLP at initialization and trained, and the CNN likewise.

    python examples/digits.py --out examples/out
    python examples/diagnose_digits.py --out examples/out

Each pair is one command, and so one trajectory. Its report is mlp.html or cnn.html; its numbers are printed from the
JSON that --json gives.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def diag_share(models: list[Path], batch: Path, report: Path) -> dict[str, Any]:
    """`hessdiag diag-share MODELS --data BATCH --loss ce --json -o REPORT`, as a dictionary."""
    files = [*map(str, models), "--data", str(batch), "--loss", "ce", "-o", str(report), "--force"]
    command = [sys.executable, "-m", "hessdiag", "diag-share", *files, "--json", "--no-config"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="folder of digits.py")
    out = parser.parse_args().out
    for name in ("mlp", "cnn"):
        models = [out / f"{name}-init.pt", out / f"{name}-trained.pt"]
        document = diag_share(models, out / "batch.npz", out / f"{name}.html")
        for entry in document["result"]["trajectory"]:
            times = entry["diag_share"] / entry["wigner"]
            print(f"{entry['label']:<15} diagonal share {entry['diag_share']:.5f}, {times:.1f} times Wigner's")


if __name__ == "__main__":
    main()
