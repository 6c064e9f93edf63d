"""The bars of `Monitor`, in full: `python -m tests.benchmarks.monitor [NAMES]`, ten minutes.

On digits (a CNN, four optimizers) and on a GPT of 1.9 million parameters, looked at every 50 steps: products of a look
once warm, how far lambda_max is from a fresh `eigs`, and time of all looks over that of training at a budget of 5 %, by
the processor's clock. Each beside its bar; ends with 1 if one is missed.
"""

import runpy
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import hessdiag
from hessdiag.nets.gpt import GPT, sentences
from tests.benchmarks.lodo import told

DIGITS = runpy.run_path(str(Path(__file__).parents[2] / "examples/digits.py"))
EVERY = 50
FAR = 0.02  # of lambda_max from that of `eigs`: typical, and not guaranteed


class Run(NamedTuple):
    """A network with its data, how it is trained, and for how many steps."""

    model: Callable[[], nn.Module]
    data: Callable[[], tuple[Tensor, Tensor]]
    make: Callable[..., torch.optim.Optimizer]
    batch: int
    watched: int
    steps: int


def corpus() -> tuple[Tensor, Tensor]:
    text = sentences(256, 33, 256, 0)
    return text[:, :-1], text[:, 1:]


def small_gpt() -> nn.Module:
    return GPT(layers=4, width=192, context=32, seed=0, dtype=torch.float32)


RUNS = {
    "digits CNN, SGD 0.1": Run(DIGITS["cnn"], DIGITS["digits"], lambda p: torch.optim.SGD(p, lr=0.1), 32, 256, 1500),
    "digits CNN, momentum": Run(
        DIGITS["cnn"], DIGITS["digits"], lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9), 64, 256, 1500
    ),
    "digits CNN, Adam": Run(DIGITS["cnn"], DIGITS["digits"], lambda p: torch.optim.Adam(p, lr=1e-3), 64, 256, 1500),
    "digits CNN, full batch": Run(
        DIGITS["cnn"], DIGITS["digits"], lambda p: torch.optim.SGD(p, lr=0.3), 256, 256, 1500
    ),
    "GPT, AdamW": Run(small_gpt, corpus, lambda p: torch.optim.AdamW(p, lr=3e-4), 8, 8, 500),
    "GPT, SGD": Run(small_gpt, corpus, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 8, 8, 500),
}


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten())


def training(run: Run) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, hessdiag.Problem]]:
    """One step after the other, always the same."""
    torch.manual_seed(0)
    model, (x, y) = run.model(), run.data()
    problem = hessdiag.Problem(model, data=[(x[: run.watched], y[: run.watched])], loss="ce")
    optimizer = run.make(model.parameters())
    picks = np.random.default_rng(0)
    for _ in range(run.steps):
        pick = slice(run.batch) if run.batch == run.watched else picks.integers(0, len(x), run.batch)
        optimizer.zero_grad()
        loss_of(model, x[pick], y[pick]).backward()
        optimizer.step()
        yield model, optimizer, problem


def accuracy(name: str, run: Run) -> list[bool]:
    """Every look beside a fresh search."""
    monitor, fresh = None, []
    for _, optimizer, problem in training(run):
        monitor = monitor or hessdiag.Monitor(problem, EVERY, None, optimizer=optimizer)
        if monitor.step() is not None:
            found = hessdiag.eigs(problem.like(), lowest=0, highest=1, block=1, tol=1e-3, keep_vectors=False)
            fresh.append(found.highest[-1].eigenvalue)
    readings = [record.readings["lambda_max"] for record in monitor.records]
    off = [abs(one.value / value - 1) for one, value in zip(readings, fresh, strict=True)]
    warm = [one.products for before, one in pairwise(readings) if before.converged]
    sharp = [record.readings["sharpness"].products for record in monitor.records][1:]
    beyond = sum(one > FAR for one in off)
    unsure = sum(not one.converged for one in readings)
    print(
        f"{name}: lambda_max {fresh[0]:.3g} to {fresh[-1]:.3g}, {len(fresh)} looks, cold {readings[0].products} products"
    )
    print(
        f"    off mean {np.mean(off):.4f}, most {max(off):.4f}; {beyond} beyond {FAR:.0%}, {unsure} said to be unsure"
    )
    print(f"    sharpness {max(sharp)} products at most")
    sure = [one for one, reading in zip(off, readings, strict=True) if reading.converged]
    return [
        told(f"{name}: products once warm, mean {np.mean(warm):.2f}; most", max(warm), 5.5),
        told(f"{name}: lambda_max off by, median", float(np.median(off)), FAR),
        told(f"{name}: share of converged looks beyond {FAR:.0%}", sum(one > FAR for one in sure) / len(sure), 0.05),
    ]


def overhead(name: str, run: Run) -> list[bool]:
    """Time in looks over all other time, by the processor's clock."""
    monitor, inside = None, 0.0
    began = time.process_time()
    for _, optimizer, problem in training(run):
        if monitor is None:
            monitor = hessdiag.Monitor(problem, EVERY, "5%", optimizer=optimizer)
            began = time.process_time()
        start = time.process_time()
        monitor.step()
        inside += time.process_time() - start
    outside = time.process_time() - began - inside
    looks = [record for record in monitor.records if "lambda_max" in record.readings]
    left = sum(record.skipped is not None for record in monitor.records)
    print(f"{name}: {len(looks)} whole looks, {left} left out, at step {[record.step for record in looks]}")
    return [
        told(f"{name}: overhead at 5 %, by its own clock {monitor.records[-1].share:.4f};", inside / outside, 0.055)
    ]


def main() -> int:
    warnings.simplefilter("ignore")
    met = []
    for name, run in RUNS.items():
        if len(sys.argv) < 2 or any(word in name for word in sys.argv[1:]):
            met += [*accuracy(name, run), *overhead(name, run)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
