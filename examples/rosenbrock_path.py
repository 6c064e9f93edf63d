"""The ways of LODO, Adam and both kinds of momentum through Rosenbrock's valley, drawn over the loss.

python examples/rosenbrock_path.py -o path.svg
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn.functional import mse_loss

import hessdiag
from hessdiag.optimizers import LODO

STEPS = 200
NAMES = {
    "LODO": lambda p: LODO(p, alpha=0.2946, meta_lr=1.394e-4, beta=0.897, seed=0),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.9704, betas=(0.864, 0.99804)),
    "averaged momentum": lambda p: LODO(p, alpha=0.0987, meta_lr=0.0, beta=0.9359),  # a matrix that learns nothing
    "torch's momentum": lambda p: torch.optim.SGD(p, lr=0.0987, momentum=0.9359),
}


def way(name: str) -> tuple[np.ndarray, list[float]]:
    """Positions (STEPS + 1, 2), and the loss before each step."""
    problem = hessdiag.load_problem(hessdiag.ProblemRequest("builtin:rosenbrock", device="cpu"))
    (inputs, target), (position,) = problem.data[0], problem.model.parameters()
    optimizer = NAMES[name]([position])
    points, losses = [position.tolist()], []

    def loss() -> torch.Tensor:
        return mse_loss(problem.model(inputs), target)

    for _ in range(STEPS):
        if isinstance(optimizer, LODO):
            losses.append(optimizer.step(loss))
        else:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            optimizer.step()
            losses.append(value.item())
        points.append(position.tolist())
    return np.array(points), losses


def draw(path: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "rosenbrock"  # the same file each time
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    x, y = np.meshgrid(np.linspace(-1.6, 1.9, 60), np.linspace(-0.6, 2.9, 60))
    height = np.log10(0.01 * (x - 1) ** 2 + (y - x**2) ** 2 + 1e-5)
    axes.contour(x, y, height, levels=np.arange(-2, 1.5), colors="0.75", linestyles="solid", linewidths=0.6)
    for name, color in zip(NAMES, ("tab:blue", "tab:orange", "tab:green", "tab:purple"), strict=True):
        points, losses = way(name)
        axes.plot(*points.T, color=color, linewidth=1.1, marker=".", markersize=2.5, markevery=2, label=name)
        print(f"{name:>20}: mean loss of steps 180 to 200 {np.mean(losses[180:]):.3e}, the last {losses[-1]:.3e}")
    axes.plot(1, 1, "k*", markersize=9)
    axes.set(xlim=(-1.6, 1.9), ylim=(-0.6, 2.9), xlabel="x", ylabel="y")
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("path.svg"))
    draw(parser.parse_args().output)
