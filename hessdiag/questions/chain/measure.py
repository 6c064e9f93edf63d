"""The width-one network over random weights: what a typical one shows, beside the exact laws."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hessdiag.errors import SpecError
from hessdiag.machine.cost import refuse_many
from hessdiag.questions.chain.plateau import plateau
from hessdiag.questions.chain.result import (
    AtLength,
    Chain,
    ChainTheory,
    CriticalScale,
    Magnitude,
    SignShares,
    StatisticAgreement,
)
from hessdiag.questions.chain.sample import Draws, compare, sample, sign_shares, simulate
from hessdiag.questions.chain.verdict import findings
from hessdiag.questions.common.ensembles.agreement import farthest
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Subject
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.verdict import Z_ALLOWED
from hessdiag.theory.chain import (
    critical_scale,
    diagonal_size,
    gradient_size,
    offdiagonal_size,
    product_size,
    stabilized_order,
)
from hessdiag.theory.product_law import Distribution, Law

SEEDS = 10_000
BYTES_PER_CHAIN = 160  # logs of sizes and of the last weights, sorted and exponentiated
LONGEST = 100_000  # weights; the exact laws take some seconds there
GRID = 24  # lengths up to the longest
FEWEST_EVENTS = 10  # expected on either side, for a measured share to be compared in standard errors


@recorded
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
    _refuse(length, scale, seeds)
    law = Law(length, critical_scale(2, distribution) if scale is None else scale, distribution)
    entries: list[AtLength] = []
    last: Draws | None = None
    try:
        for draws, entry in _measured(law, seeds, seed, progress):
            entries, last = [*entries, entry], draws
    except KeyboardInterrupt:
        if last is None:
            raise
    assert last is not None
    try:
        return _assembled(law, entries, last, length, seeds, seed)
    except KeyboardInterrupt:  # all is measured: the exact laws beside it take seconds at most
        return _assembled(law, entries, last, length, seeds, seed)


def _refuse(length: int, scale: float | None, seeds: int) -> None:
    for name, value, least, usual in (("length", length, 1, 10), ("seeds", seeds, 2, SEEDS)):
        if value < least:
            raise SpecError(f"--{name} must be at least {least}, not {value}.", f"--{name} {usual}")
    if length > LONGEST:
        raise SpecError(f"--length must be at most {LONGEST:,}, not {length:,}.", f"--length {LONGEST}")
    if scale is not None and not 0 < 2 * scale < math.inf:  # as wide is the interval of uniform weights
        raise SpecError(f"--scale must be positive, and its double finite; {scale:g} is not.", "--scale 1.7320508")
    refuse_many(seeds, BYTES_PER_CHAIN, None, "chains", "--seeds")


def _measured(law: Law, seeds: int, seed: int, progress: Progress | None) -> Iterator[tuple[Draws, AtLength]]:
    """The same chains at growing lengths."""
    length, lengths = law.length, _grid(law.length)
    report = progress or silent
    report(0, length, f"{seeds:,} chains of {length:,} {law.distribution} weights")
    for draws, shorter in zip(simulate(law, lengths, seeds, seed), lengths, strict=True):
        yield draws, _at_length(law.shorter(length - shorter), draws)
        report(shorter, length, "weights")


def _at_length(law: Law, draws: Draws) -> AtLength:
    return AtLength(
        length=law.length,
        product=compare(draws.log_size, product_size(law)),
        gradient=sample(draws.gradient),
        hessian_diagonal=sample(draws.hessian_diagonal),
        hessian_offdiagonal=sample(draws.hessian_offdiagonal) if law.length > 1 else None,
    )


def _assembled(law: Law, entries: Sequence[AtLength], draws: Draws, asked: int, seeds: int, seed: int) -> Chain:
    """All about the longest chain that was measured."""
    product, length, distribution = entries[-1].product, entries[-1].length, law.distribution
    law = law.shorter(asked - length)
    sizes = {"product": product, **_entries(law, draws)}
    inertia = sign_shares(law, draws)
    agreement = tuple(_agreement(sizes, inertia, seeds))
    worst = farthest(agreement)
    found = Chain(
        median_abs=product.median_abs,
        median_abs_stderr=product.median_abs_stderr,
        mean_abs=product.mean_abs,
        mean_abs_stderr=product.mean_abs_stderr,
        rms=product.rms,
        rms_stderr=product.rms_stderr,
        q05=product.q05,
        q95=product.q95,
        log_median=product.log_median,
        log_median_stderr=product.log_median_stderr,
        probability_above_mean=product.probability_above_mean,
        probability_above_mean_stderr=product.probability_above_mean_stderr,
        probability_above_rms=product.probability_above_rms,
        probability_above_rms_stderr=product.probability_above_rms_stderr,
        theory_median_abs=product.theory_median_abs,
        theory_mean_abs=product.theory_mean_abs,
        theory_rms=product.theory_rms,
        theory_log_median=product.theory_log_median,
        theory_probability_above_mean=product.theory_probability_above_mean,
        theory_probability_above_rms=product.theory_probability_above_rms,
        length=length,
        distribution=distribution,
        scale=law.scale,
        seeds=seeds,
        gradient=sizes["gradient"],
        hessian_diagonal=sizes["hessian_diagonal"],
        hessian_offdiagonal=sizes.get("hessian_offdiagonal"),
        critical_scale=CriticalScale(
            rms=critical_scale(2, distribution),
            mean_abs=critical_scale(1, distribution),
            median=critical_scale(0, distribution),
            median_at_length=critical_scale(0, distribution, length),
        ),
        stabilized_order=stabilized_order(law.scale, distribution),
        inertia=inertia,
        plateau=plateau(length, law.log_median),
        lengths=tuple(entries),
        agreement=agreement,
        asked_length=None if length == asked else asked,
        status="ok" if length == asked else "interrupted",
        problem=Subject(model="builtin:chain", device="cpu", dtype="float64", seed=seed),
        theory=ChainTheory(assumes="independent weights; one sample, x = y = 1; loss (v - 1)²/2", exact=True),
        checks={"largest_z": None if worst is None else abs(worst.z)},
        thresholds={"largest_z": Z_ALLOWED},
    )
    return replace(found, findings=tuple(findings(found)))


def _entries(law: Law, draws: Draws) -> dict[str, Magnitude]:
    """Entries of the gradient and the Hessian that have an exact law, by name."""
    found = {
        "gradient": compare(draws.gradient, gradient_size(law)),
        "hessian_diagonal": compare(draws.hessian_diagonal, diagonal_size(law)),
    }
    if law.length > 1:
        found["hessian_offdiagonal"] = compare(draws.hessian_offdiagonal, offdiagonal_size(law))
    return found


def _agreement(sizes: Mapping[str, Magnitude], inertia: SignShares, seeds: int) -> Iterator[StatisticAgreement]:
    """Log medians and shares against theory, as far as there are enough chains for a standard error."""
    for name, size in sizes.items():
        if size.log_median_stderr > 0 and seeds >= 4 * FEWEST_EVENTS:
            yield _compared(name, "log median", size.log_median, size.theory_log_median, size.log_median_stderr)
        yield from _share(name, "above mean", size.probability_above_mean, size.theory_probability_above_mean, seeds)
        yield from _share(name, "above rms", size.probability_above_rms, size.theory_probability_above_rms, seeds)
    for kind, share in (
        ("definite", inertia.definite),
        ("one negative", inertia.one_negative),
        ("one positive", inertia.one_positive),
    ):
        yield from _share("inertia", kind, share.measured, share.theory, seeds)


def _share(quantity: str, statistic: str, measured: float, theory: float, seeds: int) -> Iterator[StatisticAgreement]:
    if seeds * min(theory, 1 - theory) >= FEWEST_EVENTS:
        yield _compared(quantity, statistic, measured, theory, math.sqrt(theory * (1 - theory) / seeds))


def _compared(quantity: str, statistic: str, measured: float, theory: float, stderr: float) -> StatisticAgreement:
    return StatisticAgreement(
        quantity=quantity,
        statistic=statistic,
        measured=measured,
        stderr=stderr,
        theory=theory,
        z=(measured - theory) / stderr,
    )


def _grid(length: int) -> list[int]:
    """Lengths from 1 up, evenly spaced, all of them while they are few.

    >>> _grid(4), len(_grid(100)), _grid(100)[-1]
    ([1, 2, 3, 4], 24, 100)
    """
    return sorted({round(value) for value in np.linspace(1, length, min(length, GRID))})
