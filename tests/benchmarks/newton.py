"""Newton-type optimizers on the deep ReLU network's plateau: `python -m tests.benchmarks.newton`, ten minutes.

Backpropagations (gradients and products) until the loss is 0.9, 0.5 and 0.1 of what it was, full batch of 512, medians
of 5 seeds for each initialization; `--most` is where a run ends. Gauss-Newton's are beside their bars for 0.9; ends
with 1 if one is missed.
"""

import argparse
import math
import statistics
import sys

import torch

from hessdiag.optimizers import GaussNewtonCG, NewtonCG, SaddleFreeNewton
from tests.optimizers.plateau import half_squares, plateau

SHARES = (0.9, 0.5, 0.1)
BARS = {"he": 20, "xavier": 16, "default": 57}


def passed(kind: type, seed: int, init: str, most: int) -> list[float]:
    """When one run passed each share; infinite for never."""
    model, x, y = plateau(seed, init)
    optimizer, closure = kind(model.parameters()), half_squares(model, x, y)
    spent, start, found = 0, math.inf, dict.fromkeys(SHARES, math.inf)
    while spent <= most and found[SHARES[-1]] == math.inf:
        loss = optimizer.step(closure)
        start = loss if start == math.inf else start
        for share in SHARES:
            if loss <= share * start:
                found[share] = min(found[share], spent)
        spent += optimizer.last.backpropagations
    return list(found.values())


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=400, help="backpropagations a run")
    most = parser.parse_args().most
    torch.set_num_threads(1)
    missed = False
    for kind in (GaussNewtonCG, NewtonCG, SaddleFreeNewton):
        for init, bar in BARS.items():
            runs = [passed(kind, seed, init, most) for seed in range(5)]
            medians = [statistics.median(run[at] for run in runs) for at in range(len(SHARES))]
            said = f", bar for 0.9: {bar}" if kind is GaussNewtonCG else ""
            each = " ".join(f"{run[0]:g}" for run in runs)
            print(
                f"{kind.__name__:>16} {init:>8}  {'/'.join(f'{m:g}' for m in medians):>14}  0.9 at {each}{said}",
                flush=True,
            )
            missed |= kind is GaussNewtonCG and medians[0] > bar
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
