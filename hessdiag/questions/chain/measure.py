"""The width-one network over random weights: what a typical one shows, beside the exact laws."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from hessdiag.errors import SpecError
from hessdiag.machine.cost import refuse_many
from hessdiag.questions.chain.plateau import Plateau, plateau
from hessdiag.questions.chain.sample import Draws, Magnitude, Sample, compare, sample, share_stderr, simulate
from hessdiag.questions.chain.verdict import findings
from hessdiag.questions.common.verdict import Z_ALLOWED, Finding, Status
from hessdiag.theory.chain import (
    InertiaShares,
    critical_scale,
    diagonal_size,
    gradient_size,
    inertia_shares,
    offdiagonal_size,
    peak,
    product_size,
    stabilized_order,
)
from hessdiag.theory.product_law import Distribution, Law

Progress = Callable[[int, int, str], None]

SEEDS = 10_000
BYTES_PER_CHAIN = 160  # logs of sizes and of the last weights, sorted and exponentiated
LONGEST = 100_000  # weights; the exact laws take some seconds there
GRID = 24  # lengths up to the longest
NO_RESULT = ("seed", "asked_length")
FEWEST_EVENTS = 10  # expected on either side, for a measured share to be compared in standard errors


@dataclass(frozen=True)
class AtLength:
    """All quantities in the first `length` weights; see `Chain`."""

    length: int
    product: Magnitude
    gradient: Sample
    hessian_diagonal: Sample
    hessian_offdiagonal: Sample | None


@dataclass(frozen=True)
class CriticalScale:
    """Scales at which a size neither vanishes nor explodes.

    Attributes:
        rms: For the root mean square of v.
        mean_abs: For the mean of |v|.
        median: For the median of |v|, in the limit of long chains.
        median_at_length: For the median of |v| at this length, exactly.
    """

    rms: float
    mean_abs: float
    median: float
    median_at_length: float


@dataclass(frozen=True)
class Share:
    """A measured share of the chains, with its standard error, and its exact probability."""

    measured: float
    stderr: float
    theory: float


@dataclass(frozen=True)
class SignShares:
    """Which signs the Hessian's eigenvalues have: all positive, one negative, or one positive and more negative."""

    definite: Share
    one_negative: Share
    one_positive: Share


@dataclass(frozen=True)
class Agreement:
    """A measured number against an exact one, in standard errors."""

    quantity: str
    statistic: str
    measured: float
    stderr: float
    theory: float

    @property
    def z(self) -> float:
        """Standard errors between the two."""
        return (self.measured - self.theory) / self.stderr


@dataclass(frozen=True, kw_only=True)
class Chain(Magnitude):
    """The chain `v = w_1 ... w_L` with the loss `(v - 1)^2 / 2`. What `Magnitude` says is of the product v.

    Attributes:
        length: Number L of weights.
        distribution: "uniform" on [-scale, scale], or "normal".
        scale: tau or sigma.
        seeds: Number of random chains.
        seed: Of all randomness.
        gradient: An entry of the gradient.
        hessian_diagonal: A diagonal entry of the Hessian.
        hessian_offdiagonal: Another entry of the Hessian; None for one weight.
        critical_scale: Scales that would keep one size or another.
        stabilized_order: The q whose moment `E|v|^q` this scale keeps at 1; None if there is none.
        inertia: Signs of the Hessian's eigenvalues.
        plateau: How long optimizers take from equal weights of typical size; None where there is no plateau,
            or one that lasts longer than float64 can say.
        lengths: The same sizes in shorter chains.
        asked_length: How long the chain was to be: an interrupt leaves a shorter one, which is all that is told of.
    """

    length: int
    distribution: Distribution
    scale: float
    seeds: int
    seed: int
    gradient: Magnitude
    hessian_diagonal: Magnitude
    hessian_offdiagonal: Magnitude | None
    critical_scale: CriticalScale
    stabilized_order: float | None
    inertia: SignShares
    plateau: Plateau | None
    lengths: tuple[AtLength, ...]
    asked_length: int

    @property
    def magnitudes(self) -> dict[str, Magnitude]:
        """The quantities that have an exact law, by name."""
        found = {"product": self, "gradient": self.gradient, "hessian_diagonal": self.hessian_diagonal}
        return found | ({"hessian_offdiagonal": self.hessian_offdiagonal} if self.hessian_offdiagonal else {})

    @property
    def agreement(self) -> tuple[Agreement, ...]:
        """Log medians and shares against theory, as far as there are enough chains for a standard error."""
        rows = []
        for name, size in self.magnitudes.items():
            if size.log_median_stderr > 0 and self.seeds >= 4 * FEWEST_EVENTS:
                measured, error, theory = size.log_median, size.log_median_stderr, size.theory_log_median
                rows.append(Agreement(name, "log median", measured, error, theory))
            rows += self._share(name, "above mean", size.probability_above_mean, size.theory_probability_above_mean)
            rows += self._share(name, "above rms", size.probability_above_rms, size.theory_probability_above_rms)
        for field in fields(self.inertia):
            share = getattr(self.inertia, field.name)
            rows += self._share("inertia", field.name.replace("_", " "), share.measured, share.theory)
        return tuple(rows)

    def _share(self, quantity: str, statistic: str, measured: float, theory: float) -> list[Agreement]:
        if self.seeds * min(theory, 1 - theory) < FEWEST_EVENTS:
            return []
        return [Agreement(quantity, statistic, measured, math.sqrt(theory * (1 - theory) / self.seeds), theory)]

    @property
    def status(self) -> Status:
        """Whether it was interrupted; nothing here is iterated or estimated without an error."""
        return "interrupted" if self.length < self.asked_length else "ok"

    @property
    def checks(self) -> dict[str, float | None]:
        """The largest deviation from theory in standard errors."""
        return {"largest_z": max((abs(row.z) for row in self.agreement), default=None)}

    @property
    def thresholds(self) -> dict[str, float]:
        """What the self-checks allow, by name."""
        return dict.fromkeys(self.checks, Z_ALLOWED)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The verdict."""
        return tuple(findings(self))

    @property
    def verdict(self) -> list[dict[str, str]]:
        """The findings as result documents hold them."""
        return [finding.as_dict() for finding in self.findings]

    def to_result(self) -> dict[str, Any]:
        """The document's "result"."""
        own = asdict(self)
        setting = {name: own[name] for name in ("length", "distribution", "scale", "seeds")}
        rows = [asdict(row) | {"z": row.z} for row in self.agreement]
        return setting | {name: value for name, value in own.items() if name not in NO_RESULT} | {"agreement": rows}


def chain(
    *,
    length: int = 10,
    scale: float | None = None,
    distribution: Distribution = "uniform",
    seeds: int = SEEDS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Chain:
    """Measure random width-one networks beside their exact laws (Orvieto et al., Vanishing Curvature).

    The chain is `f(w) = (w_1 ... w_L - 1)^2 / 2`: one sample, x = y = 1. All sizes are held as logs.

    Args:
        length: Number of weights.
        scale: tau of U[-tau, tau], or sigma of N(0, sigma^2). Default: what keeps the second moment, sqrt(3) or 1.
        distribution: "uniform" or "normal".
        seeds: Random chains.
        seed: Of all randomness.
        progress: Called with (done, total, what).

    Raises:
        SpecError: for a length below 1 or beyond 100,000, fewer than two seeds, a scale that is not positive, or
            another distribution.

    >>> measured = chain(length=10, scale=1.7320508, seeds=1000)
    >>> round(measured.theory_median_abs, 7), abs(measured.median_abs / 0.0153652 - 1) < 0.5
    (0.0153652, True)
    """
    for name, value, least, usual in (("length", length, 1, 10), ("seeds", seeds, 2, SEEDS)):
        if value < least:
            raise SpecError(f"--{name} must be at least {least}, not {value}.", f"--{name} {usual}")
    if length > LONGEST:
        raise SpecError(f"--length must be at most {LONGEST:,}, not {length:,}.", f"--length {LONGEST}")
    if scale is not None and not 0 < 2 * scale < math.inf:  # as wide is the interval of uniform weights
        raise SpecError(f"--scale must be positive, and its double finite; {scale:g} is not.", "--scale 1.7320508")
    refuse_many(seeds, BYTES_PER_CHAIN, None, "chains", "--seeds")
    law = Law(length, critical_scale(2, distribution) if scale is None else scale, distribution)
    lengths = _grid(length)
    report = progress or (lambda done, total, what: None)
    report(0, length, f"{seeds:,} chains of {length:,} {distribution} weights")
    entries: list[AtLength] = []
    last: Draws | None = None
    try:
        for draws in simulate(law, lengths, seeds, seed):
            entry = _at_length(law.shorter(length - lengths[len(entries)]), draws)
            entries, last = [*entries, entry], draws
            report(entries[-1].length, length, "weights")
    except KeyboardInterrupt:
        if last is None:
            raise
    assert last is not None
    try:
        return _whole(law, entries, last, length, seeds, seed)
    except KeyboardInterrupt:  # all is measured: the exact laws beside it take seconds at most
        return _whole(law, entries, last, length, seeds, seed)


def _whole(law: Law, entries: list[AtLength], draws: Draws, asked: int, seeds: int, seed: int) -> Chain:
    """All about the longest chain that was measured."""
    last, distribution = entries[-1], law.distribution
    length = last.length
    law = law.shorter(asked - length)
    return Chain(
        **asdict(last.product),
        length=length,
        distribution=distribution,
        scale=law.scale,
        seeds=seeds,
        seed=seed,
        gradient=compare(draws.gradient, gradient_size(law)),
        hessian_diagonal=compare(draws.hessian_diagonal, diagonal_size(law)),
        hessian_offdiagonal=compare(draws.hessian_offdiagonal, offdiagonal_size(law)) if length > 1 else None,
        critical_scale=CriticalScale(
            rms=critical_scale(2, distribution),
            mean_abs=critical_scale(1, distribution),
            median=critical_scale(0, distribution),
            median_at_length=critical_scale(0, distribution, length),
        ),
        stabilized_order=stabilized_order(law.scale, distribution),
        inertia=_inertia(law, draws),
        plateau=plateau(length, law.log_median),
        lengths=tuple(entries),
        asked_length=asked,
    )


def _at_length(law: Law, draws: Draws) -> AtLength:
    return AtLength(
        law.length,
        compare(draws.log_size, product_size(law)),
        sample(draws.gradient),
        sample(draws.hessian_diagonal),
        sample(draws.hessian_offdiagonal) if law.length > 1 else None,
    )


def _inertia(law: Law, draws: Draws) -> SignShares:
    """Shares of the chains by the signs of their Hessian's eigenvalues, which the output alone decides."""
    if law.length == 1:
        measured = InertiaShares(1.0, 0.0, 0.0)
    else:
        small = ~draws.negative & (draws.log_size < math.log(peak(law.length)))
        definite = ~draws.negative & ~small & (draws.log_size <= 0)
        one_negative = small if law.length > 2 else ~definite
        shares = (float(kind.mean()) for kind in (definite, one_negative, ~(definite | one_negative)))
        measured = InertiaShares(*shares)
    pairs = zip(measured, inertia_shares(law), strict=True)
    return SignShares(*(Share(share, share_stderr(share, len(draws.log_size)), theory) for share, theory in pairs))


def _grid(length: int) -> list[int]:
    """Lengths from 1 up, evenly spaced, all of them while they are few.

    >>> _grid(4), len(_grid(100)), _grid(100)[-1]
    ([1, 2, 3, 4], 24, 100)
    """
    return sorted({round(value) for value in np.linspace(1, length, min(length, GRID))})
