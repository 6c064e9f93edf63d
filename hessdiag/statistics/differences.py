"""Whether two numbers differ by more than what is known of each allows, and several such tests at one level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hessdiag.statistics.student import reach_of, two_sided

SLACK = 1e-9  # relative, of probabilities that are equal but for rounding


@dataclass(frozen=True)
class Known:
    """What is known of one number.

    Attributes:
        value: Itself.
        low: It is certainly not below; the value of an estimate.
        high: Nor above.
        down: Standard error towards smaller numbers; 0 where nothing is random.
        up: Towards larger ones. Of an asymmetric interval the two differ.
        freedom: Degrees of freedom of these errors.
        cases: How many cases the number is the share of, of so many trials; `None` of other numbers.
        trials: Likewise.
    """

    value: float
    low: float
    high: float
    down: float = 0.0
    up: float = 0.0
    freedom: float = math.inf
    cases: int | None = None
    trials: int | None = None


@dataclass(frozen=True)
class Difference:
    """The second number less the first.

    Attributes:
        value: Itself.
        stderr: Its standard error, towards zero, or the larger one where it is zero; `None` where neither is random.
        interval: Its 95 % interval, or where it certainly is.
        p: Two-sided; `None` where neither is random.
        proven: Whether the numbers certainly differ, where neither is random.
        least: The smallest that p could have become: of few cases in all it is never small, however they are parted.
    """

    value: float
    stderr: float | None
    interval: tuple[float, float]
    p: float | None
    proven: bool = False
    least: float = 0.0


def difference(a: Known, b: Known) -> Difference:
    """Compare two numbers whose errors are independent.

    Each error counts at the end of its interval that faces the other number (MOVER, Zou and Donner 2008), with
    Student's t of Satterthwaite's degrees of freedom. Two shares of cases are compared by Fisher's exact test.

    >>> found = difference(Known(1.0, 1.0, 1.0, 0.1, 0.3), Known(2.0, 2.0, 2.0, 0.4, 0.1))
    >>> found.value, round(found.stderr, 3), round(found.p, 4)
    (1.0, 0.5, 0.0455)
    >>> difference(Known(1.0, 0.9, 1.1), Known(1.3, 1.2, 1.4)).proven
    True
    """
    change = b.value - a.value
    rises = change >= 0
    toward = (a.up, b.down) if rises else (a.down, b.up)
    away = (a.down, b.up) if rises else (a.up, b.down)
    stderr, outwards = math.hypot(*toward), math.hypot(*away)
    gap = max(b.low - a.high, a.low - b.high, 0.0)
    if not any((a.down, a.up, b.down, b.up)):
        return Difference(change, None, (b.low - a.high, b.high - a.low), None, gap > 0)
    freedom = _satterthwaite(toward, (a.freedom, b.freedom))
    reach = reach_of(freedom)
    low, high = (stderr, outwards) if rises else (outwards, stderr)
    interval = (b.low - a.high - reach * low, b.high - a.low + reach * high)
    if not change:
        stderr = max(stderr, outwards)
    if a.trials and b.trials and a.cases is not None and b.cases is not None:
        cases, least = (a.cases, a.trials, b.cases, b.trials), _least(a.cases + b.cases, a.trials, b.trials)
        return Difference(change, stderr, interval, fisher(*cases), least=least)
    p = 1.0 if gap == 0 else (0.0 if stderr == 0 else two_sided(gap / stderr, freedom))
    return Difference(change, stderr, interval, p)


def _satterthwaite(errors: tuple[float, float], freedoms: tuple[float, float]) -> float:
    """Degrees of freedom of the root of a sum of squared errors."""
    squares = [error**2 for error in errors]
    uncertain = sum(
        (square / max(sum(squares), 1e-300)) ** 2 / nu for square, nu in zip(squares, freedoms, strict=True)
    )
    return max(1.0 / uncertain, 1.0) if uncertain else math.inf


def fisher(a: int, n: int, b: int, m: int) -> float:
    """How likely chance alone parts cases as far as a of n and b of m, or less likely (Fisher's exact test).

    >>> round(fisher(0, 2, 2, 2), 4), round(fisher(1, 10, 9, 10), 6)
    (0.3333, 0.001093)
    """
    k = a + b

    def log_ways(total: int, chosen: int) -> float:
        return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)

    whole = log_ways(n + m, k)
    chances = [math.exp(log_ways(n, i) + log_ways(m, k - i) - whole) for i in range(max(0, k - m), min(k, n) + 1)]
    seen = chances[a - max(0, k - m)]
    return min(math.fsum(chance for chance in chances if chance <= seen * (1 + SLACK)), 1.0)


def _least(cases: int, n: int, m: int) -> float:
    """The smallest p of Fisher's test for so many cases among n + m: where they are all on one side."""
    fewest, most = max(0, cases - m), min(cases, n)
    return min(fisher(one, n, cases - one, m) for one in (fewest, most))


def holm(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """P-values of several comparisons, corrected by Holm: below 0.05, each is so with all others in mind.

    Args:
        values: One for each comparison, however they hang together.
        weights: How the level is divided among them at first; equally by default. What is found passes its part on
            to the others (Holm 1979).

    >>> holm([0.01, 0.04, 0.5])
    [0.03, 0.08, 0.5]
    >>> [round(p, 4) for p in holm([0.04, 0.01, 0.5], [0.9, 0.05, 0.05])]
    [0.0444, 0.0444, 0.5]
    """
    shares = [1.0] * len(values) if weights is None else weights
    order = sorted(range(len(values)), key=lambda index: values[index] / shares[index])
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        left = math.fsum(shares[other] for other in order[rank:])
        largest = max(largest, min(left / shares[index] * values[index], 1.0))
        adjusted[index] = largest
    return adjusted
