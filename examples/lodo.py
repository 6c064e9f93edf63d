"""What LODO's paper claims of it, measured on a quadratic bowl whose centre wanders.

    python examples/lodo.py error       the error of its inverse Hessian along the run
    python examples/lodo.py noise       other variances and covariances of the centre's moves
    python examples/lodo.py frozen      a matrix that was learned on one bowl, and is used on another
    python examples/lodo.py momentum    rates from none to the best and beyond
    python examples/lodo.py ablations   simpler matrices, and a simpler way to learn

Each takes a few minutes on one core; `--steps` makes it shorter.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import hessdiag
from hessdiag.optimizers import LODO
from hessdiag.theory.lodo import bowl_eigenvalues, newton_loss

TUNED = {"alpha": 0.27, "meta_lr": 0.00096, "beta": 0.195, "seed": 0}  # Table 6 of the paper
NEWTON = newton_loss(bowl_eigenvalues())
Make = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


def bowl(steps: int, seed: int = 0, **settings: Any) -> hessdiag.Problem:
    told = "".join(f", {key}={value!r}" for key, value in settings.items())
    return hessdiag.load_problem(hessdiag.ProblemRequest(f"builtin:bowl(steps={steps}{told})", device="cpu", seed=seed))


def losses(problem: hessdiag.Problem, optimizer: torch.optim.Optimizer) -> Iterator[float]:
    """The loss before each step, over all centres in order."""
    for centre, target in problem.data:
        if isinstance(optimizer, LODO):
            yield optimizer.step(lambda c=centre, y=target: mse_loss(problem.model(c), y))
        else:
            optimizer.zero_grad()
            loss = mse_loss(problem.model(centre), target)
            loss.backward()
            optimizer.step()
            yield loss.item()


def late(problem: hessdiag.Problem, make: Make) -> float:
    """Mean loss of the last half of the steps; infinite where it left the bowl."""
    found = []
    for loss in losses(problem, make(problem.model.parameters())):
        found.append(loss)
        if not loss < 1e9:
            return float("inf")
    return statistics.mean(found[len(found) // 2 :])


def inverse_error(G: Any, H: Tensor) -> float:
    """Root mean square of |v - G H v| over unit vectors v."""
    return float((torch.eye(len(H), dtype=H.dtype) - G @ H).norm()) / len(H) ** 0.5


def error(steps: int) -> None:
    problem = bowl(steps)
    H, optimizer = problem.model.hessian, LODO(problem.model.parameters(), **TUNED)
    shown = {0, *(10**power for power in range(2, 6)), *range(steps // 5, steps + 1, steps // 5)}
    print("   step  mean loss  |I - GH|_F/10  along H's eigenvectors of 1, 0.25, 0.1, 0.03, 0.001: v'(I - GH)v")
    values, vectors = torch.linalg.eigh(H)
    at = [int((values - value).abs().argmin()) for value in (1.0, 0.25, 0.1, 0.03, 0.001)]
    window: list[float] = []
    for step, loss in enumerate(itertools.chain([None], losses(problem, optimizer))):
        if loss is not None:
            window.append(loss)
        if step in shown:
            G = optimizer.matrix()
            left = [1 - float(vectors[:, i] @ (G @ (H @ vectors[:, i]))) for i in at]
            mean = f"{statistics.mean(window):9.2f}" if window else "        -"
            print(f"{step:7}  {mean}  {inverse_error(G, H):13.3f}  {'  '.join(f'{one:6.3f}' for one in left)}")
            window = []
    print(f"Newton's method: {NEWTON:.2f}")


def contenders() -> dict[str, Make]:
    found: dict[str, Make] = {
        "LODO": lambda p: LODO(p, **TUNED),
        "Adam": lambda p: torch.optim.Adam(p, lr=1.164, betas=(0.465, 0.9884)),
        "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.449, alpha=0.04943, momentum=0.595),
        "momentum": lambda p: torch.optim.SGD(p, lr=1.394, momentum=0.529),
    }
    try:
        from pytorch_optimizer import Yogi
    except ImportError:
        return found
    return {**found, "Yogi": lambda p: Yogi(p, lr=2.169, betas=(0.4362, 0.9999723))}


def noise(steps: int) -> None:
    print(f"mean loss of the last half of {steps:,} steps over the noise's variance; Newton's method: {NEWTON:.2f}")
    print(f"{'covariance':>10}  {'variance':>8}  {'  '.join(f'{name:>8}' for name in contenders())}")
    for covariance, variance in (
        *(("isotropic", 10.0**power) for power in (-4, -2, -1, 0, 1, 2, 4)),
        ("hessian", 1.0),
        ("inverse", 1.0),
    ):
        row = [
            late(bowl(steps, noise=variance**0.5, covariance=covariance), make) / variance
            for make in contenders().values()
        ]
        print(f"{covariance:>10}  {variance:8g}  {'  '.join(f'{one:8.2f}' for one in row)}", flush=True)


def frozen(steps: int) -> None:
    first = bowl(steps)
    optimizer = LODO(first.model.parameters(), **TUNED)
    last = statistics.mean(list(losses(first, optimizer))[-steps // 10 :])
    G, one = optimizer.matrix(), torch.eye(100, dtype=torch.float64)
    scale = float(torch.linalg.eigvalsh(G @ one)[-1])
    print(f"learned in {steps:,} steps: mean loss of the last tenth {last:.2f}, largest eigenvalue of G {scale:.2f}")
    beta, shown = TUNED["beta"], (1, 2, 5, 10, 20, 50)
    print(f"on a bowl, frozen: growth of a distance in a step, and the loss at step {', '.join(map(str, shown))}")
    for name, basis in (("the same", 0), ("another", 1), ("a third", 2)):
        H, stream = bowl(1, seed=basis).model.hessian, bowl(max(shown), seed=steps)
        x = m = torch.zeros(100, dtype=torch.float64)
        found = []
        for centre, _ in stream.data:
            b = x - centre[0]
            found.append(float(b @ H @ b / 2))
            m = beta * m + (1 - beta) * H @ b
            x = x - G @ m
        left, right = (1 - beta) * H, beta * one
        step = torch.cat([torch.cat([one - G @ left, -(G @ right)], 1), torch.cat([left, right], 1)])
        growth = float(torch.linalg.eigvals(step).abs().max())
        print(f"{name:>9}  {growth:6.2f}  {'  '.join(f'{found[step - 1]:9.3g}' for step in shown)}")


def momentum(steps: int) -> None:
    print(f"mean loss of the last half of {steps:,} steps, as tuned but for the rate; Newton's method: {NEWTON:.2f}")
    for beta in (0.0, 0.05, 0.1, 0.195, 0.3, 0.5, 0.7, 0.8, 0.9):
        found = late(bowl(steps), lambda p, beta=beta: LODO(p, **{**TUNED, "beta": beta}))
        print(f"beta {beta:5}  {found:7.2f}", flush=True)


def ablations(steps: int) -> None:
    """Each variant with its own best setting of a small grid, searched on a fifth of the steps and on another bowl."""
    print(f"mean loss of the last half of {steps:,} steps; Newton's method: {NEWTON:.2f}")
    adam, plain = (1e-3, 3e-3, 1e-2), (1e-4, 1e-3, 1e-2)
    for name, change, rates in (
        ("LODO", {}, adam),
        ("diagonal", {"variant": "diagonal"}, adam),
        ("global", {"variant": "global"}, adam),
        ("residual", {"variant": "residual"}, adam),
        ("no momentum", {"beta": 0.0}, adam),
        ("meta-optimizer SGD", {"meta": "sgd"}, plain),
    ):
        tried = {}
        for alpha, meta_lr in itertools.product((0.27, 0.8, 1.6), rates):
            settings = {**TUNED, **change, "alpha": alpha, "meta_lr": meta_lr}
            tried[alpha, meta_lr] = late(bowl(steps // 5, seed=1), lambda p, s=settings: LODO(p, **s))
        alpha, meta_lr = min(tried, key=tried.__getitem__)
        settings = {**TUNED, **change, "alpha": alpha, "meta_lr": meta_lr}
        lost = sum(value == float("inf") for value in tried.values())
        found = late(bowl(steps), lambda p, s=settings: LODO(p, **s))
        print(
            f"{name:>18}  {found:8.2f}  (alpha {alpha:g}, meta_lr {meta_lr:g}; {lost} of {len(tried)} diverged)",
            flush=True,
        )


PARTS = {"error": error, "noise": noise, "frozen": frozen, "momentum": momentum, "ablations": ablations}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--steps", type=int, default=10_000)
    given = parser.parse_args()
    PARTS[given.part](given.steps)
