"""Draw docs/images/*.svg from real runs.

The commands are those that the gallery names; the figures are those of their HTML reports.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from hessdiag.report import document, figures
from hessdiag.report.render import view_of
from hessdiag.report.view import Table

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
EPOCHS = (0, 1, 3, 10, 30)

sys.path.insert(0, str(ROOT / "examples"))
import digits  # noqa: E402


def measured(folder: Path, *arguments: str) -> document.Document:
    """The document of `hessdiag ARGUMENTS`, run in a folder."""
    command = [sys.executable, "-m", "hessdiag", *arguments, "--json", "--no-progress"]
    return document.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)


def draw(doc: document.Document, names: dict[str, str]) -> None:
    """Write the figures whose titles start with the keys of `names` as IMAGES/NAME.svg."""
    charts: list[Any] = [block for block in view_of(doc).blocks if not isinstance(block, Table)]
    for start, name in names.items():
        chart = next(chart for chart in charts if chart.title.startswith(start))
        path = IMAGES / f"{name}.svg"
        path.write_text(figures.svg(chart), "utf-8")
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB")


def checkpoints(folder: Path) -> list[str]:
    """The digits MLP after some epochs, saved with the batch of examples/digits.py."""
    subprocess.run([sys.executable, ROOT / "examples" / "digits.py", "--out", folder], check=True, capture_output=True)
    x, y = digits.digits()
    names = []
    for epochs in EPOCHS:
        torch.manual_seed(0)
        model = digits.mlp()
        digits.train(model, x[:1400], y[:1400], epochs)
        names.append(f"epoch-{epochs}.pt")
        torch.save(model, folder / names[-1])
    return names


def main() -> None:
    """Run everything."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        share = measured(folder, "diag-share", *checkpoints(folder), "--data", "batch.npz", "--loss", "ce")
        for entry in share["result"]["trajectory"]:
            print({key: entry[key] for key in ("label", "diag_share", "wigner", "ols_gaussian", "layer_block_share")})
        draw(share, {"Along": "digits-trajectory", "Where": "digits-blocks"})
        depth = measured(folder, "vanishing", "--depth", "128", "--width", "32")
        draw(depth, {"Norms": "vanishing-norms", "Layer": "vanishing-layers"})


if __name__ == "__main__":
    main()
