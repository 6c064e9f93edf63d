"""Who leaves which plateau: `python -m tests.benchmarks.escapes [names]`, in half an hour on a quiet core.

Each bar is an optimizer on a network: within how many backpropagations it has to be out on every seed, or that it must
not get out in so many. Prints what was measured beside it. Names choose groups: deep, today, chain, autoencoder, paper.
Optimizers of `pytorch_optimizer` are left out where that is not installed.
"""

import argparse
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from hessdiag.nets.tasks.autoencoder import autoencoder
from hessdiag.nets.tasks.deep_mlp import deep_mlp
from hessdiag.nets.tasks.neural_chain import neural_chain
from hessdiag.problem.problem import Problem
from hessdiag.questions.escape.measure import escape_of

FOREIGN = ("lion", "soap", "shampoo", "sophiah")
HE, XAVIER, DEFAULT = "he_uniform", "lecun_variance", "lecun"  # of variance 2, 1 and 1/3 over the fan-in
FOREVER = 1e9  # seconds


@dataclass(frozen=True)
class Bar:
    """What an optimizer has to do.

    Attributes:
        group: By which it is chosen.
        network: In words.
        build: Makes the problem of a seed.
        optimizer: Its spec.
        within: Backpropagations by which every run is out; `None` where none may be.
        budget: Of each run.
        seeds: How many.
        threshold: What counts as out; `None` for the task's own.
        batch: Samples in a minibatch; `None` for the task's own.
        exactly: Whether it has to be just that many.
    """

    group: str
    network: str
    build: Callable[[int], Problem]
    optimizer: str
    within: int | None
    budget: int
    seeds: int = 5
    threshold: float | None = None
    batch: int | None = None
    exactly: bool = False


def posed(task):
    """The problem of a task."""
    return Problem(task["model"], data=[task["data"]], loss=task["loss"])


def deep(init, **sizes):
    """Networks of one initialization."""
    return lambda seed: posed(deep_mlp(init=init, seed=seed, **sizes))


def chain(length, spread=0.0):
    """The chain of scalars."""
    return lambda seed: posed(neural_chain(length, spread=spread, seed=seed))


def images(seed):
    """The sigmoid autoencoder."""
    return posed(autoencoder(seed=seed))


def bars() -> Iterator[Bar]:
    """All of them."""
    for init in (HE, XAVIER, DEFAULT):
        yield Bar("deep", init, deep(init), "tr-rmsprop", 60, 200)
    yield Bar("deep", XAVIER, deep(XAVIER), "sgd", None, 4000)
    yield Bar("deep", DEFAULT, deep(DEFAULT), "rmsprop(lr=1e-3)", None, 4000)
    yield Bar("deep", DEFAULT, deep(DEFAULT), "rmsprop(lr=1e-3, eps=1e-30)", 60, 300)
    for init, optimizer, within in (
        (DEFAULT, "adamw(lr=3e-3, eps=1e-30)", 60),
        (DEFAULT, "adagrad(lr=1e-2, eps=1e-30)", 30),
        (DEFAULT, "muon(lr=0.02, eps=1e-30, weight_decay=0)", 50),
        (XAVIER, "muon(lr=5e-3, weight_decay=0)", 90),
        (DEFAULT, "lion(lr=3e-3)", 40),
        (XAVIER, "soap(lr=1e-2)", 50),
    ):
        yield Bar("today", init, deep(init), optimizer, within, 200)
    for optimizer in ("muon(lr=0.02, weight_decay=0)", "adagrad(lr=1e-2)"):
        yield Bar("today", DEFAULT, deep(DEFAULT), optimizer, None, 400, seeds=2)
    lengths = (5, 10, 20, 40, 80)
    for optimizer, counts in (
        ("lion(lr=1e-3)", (294, 385, 441, 470, 485)),
        ("muon(lr=0.02, eps=1e-30, weight_decay=0)", (22, 28, 33, 35, 36)),
        ("rmsprop(lr=1e-3, eps=1e-30)", (129, 122, 89, 63, 53)),
    ):
        for length, count in zip(lengths, counts, strict=True):
            yield Bar("chain", f"chain {length}", chain(length), optimizer, count, 2 * count, 1, exactly=True)
    for length in (20, 40, 80):
        yield Bar("chain", f"chain {length}", chain(length, spread=0.01), "tr-rmsprop", 25, 100, 3)
    yield Bar("chain", "chain 20", chain(20), "shampoo(lr=0.1)", 161, 400, 1)
    yield Bar("autoencoder", "autoencoder", images, "tr-rmsprop", 400, 1000, 2)
    yield Bar("autoencoder", "autoencoder, all samples", images, "tr-uniform", 100, 400, 2, batch=2048)
    yield Bar("autoencoder", "autoencoder", images, "muon(lr=0.02)", 200, 400, 2)
    yield Bar("autoencoder", "autoencoder, to 0.6", images, "muon(lr=0.02)", 300, 600, 2, threshold=0.6)
    yield Bar("autoencoder", "autoencoder", images, "tr-uniform", None, 3000, 2)
    yield Bar("autoencoder", "autoencoder", images, "sgd(lr=1)", None, 3000, 2)
    paper = deep(HE, depth=128, width=32)
    yield Bar("paper", "128 x 32", paper, "sgd", None, 1000, 2)
    yield Bar("paper", "128 x 32", paper, "rmsprop", 1000, 1000, 2)
    yield Bar("paper", "128 x 32", paper, "adam", 1000, 1000, 2)


def measured(bar: Bar) -> bool:
    """Race one, and print what came of it; whether the bar is met."""
    found = escape_of(
        bar.build,
        optimizers=[bar.optimizer],
        seeds=bar.seeds,
        budget=bar.budget,
        time_budget=FOREVER,
        threshold=bar.threshold,
        batch_size=bar.batch,
    )
    taken = [math.inf if run.backprops is None else run.backprops for run in found.runs]
    if bar.within is None:
        met, asked = all(math.isinf(count) for count in taken), f"not in {bar.budget}"
    elif bar.exactly:
        met, asked = all(count == bar.within for count in taken), f"{bar.within}"
    else:
        met, asked = max(taken) <= bar.within, f"<= {bar.within}"
    shown = " ".join("-" if math.isinf(count) else f"{count:.0f}" for count in taken)
    lr = found.contenders[0].settings.get("lr")
    best = min(run.best_loss / plateau.reference for run, plateau in zip(found.runs, found.plateaus, strict=False))
    print(
        f"{'met ' if met else 'MISSED'} {bar.network:26} {bar.optimizer:42} lr {lr!s:6} asked {asked:12} {shown}"
        f"   best {best:.3f}",
        flush=True,
    )
    return met


def main() -> None:
    """Measure the groups that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args().names
    torch.set_num_threads(1)
    began, missed = time.process_time(), 0
    there = importlib.util.find_spec("pytorch_optimizer") is not None
    for bar in bars():
        if (chosen and bar.group not in chosen) or (bar.optimizer.startswith(FOREIGN) and not there):
            continue
        missed += not measured(bar)
    print(f"{missed} missed, in {time.process_time() - began:.0f} s of the processor")


if __name__ == "__main__":
    main()
