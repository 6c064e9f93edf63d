"""The bars of `sharpness`, in full: `python -m tests.benchmarks.sharpness`, two minutes.

On digits: the mean ratio of the last quarter of four runs, critical sharpness at the edge of gradient descent in its
passes, and what is said of it before the edge. On a GPT of 1.9 million parameters: time of the processor and products,
over those of `eigs --highest 1 --lowest 0`. Each beside its bar; ends with 1 if one is missed.
"""

import runpy
import sys
import time
from pathlib import Path

import numpy as np
import torch

import hessdiag
from hessdiag.nets.gpt import gpt
from tests.benchmarks.lodo import told

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples/edge_of_stability.py"))


def edges() -> list[bool]:
    """The bars on digits."""
    met = []
    for name, run in EXAMPLE["RUNS"].items():
        seen = dict(EXAMPLE["followed"](run))
        last = list(seen.values())[-max(len(seen) // 4, 1) :]
        ratio = float(np.mean([one.ratio for one in last]))
        met.append(told(f"{name}: ratio {ratio:.4f}, off 1", abs(ratio - 1), 0.05))
        if not name.startswith("gradient descent"):
            continue
        losses = [one.reading("critical") for one in last]
        met.append(told("critical sharpness off 2 / lr", max(abs(one.ratio - 1) for one in losses), 0.05))
        met.append(told("its passes", max(one.passes for one in losses), 10.5))
        early = seen[100]
        print(
            f"        at step 100: critical {early.reading('critical').value:.4f}, lambda_max {early.reading('lambda_max').value:.3f}"
        )
        silent = not any("Critical sharpness is not lambda_max" in finding.says for finding in early.findings)
        met.append(told("step 100 says nothing", silent, 0.5))
    return met


def spent() -> list[bool]:
    """Processor time and products on a GPT, over those of `eigs`."""
    met = []
    task = gpt(layers=4, width=192, dtype=torch.float32)
    for optimizer in ("adamw(lr=1e-3)", "sgd(lr=0.1)", "muon(lr=0.01)"):
        times, products = [], []
        for measure in (
            lambda problem: hessdiag.eigs(problem, lowest=0, highest=1),
            lambda problem, own=optimizer: hessdiag.sharpness(problem, optimizer=own),
        ):
            problem = hessdiag.Problem(task["model"], data=[task["data"]], loss=task["loss"])
            start = time.process_time()
            products.append(measure(problem).hvps)
            times.append(time.process_time() - start)
        met.append(told(f"{optimizer}: {products[1]} products over {products[0]}; time", times[1] / times[0], 1.5))
    return met


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(0 if all([*spent(), *edges()]) else 1)
