"""How often `compare` calls runs different that are not, and how often it finds a difference of three standard errors.

    python -m tests.benchmarks.comparisons [--pairs N] [--distance N] [NAME...]

Real measurements of small networks, each run with a seed of its own: "alike" are pairs with the same truth, "apart"
pairs whose headline numbers truly differ by three standard errors of their difference. These errors are the spread of
the headline over runs, not what the runs say of themselves. How far to move a network for that was settled by the
spread of 300 to 1,000 other runs; how far apart they are is measured again, from the runs that are compared, or from
many more with `--distance`.
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
        after: The same where the headline truly differs by three errors of the difference.
    """

    headline: str
    before: Run
    after: Run


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


def scaled(relative: float) -> float:
    """By what to multiply a Hessian, so that a number in proportion to it is three errors of the difference larger.

    Args:
        relative: Spread of that number over runs, over itself; it stays when all is multiplied.
    """
    by = 0.0
    for _ in range(50):
        by = APART * relative * math.hypot(1.0, 1 + by)
    return 1 + by


def spectrum_case(relative: float) -> Case:
    def run(asked: hessdiag.Problem) -> Run:
        def measured(seed: int) -> Any:
            with mock.patch.object(spectrum_measure, "EXACT_UP_TO", 0):  # as of a network that is too large for that
                return hessdiag.spectrum(asked, seed=seed, probes=10, steps=30)

        return measured

    return Case("trace", run(problem()), run(problem(scaled(relative))))


def share_case(rows: int, before: float, after: float) -> Case:
    """A share of rows, and one of as many by which it is larger; `before` and `after` are the spreads of both."""

    def run(asked: hessdiag.Problem) -> Run:
        return lambda seed: hessdiag.diag_share(asked, seed=seed, rows=rows)

    def share(decay: float) -> float:
        held = np.abs(hessdiag.hessian(problem(decay=decay)).numpy())
        return float(np.trace(held) / held.sum())

    decay = 1e-4
    for _ in range(20):  # the share is nearly linear in it
        decay *= APART * math.hypot(before, after) / (share(decay) - share(0.0))
    return Case("diag_share", run(problem()), run(problem(decay=decay)))


def blocks_case(relative: float) -> Case:
    def run(asked: hessdiag.Problem) -> Run:
        return lambda seed: hessdiag.blocks(asked, seed=seed, probes=12)

    return Case("norm", run(problem()), run(problem(scaled(relative))))


def ensemble_case(
    question: Callable[..., Any], headline: str, widths: tuple[int, int], seeds: int, **options: Any
) -> Case:
    """Networks of two widths, as many of each that the widths' rates are three errors apart."""
    before, after = ((lambda seed, w=width: question(width=w, seeds=seeds, seed=seed, **options)) for width in widths)
    return Case(headline, before, after)


CASES: dict[str, Callable[[], Case]] = {
    "spectrum": lambda: spectrum_case(0.146),
    "diag-share --rows 60": lambda: share_case(60, 0.000686, 0.000742),
    "diag-share --rows 200": lambda: share_case(200, 0.000302, 0.000313),
    "blocks --probes 12": lambda: blocks_case(0.0229),
    "vanishing": lambda: ensemble_case(
        hessdiag.vanishing, "rates.gradient.per_layer", (6, 8), 1900, depth=4, hessian_seeds=2
    ),
    "forward": lambda: ensemble_case(hessdiag.forward, "inits.0.log_median_per_layer", (8, 10), 814, depth=8),
    "forward, one init": lambda: ensemble_case(
        hessdiag.forward, "inits.0.log_median_per_layer", (8, 10), 537, depth=8, init="he_normal"
    ),
}


@dataclass(frozen=True)
class Distance:
    """How far apart the headlines of two samples of runs are, in errors of the difference of one run of each.

    Attributes:
        value: Itself.
        error: Its standard error, from the samples' sizes.
    """

    value: float
    error: float

    @classmethod
    def of(cls, before: Sequence[float], after: Sequence[float]) -> "Distance":
        """Of two samples; the errors of their means and of their spreads both count."""
        spread = math.hypot(np.std(before, ddof=1), np.std(after, ddof=1))
        value = abs(float(np.mean(after) - np.mean(before))) / spread
        means = math.hypot(*(np.std(one) / spread / math.sqrt(len(one)) for one in (before, after)))
        squares = [np.square(np.asarray(one) - np.mean(one)) / spread**2 for one in (before, after)]
        return cls(
            value, math.hypot(means, value / 2 * math.hypot(*(np.std(one) / math.sqrt(len(one)) for one in squares)))
        )


def headline(result: Any, path: str) -> float:
    """The number at a path of a result."""
    return float(at(document(result)["result"], path))


def distance(case: Case, runs: int, first: int = 10**6) -> Distance:
    """As so many runs of each side find it."""
    seeds = itertools.count(first)
    return Distance.of(
        *([headline(run(next(seeds)), case.headline) for _ in range(runs)] for run in (case.before, case.after))
    )


def rates(case: Case, pairs: int, first: int = 0) -> dict[str, float]:
    """Shares of pairs in which something is called different: of pairs alike anything, of pairs apart the headline."""
    seeds = itertools.count(first)
    before = [case.before(next(seeds)) for _ in range(2 * pairs)]
    after = [case.after(next(seeds)) for _ in range(pairs)]
    alike = [hessdiag.compare(a, b) for a, b in zip(before[::2], before[1::2], strict=True)]
    apart = [hessdiag.compare(a, b) for a, b in zip(before[::2], after, strict=True)]
    found = Distance.of(*([headline(run, case.headline) for run in side] for side in (before, after)))
    return {
        "alike": float(np.mean([one.significant > 0 for one in alike])),
        "alike, headline": float(np.mean([_found(one, case.headline) for one in alike])),
        "apart": float(np.mean([_found(one, case.headline) for one in apart])),
        "tested": float(np.mean([sum(row.p is not None for row in one.changes) for one in alike])),
        "errors apart": found.value,
        "its error": found.error,
    }


def _found(found: hessdiag.Compare, metric: str) -> bool:
    return any(row.significant for row in found.changes if row.metric == metric)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--distance", type=int, default=0, help="only the distance, from so many runs of each side")
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("names", nargs="*", default=list(CASES))
    asked = parser.parse_args(argv)
    for name in asked.names:
        if asked.distance:
            print(f"{name:24}", distance(CASES[name](), asked.distance), flush=True)
            continue
        found = rates(CASES[name](), asked.pairs, asked.first)
        print(f"{name:24}", ", ".join(f"{what} {value:.4g}" for what, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
