"""Whether the bands of `escape` hold the steps that optimizers take: `python -m tests.benchmarks.escape_coverage`.

Ten fixed plateaus of deep ReLU networks and ten that are drawn anew, from the seed given as an argument or from the
clock. Full-batch gradient descent runs with a twentieth of what the largest curvature allows, until the plateau is
left. On very flat plateaus such a step is large, and the last one leaps over the valley: the loss then leaves upwards,
and only a smaller learning rate would have stayed. Prints the table of docs/concepts/escape.md, in minutes.

    python -m tests.benchmarks.escape_coverage adaptive

does the same for adaptive methods above their floors, with minibatches of 128 samples, on ten plateaus of other seeds.
"""

import itertools
import random
import sys
import time

import torch

from hessdiag.optimizers.recipe import recipe
from hessdiag.problem.batches.minibatches import Minibatches
from hessdiag.questions.escape.foretold.plateau import plateau_of
from hessdiag.questions.escape.foretold.predict import predicted
from hessdiag.theory.optimizer_floors import floored_escape
from tests.questions.escape.flat import deep, left

FIXED = (
    (16, 8, "lecun_variance", 0),
    (16, 16, "lecun_variance", 1),
    (16, 16, "lecun", 0),
    (16, 32, "lecun", 1),
    (32, 8, "lecun_variance", 2),
    (32, 16, "lecun_variance", 3),
    (32, 16, "lecun_variance", 0),
    (32, 16, "lecun", 0),
    (32, 32, "lecun_variance", 1),
    (64, 16, "lecun_variance", 0),
)
ADAPTIVE = (
    *((32, 16, init, seed) for init in ("lecun_variance", "lecun") for seed in (11, 12, 13)),
    *((16, 8, init, 11) for init in ("lecun_variance", "lecun")),
    *((32, 32, init, 11) for init in ("lecun_variance", "lecun")),
)
OPTIMIZERS = (
    "rmsprop(lr=1e-3, eps=1e-30)",
    "rmsprop(lr=3e-4, eps=1e-30)",
    "adam(lr=1e-3, eps=1e-30)",
    "adam(lr=3e-3, eps=1e-30)",
    "adamw(lr=3e-3, eps=1e-30)",
    "muon(lr=0.01, eps=1e-30, weight_decay=0)",
)
PIECE = 128  # samples of a minibatch
RATE = 0.05  # over the largest curvature
MOST = 20_000  # steps


def case(depth, width, init, seed, **settings):
    """Problem, plateau and learning rate."""
    problem = deep(depth=depth, width=width, init=init, seed=seed, samples=512)
    plateau = plateau_of(problem, seed=seed, **settings)
    sharpest = max(abs(plateau.lowest or 0.0), abs(plateau.highest or 0.0))
    return problem, plateau, RATE / sharpest if sharpest else 0.0


def drawn(seed):
    """Ten more, on plateaus."""
    source = random.Random(seed)
    kinds = list(itertools.product((16, 32, 64), (8, 16, 32), ("he_uniform", "lecun_variance", "lecun")))
    found = []
    while len(found) < 10:
        one = (*source.choice(kinds), source.randrange(10**6))
        if case(*one, gradients=0)[1].present:
            found.append(one)
    return found


def measured(one):
    """A row: whether the band holds the steps, and the row itself."""
    problem, plateau, rate = case(*one)
    if not plateau.present:
        return None, f"| {one} | no plateau |"
    found = predicted(plateau, "sgd", {"lr": rate}, model=problem.model, threshold=0.9)
    start = time.perf_counter()
    steps, down = left(problem, rate, 0.9 * plateau.reference, MOST)
    law = floored_escape(1.0, rate, -plateau.lowest)
    inside = found is not None and steps is not None and found.low <= steps <= found.high
    curvature = steps is not None and law.low <= steps <= law.high
    band = "none" if found is None else f"{found.low:.0f} | {found.typical:.0f} | {found.high:.0f}"
    flow = plateau.flow
    way = "down" if down else "leaps"
    cells = (*one, f"{plateau.lowest:.1e}", steps, way, band, "yes" if inside else "no", "yes" if curvature else "no")
    ended = "" if flow is None else f"{flow.ended}, {flow.gradients} gradients"
    return (inside, curvature), f"| {' | '.join(map(str, cells))} | {ended} | {time.perf_counter() - start:.0f} s |"


def counted(problem, made, level, most):
    """Steps of an optimizer with minibatches until the loss of all samples is below a level; `None` if never."""
    weights = [parameter.detach().clone() for parameter in problem.parameters]
    optimizer, pieces = made.build(problem.model), Minibatches(problem.data, 0, PIECE)
    found = None
    for step in range(most + 1):
        with torch.no_grad():
            if float(problem.evaluate(problem.data[0])) <= level:
                found = step
                break
        optimizer.zero_grad()
        problem.evaluate(next(pieces)).backward()
        optimizer.step()
    with torch.no_grad():
        for parameter, weight in zip(problem.parameters, weights, strict=True):
            parameter.copy_(weight)
            parameter.grad = None
    return found


def adaptive():
    """Prints a row for each plateau and optimizer, and how often each optimizer's band held."""
    held = {optimizer: [] for optimizer in OPTIMIZERS}
    for one in ADAPTIVE:
        problem, plateau, _ = case(*one)
        if not plateau.present:
            print(f"{one}: {plateau.state}", flush=True)
            continue
        for optimizer in OPTIMIZERS:
            made = recipe(optimizer, None)
            name = optimizer.partition("(")[0]
            found = predicted(plateau, name, made.known, model=problem.model, threshold=0.9)
            if found is None:
                print(f"{one} | {optimizer} | no law", flush=True)
                continue
            steps = counted(problem, made, 0.9 * plateau.reference, int(3 * found.high) + 1)
            inside = steps is not None and found.low <= steps <= found.high
            held[optimizer].append(inside)
            print(
                f"{one} | {optimizer} | {found.low:.0f}, {found.typical:.0f}, {found.high:.0f} | {steps} | {inside}",
                flush=True,
            )
    for optimizer, inside in held.items():
        print(f"{optimizer}: {sum(inside)} of {len(inside)}")


def main():
    if "adaptive" in sys.argv[1:]:
        adaptive()
        return
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else time.time_ns() % 10**6
    for name, cases in (("fixed", FIXED), (f"drawn with seed {seed}", drawn(seed))):
        print(
            f"{name}: depth, width, init, seed | lambda_min | measured | how | low, typical, high | held | by curvature alone"
        )
        held = []
        for one in cases:
            inside, row = measured(one)
            print(row, flush=True)
            held += [inside] if inside is not None else []
        print(
            f"{sum(a for a, _ in held)} of {len(held)} held; by curvature alone {sum(b for _, b in held)}", flush=True
        )


if __name__ == "__main__":
    main()
