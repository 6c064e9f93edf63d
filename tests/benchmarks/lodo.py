"""The bars of LODO and its tasks, in full: `python -m tests.benchmarks.lodo`, a minute; `--steps 100000` the paper's.

On the bowl of 100 dimensions: the mean loss of the second half of the steps and of their last tenth, LODO's error of
the inverse Hessian, and milliseconds of the processor a step. On Rosenbrock's function: the mean loss of steps 180 to 200, LODO's over
8 seeds. Each beside its bar; ends with 1 if one is missed.
"""

import argparse
import statistics
import sys
import time

from hessdiag.nets.tasks.bowl import bowl
from hessdiag.nets.tasks.rosenbrock import rosenbrock
from hessdiag.theory.lodo import bowl_eigenvalues, heavy_ball_loss, newton_loss
from tests.nets.test_tracking_tasks import contender, inverse_error, raced

LONG = 100_000


def bowls(steps: int) -> list[bool]:
    """The bars on the bowl, for the seed 0."""
    half, tenth, met = {}, {}, []
    for name in ("lodo", "adam", "sgd", "rmsprop"):
        task = bowl(steps=steps)
        optimizer, start = contender(task, name, **({"seed": 0} if name == "lodo" else {})), time.process_time()
        losses = raced(task, optimizer)
        spent = (time.process_time() - start) / steps * 1e3
        half[name], tenth[name] = (statistics.mean(losses[-steps // share :]) for share in (2, 10))
        print(
            f"{name:>8}  second half {half[name]:7.3f}  last tenth {tenth[name]:7.3f}  {spent:.2f} ms a step",
            flush=True,
        )
        if name == "lodo":
            found = inverse_error(optimizer, task["model"].hessian)
            met.append(told("inverse-Hessian error", found, 0.80))
            met.append(told("milliseconds a step", spent, 1.7))
    moves = [new[0] - old[0] for (new, _), (old, _) in zip(task["data"][1:], task["data"], strict=False)]
    newton = statistics.mean(float(move @ task["model"].hessian @ move) / 2 for move in moves)
    print(f"  Newton  mean {newton:.3f}, by theory {newton_loss(bowl_eigenvalues()):.3f}")
    expected = heavy_ball_loss(bowl_eigenvalues(), 1.394, 0.529)
    print(f"momentum  by theory {expected:.3f}")
    met.append(told("Newton off its bound, %", abs(newton / newton_loss(bowl_eigenvalues()) - 1) * 100, 1))
    met.append(told("momentum off its law, %", abs(half["sgd"] / expected - 1) * 100, 1.5))
    met.append(told("LODO", half["lodo"], 10.5))
    met.append(told("14.5 less Adam", 14.5 - half["adam"], 0))
    if steps >= LONG:
        met.append(told("LODO, last tenth", tenth["lodo"], 9.2))
    return met


def valleys() -> list[bool]:
    """The bars on Rosenbrock's function."""
    found = []
    for seed in range(8):
        task = rosenbrock()
        found.append(statistics.mean(raced(task, contender(task, "lodo", seed=seed))[180:]))
    task = rosenbrock()
    adam = statistics.mean(raced(task, contender(task, "adam"))[180:])
    print(f"LODO {statistics.mean(found):.4g} +- {statistics.stdev(found):.2g}, Adam {adam:.4g}")
    return [
        told("LODO off 1.05e-3", abs(statistics.mean(found) - 1.05e-3), 1e-4),
        told("Adam off 5.3e-5", abs(adam - 5.3e-5), 1e-5),
    ]


def told(what: str, found: float, bar: float) -> bool:
    """Whether a number is below its bar, and said."""
    print(f"{'met   ' if found < bar else 'MISSED'}  {what}: {found:.4g}, bar {bar:g}", flush=True)
    return found < bar


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    given = parser.parse_args()
    sys.exit(0 if all([*valleys(), *bowls(given.steps)]) else 1)
