"""Random width-one networks, and how large their output, gradient and Hessian entries are, all held as logs."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from hessdiag.questions.chain.result import Magnitude, Sample, Share, SignShares
from hessdiag.questions.common.ensembles.statistics import FEWEST_FOR_TAILS, average_stderr, of_few, upper_spread
from hessdiag.theory.chain import InertiaShares, Size, inertia_shares, peak
from hessdiag.theory.product_law import Array, Law

BLOCK = 2**20  # weights drawn at once


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
    measured = sample(logs)
    return Magnitude(
        median_abs=measured.median_abs,
        median_abs_stderr=measured.median_abs_stderr,
        mean_abs=measured.mean_abs,
        mean_abs_stderr=measured.mean_abs_stderr,
        rms=measured.rms,
        rms_stderr=measured.rms_stderr,
        q05=measured.q05,
        q95=measured.q95,
        log_median=measured.log_median,
        log_median_stderr=measured.log_median_stderr,
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


def sign_shares(law: Law, draws: Draws) -> SignShares:
    """Shares of the chains by the signs of their Hessian's eigenvalues, beside the probabilities."""
    measured, exact, count = _signs(draws, law.length), inertia_shares(law), len(draws.log_size)

    def share(measured: float, theory: float) -> Share:
        return Share(measured=measured, stderr=share_stderr(measured, count), theory=theory)

    return SignShares(
        definite=share(measured.definite, exact.definite),
        one_negative=share(measured.one_negative, exact.one_negative),
        one_positive=share(measured.one_positive, exact.one_positive),
    )


def _signs(draws: Draws, length: int) -> InertiaShares:
    """Which signs the eigenvalues have, the output alone decides."""
    if length == 1:
        return InertiaShares(1.0, 0.0, 0.0)
    small = ~draws.negative & (draws.log_size < math.log(peak(length)))
    definite = ~draws.negative & ~small & (draws.log_size <= 0)
    one_negative = small if length > 2 else ~definite
    rest = ~(definite | one_negative)
    return InertiaShares(float(definite.mean()), float(one_negative.mean()), float(rest.mean()))


def share_stderr(share: float, count: int) -> float:
    """Standard error of a measured share: the deviation of its Beta posterior, which no lucky 0 makes 0.

    >>> round(share_stderr(0.5, 100), 3), share_stderr(0.0, 10_000) < 1e-4
    (0.049, True)
    """
    expected = (share * count + 1) / (count + 2)
    return math.sqrt(expected * (1 - expected) / (count + 3))


def _exp(log: float) -> float:
    return math.exp(log) if log < 709 else math.inf
