"""How often `compare` calls runs different that are not, and how often it finds a difference of three standard errors.

    python -m tests.benchmarks.comparisons [--pairs N] [NAME...]

Real measurements of small networks, each run with a seed of its own: "alike" are pairs with the same truth, "apart"
pairs whose headline numbers truly differ by three standard errors of their difference. These errors are the spread of
the headline over runs, not what the runs say of themselves.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch

import hessdiag
from hessdiag.questions.compare.readings import at
from hessdiag.questions.documents import document
from hessdiag.questions.spectrum import measure as spectrum_measure

APART = 3.0  # standard errors of a difference
Run = Callable[[int], Any]


@dataclass(frozen=True)
class Case:
    """One question with its options.

    Attributes:
        headline: Path of the number that is moved.
        before: A run, given its seed.
        moved: The same where the headline truly differs by three errors of the difference, given the spread of runs.
    """

    headline: str
    before: Run
    moved: Callable[[float], Run]


def network(width: int = 16) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = (torch.nn.Linear(8, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Tanh())
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 3)).double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(48, 8, dtype=torch.float64, generator=rng), torch.randint(0, 3, (48,), generator=rng)


def problem(scale: float = 1.0, decay: float = 0.0, width: int = 16) -> hessdiag.Problem:
    """A network with its loss times `scale`, and with `decay` added to the diagonal of the Hessian."""

    def objective(model: torch.nn.Module, pair: Any) -> torch.Tensor:
        x, y = pair
        held = sum((parameter**2).sum() for parameter in model.parameters())
        return scale * torch.nn.functional.cross_entropy(model(x), y) + decay / 2 * held

    return hessdiag.Problem(network(width), data=[batch()], objective=objective)


def scaled(truth: float, spread: float) -> float:
    """By what to multiply a Hessian, so that a number in proportion to it is three errors of the difference larger."""
    by = 0.0
    for _ in range(20):
        by = APART * math.hypot(spread, spread * (1 + by)) / truth
    return 1 + by


def spectrum_case() -> Case:
    def run(asked: hessdiag.Problem) -> Run:
        def measured(seed: int) -> Any:
            with mock.patch.object(spectrum_measure, "EXACT_UP_TO", 0):  # as of a network that is too large for that
                return hessdiag.spectrum(asked, seed=seed, probes=10, steps=30)

        return measured

    truth = float(np.trace(hessdiag.hessian(problem()).numpy()))
    return Case("trace", run(problem()), lambda spread: run(problem(scaled(truth, spread))))


def share_case(rows: int) -> Case:
    def run(asked: hessdiag.Problem) -> Run:
        return lambda seed: hessdiag.diag_share(asked, seed=seed, rows=rows)

    def share(decay: float) -> float:
        held = np.abs(hessdiag.hessian(problem(decay=decay)).numpy())
        return float(np.trace(held) / held.sum())

    def moved(spread: float) -> Run:
        step = 1e-4
        slope = (share(step) - share(0.0)) / step
        decay = APART * math.sqrt(2) * spread / slope
        wanted = share(0.0) + APART * math.sqrt(2) * spread
        for _ in range(20):  # the share is nearly linear in it
            decay *= (wanted - share(0.0)) / (share(decay) - share(0.0))
        return run(problem(decay=decay))

    return Case("diag_share", run(problem()), moved)


def blocks_case() -> Case:
    def run(asked: hessdiag.Problem) -> Run:
        return lambda seed: hessdiag.blocks(asked, seed=seed, probes=12)

    truth = float(np.linalg.norm(hessdiag.hessian(problem()).numpy()))
    return Case("norm", run(problem()), lambda spread: run(problem(scaled(truth, spread))))


def ensemble_case(question: Callable[..., Any], headline: str, widths: tuple[int, int], **options: Any) -> Case:
    """Networks of two widths, as many of each that the widths' rates are three errors apart."""

    def run(width: int, seeds: int) -> Run:
        return lambda seed: question(width=width, seeds=seeds, seed=seed, **options)

    few, runs = 100, 100
    values = [
        [at(document(run(width, few)(seed))["result"], headline) for seed in range(10**6, 10**6 + runs)]
        for width in widths
    ]
    spread = math.hypot(*(float(np.std(one, ddof=1)) for one in values))
    between = float(np.mean(values[1]) - np.mean(values[0]))
    seeds = max(round(few * (APART * spread / between) ** 2), 20)
    return Case(headline, run(widths[0], seeds), lambda _: run(widths[1], seeds))


CASES: dict[str, Callable[[], Case]] = {
    "spectrum": spectrum_case,
    "diag-share --rows 60": lambda: share_case(60),
    "diag-share --rows 200": lambda: share_case(200),
    "blocks --probes 12": blocks_case,
    "vanishing": lambda: ensemble_case(
        hessdiag.vanishing, "rates.gradient.per_layer", (6, 8), depth=4, hessian_seeds=2
    ),
    "forward": lambda: ensemble_case(hessdiag.forward, "inits.0.log_median_per_layer", (8, 10), depth=8),
    "forward, one init": lambda: ensemble_case(
        hessdiag.forward, "inits.0.log_median_per_layer", (8, 10), depth=8, init="he_normal"
    ),
}


def rates(case: Case, pairs: int, first: int = 0) -> dict[str, float]:
    """Shares of pairs in which something is called different: of pairs alike anything, of pairs apart the headline."""
    seeds = itertools.count(first)
    before = [case.before(next(seeds)) for _ in range(2 * pairs)]
    values = [at(document(run)["result"], case.headline) for run in before]
    later = case.moved(float(np.std(values, ddof=1)))
    after = [later(next(seeds)) for _ in range(pairs)]
    alike = [hessdiag.compare(a, b) for a, b in zip(before[::2], before[1::2], strict=True)]
    apart = [hessdiag.compare(a, b) for a, b in zip(before[::2], after, strict=True)]
    moved = [at(document(run)["result"], case.headline) for run in after]
    error = math.hypot(float(np.std(values, ddof=1)), float(np.std(moved, ddof=1)))
    return {
        "alike": float(np.mean([found.significant > 0 for found in alike])),
        "alike, headline": float(np.mean([_found(found, case.headline) for found in alike])),
        "apart": float(np.mean([_found(found, case.headline) for found in apart])),
        "tested": float(np.mean([sum(row.p is not None for row in found.changes) for found in alike])),
        "errors apart": abs(float(np.mean(moved) - np.mean(values))) / error,
    }


def _found(found: hessdiag.Compare, metric: str) -> bool:
    return any(row.significant for row in found.changes if row.metric == metric)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("names", nargs="*", default=list(CASES))
    asked = parser.parse_args(argv)
    for name in asked.names:
        found = rates(CASES[name](), asked.pairs, asked.first)
        print(f"{name:24}", ", ".join(f"{what} {value:.4g}" for what, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
