"""What a width-one network's typical sizes mean: which average the scale keeps, and which scale keeps a typical chain."""

import math

from hessdiag.numbers import counted, number, of_log, percent, times_of_log
from hessdiag.questions.chain.result import Chain, ChainPlateau
from hessdiag.questions.common.adaptive_verdict import smaller_epsilon, stuck
from hessdiag.questions.common.result import Finding, Level
from hessdiag.questions.common.verdict import agreement_findings, most_severe_first

GONE = math.log(1e-2)  # a typical entry of the gradient below this has vanished
SUBTLE = math.log(0.5)
HARMLESS = math.log(0.1)  # a factor that a learning rate makes up for
FLOAT32_FLOOR = math.log(1.2e-38)
KEPT = 1e-3  # relative distance of a scale from a critical one that counts as critical
ATYPICAL = 0.25  # a mean that fewer chains reach is not typical
HOLLOW = math.log(10)  # ratio of off-diagonal to diagonal entries


@most_severe_first
def findings(measured: Chain) -> list[Finding]:
    """The verdict, the most important sentence first."""
    found = [_typical(measured)]
    found += _mean(measured)
    found += _hollow(measured)
    found += _inertia(measured)
    found += _plateau(measured.plateau)
    found += _underflow(measured)
    found += agreement_findings(
        measured.agreement,
        lambda row: f"{row.quantity.replace('_', ' ')}: {row.statistic}",
        measured="Simulation",
        quantity="",
    )
    return found + _stopped(measured)


def _stopped(measured: Chain) -> list[Finding]:
    """What an interrupt left."""
    if measured.asked_length is None:
        return []
    return [
        Finding(
            "note",
            f"Interrupted at {measured.length:,} of {counted(measured.asked_length, 'weight')}: all numbers are of chains of that length, nothing is said of longer ones.",
            "chains grow weight by weight, all of them together",
            "the same command with more time, or fewer --seeds",
        )
    ]


def _name(measured: Chain) -> str:
    return "tau" if measured.distribution == "uniform" else "sigma"


def _typical(measured: Chain) -> Finding:
    """Whether a typical gradient survives: its size is that of the others' product, wherever it is small."""
    log_product, log_gradient = measured.theory_log_median, measured.gradient.theory_log_median
    because = (
        f"{_kept(measured)}; exact medians at length {measured.length:,}: |v| {of_log(log_product)}, an entry of the "
        f"gradient {of_log(log_gradient)}"
    )
    if measured.length == 1:
        return Finding("ok", "One weight: nothing can vanish.", because, "--length 10")
    if log_gradient < SUBTLE:
        level = _level(log_gradient)
        word = "vanishes" if level == "bad" else "shrinks"
        says = f"A typical chain {word}: half of all gradients are smaller than {of_log(log_gradient)}."
        return Finding(level, says, because, _cure(measured))
    if log_gradient > -SUBTLE:
        level = _level(-log_gradient)
        word = "explodes" if level == "bad" else "grows"
        says = f"A typical chain {word}: half of all gradients are larger than {of_log(log_gradient)}."
        return Finding(level, says, because, _cure(measured))
    says = f"A typical chain keeps its size: the median gradient entry is {of_log(log_gradient)}."
    return Finding("ok", says, because, "judge the averages apart: the other findings are about them")


def _level(log_gradient: float) -> Level:
    if log_gradient < GONE:
        return "bad"
    return "warn" if log_gradient < HARMLESS else "note"


def _kept(measured: Chain) -> str:
    """Which moment the scale keeps."""
    critical, scale = measured.critical_scale, f"{_name(measured)} = {number(measured.scale, 6)}"
    for value, what in (
        (critical.rms, "the second moment, E v^2 = 1"),
        (critical.mean_abs, "the mean, E|v| = 1"),
        (critical.median_at_length, "the median of |v| at this length"),
        (critical.median, "the median of |v| in long chains"),
    ):
        if abs(measured.scale / value - 1) < KEPT:
            return f"{scale} keeps {what}"
    if measured.stabilized_order is None:
        fate = "every moment explodes" if measured.scale > critical.median else "every moment vanishes"
        return f"at {scale} {fate}"
    return f"{scale} keeps the moment of order {number(measured.stabilized_order)}"


def _cure(measured: Chain) -> str:
    critical = measured.critical_scale
    return (
        f"--scale {critical.median_at_length:.5g} keeps the median at this length, {critical.median:.5g} that of long "
        f"chains; averages then explode, since no two are kept at once (second moment {number(critical.rms, 5)}, mean "
        f"{number(critical.mean_abs, 5)}). Width mends this: hessdiag vanishing --width same"
    )


def _mean(measured: Chain) -> list[Finding]:
    above_mean, above_rms = measured.theory_probability_above_mean, measured.theory_probability_above_rms
    if above_mean > ATYPICAL:
        return []
    return [
        Finding(
            "note",
            f"The average is not what a chain shows: {_share(above_mean)} of the chains reach E|v|, and {_share(above_rms)} the root mean square.",
            f"exact: median {number(measured.theory_median_abs)}, mean {number(measured.theory_mean_abs)}, root mean square {number(measured.theory_rms)}; of {counted(measured.seeds, 'chain')}, {percent(measured.probability_above_mean)} and {percent(measured.probability_above_rms)}",
            "judge by the median; to keep E v^2 from vanishing says nothing about one network",
        )
    ]


def _hollow(measured: Chain) -> list[Finding]:
    if measured.hessian_offdiagonal is None:
        return []
    diagonal, off = measured.hessian_diagonal.theory_log_median, measured.hessian_offdiagonal.theory_log_median
    if off - diagonal < HOLLOW:
        return []
    return [
        Finding(
            "note",
            f"The Hessian is hollow: a typical entry off the diagonal is {times_of_log(off - diagonal)} the one on it.",
            f"exact medians: diagonal {of_log(diagonal)} (it vanishes at twice the rate), off-diagonal {of_log(off)}",
            "do not scale steps by the Hessian's diagonal; it is next to nothing here",
        )
    ]


def _inertia(measured: Chain) -> list[Finding]:
    if measured.length == 1:
        return []
    shares = measured.inertia
    definite = _share(shares.definite.theory)
    kinds = f"exactly one negative eigenvalue {percent(shares.one_negative.theory)}"
    if measured.length > 2:
        kinds += f", exactly one positive {percent(shares.one_positive.theory)}"
    return [
        Finding(
            "note",
            f"{_all_but(shares.definite.theory)} have eigenvalues of both signs.",
            f"exact: positive definite {definite}, {kinds}; measured: positive definite {percent(shares.definite.measured)} (± {percent(shares.definite.stderr)})",
            f"an optimizer that leaves saddles: perturbed, one that follows negative curvature, or {_adaptive(measured)}",
        )
    ]


def _adaptive(measured: Chain) -> str:
    """Which adaptive optimizer a typical entry of the gradient lets move."""
    gradient = math.exp(min(measured.gradient.theory_log_median, 0.0))
    return (
        f"an adaptive one with {smaller_epsilon(gradient)}" if gradient > 0 and stuck(gradient) else "an adaptive one"
    )


def _plateau(plateau: ChainPlateau | None) -> list[Finding]:
    if plateau is None:
        return []
    steps = "more than can be counted" if plateau.rmsprop_steps is None else f"{plateau.rmsprop_steps:,}"
    found = [
        Finding(
            "note",
            f"From equal weights of typical size, gradient descent needs about {_count(plateau.gradient_descent_steps)} steps to the steepest point, RMSprop {steps}.",
            f"learning rate {plateau.learning_rate:g}, from {number(plateau.start, 4)} on; gradient flow takes {number(plateau.theory_time, 4)}, at least {number(plateau.theory_time_bound, 4)}, exponential in the length; RMSprop at most {plateau.theory_rmsprop_steps:,} steps, and below {1 / plateau.learning_rate:,.0f} at any length",
            "an optimizer that divides by the gradient's own size"
            + (", with an epsilon far below it" if plateau.rmsprop_default_steps is None else ""),
        )
    ]
    if plateau.rmsprop_default_steps is None:
        found.append(
            Finding(
                "warn",
                "RMSprop with its default epsilon does not leave this plateau.",
                f"the gradient starts at {number(plateau.gradient, 2)}, far below epsilon = 1e-8, which then sets the step; stuck after 20,000 steps",
                f"{smaller_epsilon(plateau.gradient)} in the optimizer, or a larger scale",
            )
        )
    return found


def _underflow(measured: Chain) -> list[Finding]:
    log_gradient = measured.gradient.theory_log_median
    if log_gradient > FLOAT32_FLOOR:
        return []
    return [
        Finding(
            "bad",
            "In float32 these gradients are zero: no optimizer would move at all.",
            f"a typical entry is {of_log(log_gradient)}, float32 ends at 1.2e-38 (logs are measured here)",
            "mend the scale before anything else",
        )
    ]


def _share(value: float) -> str:
    return percent(value) if value >= 1e-7 else "practically none"


def _all_but(share: float) -> str:
    return f"All Hessians but {percent(share)}" if share >= 1e-7 else "Practically all Hessians"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"{number(value)}"
