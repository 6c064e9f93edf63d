"""Random width-one networks, and how large their output, gradient and Hessian entries are, all held as logs."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from hessdiag.questions.common.ensemble_statistics import FEWEST_FOR_TAILS, average_stderr, of_few, upper_spread
from hessdiag.theory.chain import Size
from hessdiag.theory.product_law import Array, Law

BLOCK = 2**20  # weights drawn at once


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Absolute value of a random quantity over the chains.

    Attributes:
        median_abs: Median.
        median_abs_stderr: Its standard error, from order statistics.
        mean_abs: Average; in long chains few chains set it, and the average of finitely many is too small.
        mean_abs_stderr: Its standard error; `None` where so few chains carry the average that it would be too small.
        rms: Root mean square.
        rms_stderr: Its standard error, likewise.
        q05: 5 % quantile; `None` of fewer than 20 chains, which do not know it.
        q95: 95 % quantile; likewise.
        log_median: Natural log of the median, which does not underflow.
        log_median_stderr: Its standard error.
    """

    median_abs: float
    median_abs_stderr: float
    mean_abs: float
    mean_abs_stderr: float | None
    rms: float
    rms_stderr: float | None
    q05: float | None
    q95: float | None
    log_median: float
    log_median_stderr: float


@dataclass(frozen=True, kw_only=True)
class Magnitude(Sample):
    """The same beside the exact law.

    Attributes:
        probability_above_mean: Share of the chains at or above the exact mean.
        probability_above_mean_stderr: Its standard error.
        probability_above_rms: Share of the chains at or above the exact root mean square.
        probability_above_rms_stderr: Its standard error.
        theory_median_abs: Exact, as are all that follow.
        theory_mean_abs: Mean.
        theory_rms: Root mean square.
        theory_log_median: Log of the median.
        theory_probability_above_mean: Probability to be at or above the mean.
        theory_probability_above_rms: Probability to be at or above the root mean square.
    """

    probability_above_mean: float
    probability_above_mean_stderr: float
    probability_above_rms: float
    probability_above_rms_stderr: float
    theory_median_abs: float
    theory_mean_abs: float
    theory_rms: float
    theory_log_median: float
    theory_probability_above_mean: float
    theory_probability_above_rms: float


class Draws(NamedTuple):
    """Random chains of one length, each of shape (chains,): log|v|, whether v < 0, and logs of the last two weights."""

    log_size: Array
    negative: NDArray[np.bool_]
    log_last: Array
    log_before: Array

    def _log_distance(self, factor: float) -> Array:
        """`log|factor v - 1|`, which neither overflows nor cancels where v is large or small."""
        a = math.log(factor) + self.log_size
        above = np.maximum(a, 0) + np.log(-np.expm1(-np.abs(a)))
        return np.where(self.negative, np.logaddexp(a, 0), above)

    @property
    def gradient(self) -> Array:
        """`log|(v - 1) v / w_L|`, (chains,)."""
        return self._log_distance(1) + self.log_size - self.log_last

    @property
    def hessian_diagonal(self) -> Array:
        """`log (v / w_L)^2`, (chains,)."""
        return 2 * (self.log_size - self.log_last)

    @property
    def hessian_offdiagonal(self) -> Array:
        """`log|(2v - 1) v / (w_L w_{L-1})|`, (chains,); for two weights or more."""
        return self._log_distance(2) + self.log_size - self.log_last - self.log_before


def simulate(law: Law, lengths: list[int], seeds: int, seed: int) -> Iterator[Draws]:
    """The same random chains at growing lengths.

    Args:
        law: Of the whole chain's output.
        lengths: Ascending.
        seeds: Number of chains.
        seed: Of all randomness.
    """
    rng = np.random.default_rng(seed)
    log_size, negative = np.zeros(seeds), np.zeros(seeds, dtype=bool)
    log_last = log_before = np.zeros(seeds)
    done = 0
    for length in lengths:
        while done < length:
            shape = (min(length - done, max(BLOCK // seeds, 1)), seeds)
            if law.distribution == "uniform":
                weights = rng.uniform(-law.scale, law.scale, shape)
            else:
                weights = rng.normal(0.0, law.scale, shape)
            logs = np.log(np.abs(weights))
            log_size = log_size + logs.sum(0)
            negative = negative ^ (np.signbit(weights).sum(0) % 2 == 1)
            log_before, log_last = (log_last if len(logs) == 1 else logs[-2]), logs[-1]
            done += len(logs)
        yield Draws(log_size, negative, log_last, log_before)


def sample(logs: Array) -> Sample:
    """Statistics of magnitudes given as logs, (chains,).

    >>> round(sample(np.log([1.0, 2.0, 3.0, 4.0, 5.0])).median_abs, 9)
    3.0
    """
    count = len(logs)
    ordered = np.sort(logs)
    log_median = float(np.median(ordered))
    # The median lies between these two order statistics with probability 0.68.
    low, high = (round((count - 1) / 2 + sign * math.sqrt(count) / 2) for sign in (-1, 1))
    stderr = float(ordered[min(high, count - 1)] - ordered[max(low, 0)]) / 2 * of_few(count)
    m1, m2, m4 = (float(logsumexp(order * logs)) - math.log(count) for order in (1, 2, 4))
    mean, rms, spread = _exp(m1), _exp(m2 / 2), upper_spread(ordered[np.isfinite(ordered)])
    return Sample(
        median_abs=_exp(log_median),
        median_abs_stderr=_exp(log_median) * stderr,
        mean_abs=mean,
        mean_abs_stderr=average_stderr(mean, _exp(m2 - 2 * m1), count, spread),
        rms=rms,
        rms_stderr=average_stderr(rms / 2, _exp(m4 - 2 * m2), count, 2 * spread),
        q05=None if count < FEWEST_FOR_TAILS else _exp(float(np.quantile(ordered, 0.05))),
        q95=None if count < FEWEST_FOR_TAILS else _exp(float(np.quantile(ordered, 0.95))),
        log_median=log_median,
        log_median_stderr=stderr,
    )


def compare(logs: Array, size: Size) -> Magnitude:
    """Measured magnitudes, given as logs (chains,), beside their law."""
    # A constant, which one weight's derivatives can be, must not miss its own mean by rounding.
    above_mean, above_rms = (float((logs >= log - 1e-12).mean()) for log in (size.log_mean, size.log_rms))
    return Magnitude(
        **asdict(sample(logs)),
        probability_above_mean=above_mean,
        probability_above_mean_stderr=share_stderr(above_mean, len(logs)),
        probability_above_rms=above_rms,
        probability_above_rms_stderr=share_stderr(above_rms, len(logs)),
        theory_median_abs=_exp(size.log_median),
        theory_mean_abs=_exp(size.log_mean),
        theory_rms=_exp(size.log_rms),
        theory_log_median=size.log_median,
        theory_probability_above_mean=size.above_mean,
        theory_probability_above_rms=size.above_rms,
    )


def share_stderr(share: float, count: int) -> float:
    """Standard error of a measured share: the deviation of its Beta posterior, which no lucky 0 makes 0.

    >>> round(share_stderr(0.5, 100), 3), share_stderr(0.0, 10_000) < 1e-4
    (0.049, True)
    """
    expected = (share * count + 1) / (count + 2)
    return math.sqrt(expected * (1 - expected) / (count + 3))


def _exp(log: float) -> float:
    return math.exp(log) if log < 709 else math.inf
