"""Gradient descent and Adagrad on quadratics of two weights as first-order trust regions: steps within balls, ellipses.

python examples/ellipsoids.py ways -o ways.svg      the ways, with every other region
python examples/ellipsoids.py losses -o losses.svg  the losses, beside regions whose size is adapted
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import hessdiag

KINDS = {"well": "well conditioned", "ill": "badly conditioned", "rotated": "badly conditioned, rotated"}
METHODS = ("gradient descent", "Adagrad", "full Adagrad")
COLORS = dict(zip(METHODS, ("tab:blue", "tab:orange", "tab:green"), strict=True))
RATES = np.geomspace(0.005, 5, 61)  # the one that is there first is taken
THERE, STEPS = 1e-6, 400  # of the loss at the start
EPS = 1e-12  # of the trace of Adagrad's matrix; it has rank 1 after one step
LOW, HIGH, GROW, SHRINK = 1e-4, 0.75, 2.0, 4.0  # of a textbook's trust region
SHOWN = 5  # regions, of which every other one is drawn
CIRCLE = np.array([np.cos(angle := np.linspace(0, 2 * np.pi, 73)), np.sin(angle)])


@dataclass(frozen=True)
class Way:
    """Positions (steps + 1, 2), the loss at each, and the outlines (2, 73) of the first regions."""

    points: np.ndarray
    losses: np.ndarray
    regions: tuple[np.ndarray, ...]

    @property
    def steps(self) -> float:
        """Until the loss is small."""
        small = np.flatnonzero(self.losses <= THERE * self.losses[0])
        return float(small[0]) if len(small) else np.inf


def quadratic(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The Hessian (2, 2) and the start (2,) of a builtin task."""
    problem = hessdiag.load_problem(hessdiag.ProblemRequest(f"builtin:quadratic(kind='{kind}')", device="cpu"))
    start = next(iter(problem.model.parameters())).detach().numpy().ravel()
    return np.asarray(hessdiag.hessian(problem)), start


def metric(method: str, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of A in the constraint s'As <= r^2, from the sum of g g'."""
    if method == "gradient descent":
        return np.ones(2), np.eye(2)
    values, axes = np.linalg.eigh(squares) if method == "full Adagrad" else (np.diag(squares), np.eye(2))
    return np.sqrt(values.clip(min=0) + EPS * values.sum()), axes


def way(hessian: np.ndarray, start: np.ndarray, method: str, rate: float, adapted: bool, most: float) -> Way:
    """Steps that minimize g's within s'As <= r^2.

    r is what makes that the method's own step with this rate; or it is so at the first step only, and then grows where
    the loss falls as the linear model says, and shrinks where it rises. At most so many steps.
    """
    point, squares, radius, fresh = start, np.zeros((2, 2)), None, True
    points, regions = [point], []
    while len(points) <= most and point @ hessian @ point > THERE * (start @ hessian @ start):
        gradient = hessian @ point
        if fresh:
            squares = squares + np.outer(gradient, gradient)
        values, axes = metric(method, squares)
        direction = axes @ (axes.T @ gradient / values)
        length = np.sqrt(gradient @ direction)
        if radius is None or not adapted:
            radius = rate * length
        step = -radius / length * direction
        if len(regions) < SHOWN:
            regions.append(point[:, None] + radius * axes @ (CIRCLE / np.sqrt(values)[:, None]))
        rho = -(gradient @ step + step @ hessian @ step / 2) / (radius * length)
        fresh = not adapted or rho >= LOW
        point = point + step if fresh else point
        radius *= 1 if not adapted or LOW <= rho < HIGH else GROW if rho >= HIGH else 1 / SHRINK
        points.append(point)
        if not np.isfinite(point).all() or abs(point).max() > 1e6:
            break
    at = np.array(points)
    return Way(at, np.einsum("ti,ij,tj->t", at, hessian, at) / 2, tuple(regions))


def fastest(hessian: np.ndarray, start: np.ndarray, method: str, adapted: bool = False) -> tuple[float, Way]:
    """With the rate that is there first, the smallest of equals."""
    best, found = 0.0, None
    for rate in RATES:
        tried = way(hessian, start, method, rate, adapted, STEPS if found is None else min(found.steps, STEPS))
        if found is None or tried.steps < found.steps:
            best, found = rate, tried
    return best, found


def draw_ways(panel: Axes, kind: str) -> None:
    hessian, start = quadratic(kind)
    x, y = np.meshgrid(np.linspace(-3, 1.6, 36), np.linspace(-2.2, 2.2, 36))
    flat = np.stack([x.ravel(), y.ravel()], 1)
    height = np.einsum("ti,ij,tj->t", flat, hessian, flat).reshape(x.shape) / 2
    panel.contour(x, y, height, levels=height.max() * 0.5 ** np.arange(1, 13, 2)[::-1], colors="0.8", linewidths=0.6)
    for method in METHODS if kind == "rotated" else METHODS[:2]:
        rate, found = fastest(hessian, start, method)
        print(f"{kind:>8}, {method:<17} {found.steps:>5.0f} steps at a rate of {rate:.3g}")
        color = COLORS[method]
        panel.plot(
            *found.points.T, color=color, linewidth=1, marker=".", markersize=4, markevery=slice(0, 40), label=method
        )
        for region in found.regions[::2]:
            panel.plot(*region, color=color, linewidth=0.8, linestyle="--")
    panel.plot(0, 0, "k*", markersize=8)
    panel.set(xlim=(-3, 1.6), ylim=(-2.2, 2.2), aspect="equal")


def draw_losses(panel: Axes, kind: str) -> None:
    hessian, start = quadratic(kind)
    for method in METHODS:
        for adapted, line in ((False, "-"), (True, "--")):
            _, found = fastest(hessian, start, method, adapted)
            name = f"region of {method}, adapted" if adapted else method
            print(f"{kind:>8}, {name:<35} {found.steps:>5.0f} steps")
            ratio = found.losses / found.losses[0]
            panel.plot(ratio, line, color=COLORS[method], linewidth=1.2, label=name)
    panel.set_xscale("symlog", linthresh=1)
    panel.set(yscale="log", ylim=(THERE / 2, 2), xlim=(0, STEPS), xlabel="steps")


PARTS: dict[str, Callable[[Axes, str], None]] = {"ways": draw_ways, "losses": draw_losses}


def draw(part: str, path: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "ellipsoids"  # the same file each time
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for panel, kind in zip(figure.subplots(1, 3, sharey=True), KINDS, strict=True):
        PARTS[part](panel, kind)
        panel.set_title(KINDS[kind], fontsize="medium")
    if part == "losses":
        figure.axes[0].set_ylabel("loss over the first")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    draw(asked.part, asked.output)
