"""What a decay of norms with depth means: its cause, and what width, gain or optimizer would mend it."""

import math
from dataclasses import replace

from hessdiag.numbers import counted, factor, factor_of_log, number, percent, times
from hessdiag.questions.common.ensembles.prediction import Theory
from hessdiag.questions.common.result import Finding, Level
from hessdiag.questions.common.verdict import (
    agreement_findings,
    checks_findings,
    interrupted_early,
    most_severe_first,
)
from hessdiag.questions.vanishing import cure_verdict as cures
from hessdiag.questions.vanishing.result import DepthNorms, Vanishing
from hessdiag.statistics.intervals import Z

GONE = 1e-2  # relative to the shallowest network, a typical gradient below this has vanished
SUBTLE = 0.5
HARMLESS = 10.0  # networks whose gradient shrinks by no more train with any optimizer
FLOAT32_FLOOR = 1.2e-38
HELD_BY_SOMETHING_ELSE = "the size of the gradient holds no optimizer back; hessdiag check MODEL looks at what else may"
OVERSTATED = 1.5  # path count over effective width that is worth a word


def judged(measured: Vanishing) -> Vanishing:
    """A result with its verdict, and with its status where a self-check or a depth failed."""
    if measured.status == "ok" and (measured.check_failed or measured.failed):
        measured = replace(measured, status="inexact")
    return replace(measured, findings=tuple(findings(measured)))


@most_severe_first
def findings(measured: Vanishing) -> list[Finding]:
    """The verdict, the most important sentence first."""
    if not measured.depths:
        return [interrupted_early()]
    first, last = measured.depths[0], measured.depths[-1]
    found = [*_stopped(measured), *_failed(measured), *_checks(measured)]
    if measured.point is not None and measured.check_failed:
        return found
    if not last.gradient_norm.networks:
        return [*found, *_dead(last)]
    found += [*_identical(measured, last), *_uneven(measured), *_dead(last), *_underflow(last)]
    start = _start(measured)
    found.append(_gradient(measured, start, last, sound=all(finding.level != "bad" for finding in found)))
    if first is not last:
        found += _hessian(start, last)
    found += _indefinite(last)
    found += _effective_width(last)
    found += _typical_against_mean(last)
    found += agreement_findings(measured.agreement, lambda row: f"{row.quantity}, depth {row.depth}")
    return found


def _stopped(measured: Vanishing) -> list[Finding]:
    """What an interrupt left out."""
    if not measured.interrupted:
        return []
    known = {entry.depth for entry in measured.depths} | {entry.depth for entry in measured.failed}
    missing = [f"{depth:,}" for depth in measured.asked or () if depth not in known]
    fewer = [entry for entry in measured.depths if entry.seeds < measured.seeds]
    parts = [f"depth {entry.depth:,} from {entry.seeds:,} of {measured.seeds:,} networks" for entry in fewer]
    parts += [f"nothing of depth {' and '.join(missing)}"] if missing else []
    return [
        Finding(
            "note",
            f"Interrupted: {'; '.join(parts)}.",
            "what is shown of the other depths is complete",
            "the same command with more time; --resume DIR keeps what is finished",
        )
    ]


def _failed(measured: Vanishing) -> list[Finding]:
    if not measured.failed:
        return []
    first = measured.failed[0]
    depths = ", ".join(str(entry.depth) for entry in measured.failed)
    return [
        Finding(
            "bad",
            f"Not every depth could be measured: {depths} {'is' if len(measured.failed) == 1 else 'are'} missing.",
            f"at depth {first.depth:,}, {first.says.rstrip('.')}; what is shown is complete",
            first.hint or "--init he_uniform, or smaller depths",
        )
    ]


def _checks(measured: Vanishing) -> list[Finding]:
    if "hessian_norm_z" not in measured.checks:
        return checks_findings(measured.checks, next(iter(measured.thresholds.values()), None), measured.point)
    if not measured.check_failed:
        return []
    z = measured.checks["hessian_norm_z"]
    says = "The exact Hessian norms disagree with random products: they cannot be trusted."
    return [Finding("bad", says, f"{z:.1f} standard errors apart", "report this with the command line above")]


def _start(measured: Vanishing) -> DepthNorms:
    """Where sentences about the change with depth start: where rates do, or earlier if most was lost before."""
    live = [entry for entry in measured.depths if entry.gradient_norm.networks]
    start = measured.ends[0] if measured.ends is not None else live[0]
    peak = max(live, key=lambda entry: entry.gradient_norm.median)
    return peak if peak.depth < start.depth and _falls(peak, start) > 1 / SUBTLE else start


def _falls(start: DepthNorms, last: DepthNorms) -> float:
    return start.gradient_norm.median / last.gradient_norm.median if last.gradient_norm.median else math.inf


def _gradient(measured: Vanishing, start: DepthNorms, last: DepthNorms, *, sound: bool) -> Finding:
    """What becomes of the norm of the whole gradient.

    With as much gradient in every parameter it grows as the root of their number, which is no explosion.
    """
    theory, between = measured.theory, f"at depth {last.depth:,} than at depth {start.depth:,}"
    falls, more = _falls(start, last), math.sqrt(last.parameters / start.parameters)
    if start is last:
        says = "One depth was measured: how norms change with it is not told."
        return Finding("note", says, _median(last), "a larger --depth")
    because = (
        f"{_median(start)}, {number(last.gradient_norm.median)} at depth {last.depth:,}{_rate(measured, start, last)}"
    )
    if not last.gradient_norm.median:
        says = (
            f"Gradients vanish: a typical network's squared norm is below the range of float64 at depth {last.depth:,}."
        )
        return Finding("bad", says, because, _cure(measured, last, theory, explodes=False))
    if not math.isfinite(last.gradient_norm.median):
        says = f"Gradients explode: a typical network's squared norm is beyond the range of float64 at depth {last.depth:,}."
        return Finding("bad", says, because, _cure(measured, last, theory, explodes=True))
    if measured.unevenly_reached:
        says = f"The norm of the whole gradient hides what single layers get: it is {times(max(falls, 1 / falls))} {'smaller' if falls > 1 else 'larger'} {between}."
        return Finding("note", says, because, "judge by the gradients of the layers, not by the whole")
    if falls > 1 / SUBTLE:
        gone = falls * more > 1 / GONE  # of one parameter, whose share of the whole falls with their number
        says = f"Gradients {'vanish' if gone else 'shrink'} with depth: a typical network's norm is {times(falls)} smaller {between}."
        if not gone and falls <= HARMLESS:
            return Finding(
                "note",
                says,
                because,
                f"plain gradient descent may take a learning rate {times(falls)} larger at this depth",
            )
        return Finding("bad" if gone else "warn", says, because, _cure(measured, last, theory, explodes=False))
    rises = 1 / falls if falls else math.inf
    if not rises <= more / GONE:
        says = f"Gradients explode with depth: a typical network's norm is {times(rises)} larger {between}."
        return Finding("bad", says, because, _cure(measured, last, theory, explodes=True))
    if rises > more / SUBTLE:
        says = f"Gradients grow with depth: a typical network's norm is {times(rises)} larger {between}."
        return Finding("note", says, because, "gradient clipping or a slightly smaller gain, if training diverges")
    says = f"Gradients hold: a typical network's norm is {times(rises)} as large at depth {last.depth:,} as at depth {start.depth:,}."
    if rises > 1:
        because += f"; {times(more**2)} as many parameters, with as much in each, would alone give {times(more)}"
    if not sound:
        return Finding("note", says, because, "mend the other findings first: a norm that holds is not enough")
    return Finding("ok", says, because, HELD_BY_SOMETHING_ELSE)


def _median(entry: DepthNorms) -> str:
    return f"median gradient norm {number(entry.gradient_norm.median)} at depth {entry.depth:,}"


def _rate(measured: Vanishing, start: DepthNorms, last: DepthNorms) -> str:
    """The factor per layer between the same two depths, where that is the measured rate."""
    rate = measured.rates.get("gradient")
    if rate is None or (rate.from_depth, rate.to_depth) != (start.depth, last.depth):
        return ""
    limit = ""
    if rate.theory_per_layer is not None:
        limit = f"; {factor(math.exp(rate.theory_per_layer), 4)} in theory at large depth"
    return f": {factor_of_log(rate.per_layer, rate.per_layer_stderr)} for each further layer{limit}"


def _cure(measured: Vanishing, last: DepthNorms, theory: Theory | None, *, explodes: bool) -> str:
    if explodes:
        return cures.against_explosion(measured, last, theory)
    return cures.against_decay(measured, last, theory, _typical_entry(measured, last))


def _typical_entry(measured: Vanishing, last: DepthNorms) -> float:
    """Root mean square over the entries of the gradient, in the first layer where layers differ."""
    if measured.reached is not None:
        return min(measured.reached.first.typical_entry, measured.reached.last.typical_entry)
    return last.gradient_norm.median / math.sqrt(last.parameters)


def _hessian(start: DepthNorms, last: DepthNorms) -> list[Finding]:
    """What becomes of the Hessian's norm between the depths that the gradient's sentence is about.

    With as much curvature in every entry it grows as the number of parameters.
    """
    before, after = start.hessian_norm, last.hessian_norm
    if not (0 < after.median < math.inf and 0 < before.median < math.inf):
        return []
    change, error = (
        math.log(after.median / before.median),
        math.hypot(before.log_median_stderr, after.log_median_stderr),
    )
    because = f"median Frobenius norm {number(before.median)} at depth {start.depth:,}, {number(after.median)} at depth {last.depth:,}"
    between = f"at depth {last.depth:,} than at depth {start.depth:,}"
    if change < math.log(SUBTLE) and not abs(change) <= Z * error:
        return [
            Finding(
                "note",
                f"Curvature {'vanishes' if change < math.log(GONE) else 'shrinks'} too: a typical Hessian is {times(math.exp(-change))} smaller {between}.",
                f"{because}: Newton steps are no better conditioned than gradient steps",
                "mend the gradient's decay first; curvature follows",
            )
        ]
    if change > math.log(last.parameters / start.parameters / GONE):
        return [
            Finding(
                "bad",
                f"Curvature explodes with depth: a typical Hessian is {times(math.exp(change))} larger {between}.",
                f"{because}; a stable learning rate is below 2 / largest eigenvalue",
                "a smaller gain, or normalization",
            )
        ]
    return []


def _indefinite(last: DepthNorms) -> list[Finding]:
    if not last.certified_indefinite:
        return []
    diagonal, off = last.hessian_diagonal_blocks_norm.median, last.hessian_offdiagonal_blocks_norm.median
    count = round(last.certified_indefinite * last.hessian_seeds)
    return [
        Finding(
            "note",
            f"{count:,} of {counted(last.hessian_seeds, 'Hessian')} {'is' if count == 1 else 'are'} certainly indefinite: diagonal blocks are too small for what couples the layers.",
            f"diagonal blocks {number(diagonal)}, off-diagonal {number(off)} at depth {last.depth:,} (medians); a semidefinite matrix has |H_lm|^2 <= |H_ll| |H_mm|",
            "negative curvature is the way out of a plateau; preconditioners that look at each layer by itself do not see it",
        )
    ]


def _identical(measured: Vanishing, last: DepthNorms) -> list[Finding]:
    if not measured.same_weights:
        return []
    return [
        Finding(
            "warn",
            "All networks have the same weights: this is one network, not what is typical.",
            f"{counted(last.seeds, 'network')} at depth {last.depth:,}; what builds them does not draw from torch's global generator",
            "--init NAME, or a function without a seed of its own",
        )
    ]


def _uneven(measured: Vanishing) -> list[Finding]:
    """Where layers differ, as biases make them do, the norm of the whole gradient speaks of the largest alone."""
    if not measured.unevenly_reached or measured.reached is None:
        return []
    (first, last), deepest = measured.reached, measured.depths[-1]
    low, high = first.typical_entry, last.typical_entry
    where = f"layers {first.layer} and {last.layer} of {len(measured.layers)}, root mean squares over their parameters in a median network of depth {deepest.depth:,}"
    because = f"{number(low)} against {number(high)} in {where}"
    if low > high:
        says = f"Gradients explode on the way back: a typical parameter of {first.name}, the first layer, gets a gradient {times(low / high)} larger than one of {last.name}, the last."
        return [Finding("bad", says, because, _cure(measured, deepest, measured.theory, explodes=True))]
    fate = f"a gradient {times(high / low)} smaller than" if low else "none at all, against"
    says = f"The gradient does not reach the first layers: a typical parameter of {first.name}, the first, gets {fate} one of {last.name}, the last."
    return [Finding("bad", says, because, _cure(measured, deepest, measured.theory, explodes=False))]


def _effective_width(last: DepthNorms) -> list[Finding]:
    if last.effective_width is None or last.path_width is None or last.path_width < OVERSTATED * last.effective_width:
        return []
    error = f" ± {number(last.effective_width_stderr, 2)}" if last.effective_width_stderr else ""
    return [
        Finding(
            "note",
            f"The layers average like fully connected ones of {number(last.effective_width)} units, not of {number(last.path_width, 4)}.",
            f"effective width {number(last.effective_width)}{error} by the stable rank of their inputs, {number(last.path_width, 4)} by counting paths (k^2 c), harmonic means over the layers at depth {last.depth:,}",
            "judge depth by the former: weights that are shared over an image are fewer independent terms than its paths",
        )
    ]


def _typical_against_mean(last: DepthNorms) -> list[Finding]:
    norm = last.gradient_norm
    if not norm.median > 0 or not 2 * norm.median <= norm.mean < math.inf:
        return []
    known = norm.q05 is not None
    tails = f", 90 % of networks between {number(norm.q05)} and {number(norm.q95)}" if known else ""
    return [
        Finding(
            "note",
            f"Averages mislead here: a typical network's gradient is {times(norm.mean / norm.median)} smaller than the average says.",
            f"at depth {last.depth:,} median {number(norm.median)}, mean {number(norm.mean)}{tails}",
            "judge an initialization by its median; try several seeds",
        )
    ]


def _dead(last: DepthNorms) -> list[Finding]:
    if not last.dead_fraction:
        return []
    level: Level = "bad" if last.dead_fraction > 0.05 else "warn"
    return [
        Finding(
            level,
            f"{percent(last.dead_fraction)} of networks are born dead: their gradient is exactly zero.",
            f"{round(last.dead_fraction * last.seeds)} of {last.seeds} at depth {last.depth:,}; no optimizer can move them",
            "leaky ReLU, a wider narrowest layer, or another seed",
        )
    ]


def _underflow(last: DepthNorms) -> list[Finding]:
    per_weight = last.gradient_norm.median / math.sqrt(last.parameters)
    if not 0 < per_weight < FLOAT32_FLOOR:
        return []
    return [
        Finding(
            "bad",
            "In float32 these gradients are zero: no optimizer would move at all.",
            f"a typical entry is {number(per_weight)}, the median norm over the root of {counted(last.parameters, 'parameter')}; float32 ends at {number(FLOAT32_FLOOR, 2)} (this measurement is in float64)",
            "mend the scale before anything else",
        )
    ]
