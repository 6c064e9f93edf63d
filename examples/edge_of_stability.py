"""Training on digits at the edge of stability: curvature over the optimizer's limit, along four runs.

python examples/edge_of_stability.py -o edge.svg          gradient descent twice, momentum and Adam, a minute
python examples/edge_of_stability.py --only momentum      one of them
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

import hessdiag

SAMPLES = 500
EARLY = 100  # a step before the edge


class Run(NamedTuple):
    """How a network is trained, for how many steps, and how often it is looked at."""

    make: object
    steps: int
    every: int


RUNS = {
    "gradient descent, 0.5": Run(lambda p: torch.optim.SGD(p, lr=0.5), 1600, 50),
    "gradient descent, 0.4": Run(lambda p: torch.optim.SGD(p, lr=0.4), 2000, 50),
    "momentum 0.9, 0.4": Run(lambda p: torch.optim.SGD(p, lr=0.4, momentum=0.9), 1000, 50),
    "Adam, 0.001": Run(lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-7), 3400, 100),
}
COLORS = dict(zip(RUNS, ("tab:blue", "tab:cyan", "tab:orange", "tab:green"), strict=True))


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The first 500 digits, pixels from 0 to 1 less their mean, and classes as unit vectors; float64."""
    found = load_digits()
    pixels = torch.tensor(found.data[:SAMPLES] / 16)
    return pixels - pixels.mean(0), nn.functional.one_hot(torch.tensor(found.target[:SAMPLES]), 10).double()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    widths = (64, 32, 32, 10)
    layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes, dtype=torch.float64), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def half_squares(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().sum(1).mean() / 2


def followed(run: Run, every: int | None = None) -> Iterator[tuple[int, hessdiag.Sharpness]]:
    """Train with all samples in each step; what the optimizer sees, with the state that it has, from time to time."""
    model, batch = network(), digits()
    optimizer = run.make(model.parameters())
    problem = hessdiag.Problem(model, data=[batch], loss=half_squares, reduction="mean")
    for step in range(1, run.steps + 1):
        optimizer.zero_grad()
        half_squares(model(batch[0]), batch[1]).backward()
        optimizer.step()
        if step % (every or run.every) == 0:
            yield step, hessdiag.sharpness(problem, optimizer=optimizer)


def draw(found: dict[str, list[tuple[int, hessdiag.Sharpness]]], path: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "edge"  # the same file each time
    figure = Figure(figsize=(7, 5.4), layout="constrained")
    ratio, critical = figure.subplots(2, sharex=True)
    for name, seen in found.items():
        steps = [step for step, _ in seen]
        ratio.plot(
            steps, [one.ratio for _, one in seen], color=COLORS[name], marker=".", markersize=3, linewidth=1, label=name
        )
        losses = [one.reading("critical").ratio for _, one in seen]
        critical.plot(steps, losses, color=COLORS[name], marker=".", markersize=3, linewidth=1)
    for axes in (ratio, critical):
        axes.axhline(1, color="0.4", linewidth=0.8, linestyle=":")
    ratio.set(ylabel="largest eigenvalue over the limit", ylim=(0, None))
    critical.set(ylabel="critical sharpness over its limit", xlabel="step", yscale="log")
    ratio.legend(frameon=False, fontsize="small", loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("edge.svg"))
    parser.add_argument("--only", default="", metavar="NAME", help="runs whose name begins like this")
    parser.add_argument("--every", type=int, metavar="N", help="steps between two looks")
    given = parser.parse_args()
    found = {}
    for name, run in RUNS.items():
        if not name.lower().startswith(given.only.lower()):
            continue
        found[name] = list(followed(run, given.every))
        last = [one for _, one in found[name][-max(len(found[name]) // 4, 1) :]]
        losses = [one.reading("critical") for one in last]
        print(
            f"{name:>21}: ratio {np.mean([one.ratio for one in last]):.3f} in the last quarter, "
            f"critical sharpness {np.median([one.ratio for one in losses]):.3g} of its limit "
            f"in at most {max(one.passes for one in losses)} passes; {last[-1].regime}"
        )
        if early := dict(found[name]).get(EARLY):
            print(
                f"{'at step ' + str(EARLY):>21}: ratio {early.ratio:.3f}, "
                f"critical sharpness {early.reading('critical').ratio:.3g} of its limit; {early.regime}"
            )
    draw(found, given.output)


if __name__ == "__main__":
    main()
