"""Heterogeneity of blocks by quadrature beside LAPACK's: `python -m tests.benchmarks.block_spectra`, in a minute.

Prints the rows of the table in docs/concepts/block-diagonal.md. Axis and smoothing were chosen on other networks (of
the same kinds, with other seeds, sizes and data); nothing was changed for these.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hessdiag.curvature.dense import hessian
from hessdiag.linalg.eigensolver import extreme_eigenpairs
from hessdiag.linalg.quadrature import spectral_density
from hessdiag.nets.gpt import gpt
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.by.block_ends import HIGHEST, PROBES, STEPS
from hessdiag.questions.blocks.by.spectra import Axis, Spectrum, compare
from tests.benchmarks.share_networks import adam, clusters, mlp, normal, sgd, trained

SAMPLED_FROM = 90  # rows of a block: smaller ones are exact in both


@dataclass(frozen=True)
class Found:
    """The heterogeneity of one network.

    Attributes:
        exact: From all eigenvalues.
        sampled: With quadrature for the larger blocks.
        stderr: As it is told.
        blocks: How many were sampled.
    """

    exact: float
    sampled: float
    stderr: float
    blocks: int


def language(width, steps, seed, **sizes):
    """A small GPT, trained for so many steps of Adam."""
    task = gpt(layers=1, width=width, heads=2, vocabulary=16, context=8, seed=seed, **sizes)
    model, (x, y) = task["model"], task["data"]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
    return Problem(model, data=[(x, y)], loss="ce")


def images():
    """A small convolutional network on noise."""
    torch.manual_seed(3)
    parts = [
        nn.Conv2d(1, 5, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 9, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(36, 8),
    ]
    return Problem(nn.Sequential(*parts).double(), data=[(normal(50, 1, 12, 12), torch.arange(50) % 8)], loss="ce")


def seeded(seed, make):
    """A network with torch's seed set before it is made."""

    def made():
        torch.manual_seed(seed)
        return make()

    return made


HELD_OUT: dict[str, Callable[[], Problem]] = {
    "gpt": lambda: language(10, 0, 7, mlp_ratio=3),
    "gpt-trained": lambda: language(10, 150, 7, mlp_ratio=3),
    "relu": seeded(11, lambda: Problem(mlp([24, 26, 22, 6], nn.ReLU), data=[clusters(150, 24, 6, 5)], loss="ce")),
    "tanh": seeded(12, lambda: Problem(mlp([24, 26, 22, 6], nn.Tanh), data=[clusters(150, 24, 6, 5)], loss="ce")),
    "relu-trained": seeded(
        13, lambda: trained(mlp([24, 26, 22, 6], nn.ReLU), clusters(150, 24, 6, 6), "ce", 150, sgd(0.03))
    ),
    "tanh-trained": seeded(
        14, lambda: trained(mlp([24, 26, 22, 6], nn.Tanh), clusters(150, 24, 6, 6), "ce", 150, adam(3e-3))
    ),
    "gelu-mse": seeded(
        15, lambda: Problem(mlp([16, 36, 24, 4], nn.GELU), data=[(normal(80, 16), normal(80, 4))], loss="mse")
    ),
    "silu-trained": seeded(
        16, lambda: trained(mlp([16, 36, 24, 4], nn.SiLU), (normal(80, 16), normal(80, 4)), "mse", 200, adam(1e-2))
    ),
    "deep": seeded(17, lambda: Problem(mlp([14] * 9, nn.Tanh), data=[(normal(60, 14), normal(60, 14))], loss="mse")),
    "images": images,
}


def errors(problem: Problem, seed: int = 0) -> Found:
    """Heterogeneity by tensor, from all eigenvalues and with quadrature for blocks of 90 rows or more."""
    H = hessian(problem, check=False).double()
    exact, sampled, count = [], [], 0
    for number, place in enumerate(problem.places()):
        own = H[place, place]
        own = (own + own.T) / 2
        exact.append(Spectrum(len(own), torch.linalg.eigvalsh(own).numpy()))
        if len(own) < SAMPLED_FROM:
            sampled.append(exact[-1])
            continue
        count += 1
        pairs = extreme_eigenpairs(own, lowest=1, highest=HIGHEST, seed=seed + number)
        known = pairs.values[pairs.converged], pairs.vectors[:, pairs.converged]
        density = spectral_density(own, probes=PROBES, steps=STEPS, seed=seed + number + 1, deflate=known)
        sampled.append(Spectrum.of(density))
    axis = Axis.of(max(spectrum.largest for spectrum in exact))
    found = compare(sampled, axis)
    return Found(compare(exact, axis).heterogeneity, found.heterogeneity, found.stderr or 0.0, count)


def main() -> None:
    """Print the table."""
    print("| network | exact | by quadrature, 3 seeds | told error |\n|---|---:|---:|---:|")
    worst = 0.0
    for name, make in HELD_OUT.items():
        problem = make()
        found = [errors(problem, 100 * seed) for seed in range(3)]
        worst = max([worst, *(abs(one.sampled - one.exact) for one in found)])
        sampled = ", ".join(f"{one.sampled:.3f}" for one in found)
        print(
            f"| {name} | {found[0].exact:.3f} | {sampled} | {np.mean([one.stderr for one in found]):.3f} |", flush=True
        )
    print(f"largest error {worst:.4f}")


if __name__ == "__main__":
    main()
