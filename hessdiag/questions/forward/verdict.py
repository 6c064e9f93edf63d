"""What the change of a signal with depth means: its cause, and which gain or width would mend it."""

import math
from collections.abc import Sequence
from dataclasses import replace

from hessdiag.numbers import counted, deviation, factor, number, of_log, percent, times_of_log
from hessdiag.questions.common.ensembles.prediction import Theory
from hessdiag.questions.common.result import Finding, Level
from hessdiag.questions.common.verdict import Z_ALLOWED, agreement_findings, interrupted_early, most_severe_first
from hessdiag.questions.forward.own_verdict import own_findings
from hessdiag.questions.forward.result import Achieved, Forward, InitRatios, LayerGain, Solution

GONE = math.log(1e2)  # a typical network's signal that changed by more is lost or exploded
SUBTLE = math.log(2)
MANY_DEAD = 0.05  # share of networks
FLOAT32_FLOOR = math.log(1.2e-38)
KEPT = {"median": "a typical network keeps its norm", "rms": "the mean square is kept"}


@most_severe_first
def findings(measured: Forward) -> list[Finding]:
    """The verdict: on a model as it is; on networks that are made up, one sentence for each initialization first."""
    if measured.own is not None:
        return [*own_findings(measured), *_experiment(measured)]
    if not measured.inits:
        return [interrupted_early()]
    theory = measured.theory.inits if measured.theory else {}
    found = [
        finding for entry in measured.inits for finding in (_signal(entry, theory.get(entry.init)), *_solution(entry))
    ]
    for entry in measured.inits:
        found += [*_typical_against_mean(entry), *_dead(entry), *_underflow(entry)]
    found += _stopped(measured)
    return found + agreement_findings(measured.agreement, lambda row: f"{row.init}, layer {row.layer}")


def _experiment(measured: Forward) -> list[Finding]:
    """What fresh weights of a model say: gains that were asked for. The rest is in the tables, and no verdict on it."""
    solved = [finding for entry in measured.inits for finding in _solution(entry)]
    named = [
        replace(finding, level="note" if finding.level == "ok" else finding.level, says=f"Experiment, {finding.says}")
        for finding in solved
    ]
    early = "no fresh network was measured; the model as it is was"
    left = _stopped(measured) if measured.inits else [replace(interrupted_early(), says=f"Interrupted: {early}.")]
    return named + (left if measured.interrupted else [])


def _stopped(measured: Forward) -> list[Finding]:
    """What an interrupt left out."""
    if measured.asked_seeds is None or measured.asked_inits is None:
        return []
    asked, done = measured.asked_seeds, {entry.init: entry.seeds for entry in measured.inits}
    fewer = [f"{init} from {count:,}" for init, count in done.items() if count < asked]
    missing = [init for init in measured.asked_inits if init not in done]
    parts = [f"{' and '.join(fewer)} of {counted(asked, 'network')}"] if fewer else []
    parts += [f"nothing of {' and '.join(missing)}"] if missing else []
    parts = parts or ["all networks were measured, but no gain was tried on fresh ones"]
    return [
        Finding(
            "note",
            f"Interrupted: {'; '.join(parts)}.",
            "every network is drawn by itself: fewer of them are a smaller sample, with larger errors",
            "the same command with more time; --resume DIR keeps what is finished",
        )
    ]


def _signal(entry: InitRatios, theory: Theory | None) -> Finding:
    last = entry.last
    if not last.live:
        return Finding("bad", f"{entry.init}: every network is dead.", f"{entry.seeds:,} of {entry.seeds:,} at layer {entry.depth:,}", "leaky ReLU, a wider layer, or --dtype float64 if a model's numbers underflow")  # fmt: skip
    log = last.log_median
    error = "" if math.isnan(last.log_median_stderr) else f" (± {percent(last.log_median_stderr, 2)})"
    because = (
        f"median of the output's norm over the input's {of_log(log)}{error}, "
        f"{factor(math.exp(log / entry.depth), 4)} per layer{_cause(entry, theory)}"
    )
    change = f"a typical network's is {times_of_log(abs(log))} {'smaller' if log < 0 else 'larger'} after {counted(entry.depth, 'layer')} than at the input"
    if log < -GONE:
        return Finding("bad", f"{entry.init}: the signal vanishes, {change}.", because, _cure(entry, theory))
    if log > GONE:
        return Finding("bad", f"{entry.init}: the signal explodes, {change}.", because, _cure(entry, theory))
    if abs(log) > SUBTLE:
        word = "shrinks" if log < 0 else "grows"
        return Finding("warn", f"{entry.init}: the signal {word}, {change}.", because, _cure(entry, theory))
    says = f"{entry.init}: the signal holds, a typical network's changes by a factor of {of_log(log)} over {counted(entry.depth, 'layer')}."
    if last.dead_fraction > MANY_DEAD:
        return Finding("note", says, f"{because}; of the networks that live", "mend the dead networks first")
    return Finding("ok", says, because, "")


def _cause(entry: InitRatios, theory: Theory | None) -> str:
    if theory is None:
        return ""
    if not theory.keeps_mean_square:
        return f"; a layer multiplies the mean square by {number(theory.mean_square_growth)}, and 1 would keep it"
    return f"; the mean square is kept, but width {entry.width} is too narrow for {counted(entry.depth, 'layer')}: the log of the norm falls by {number(-math.log(theory.typical_growth), 4)} per layer"


def _cure(entry: InitRatios, theory: Theory | None) -> str:
    exact = entry.last.theory_log_median
    gain = (entry.last.log_median if exact is None else exact) / entry.depth
    if theory is None:
        if entry.solution is not None:
            return "the gain below; else normalization, or residual connections"
        return "--solve median gives the gain that keeps it; else normalization, or residual connections"
    step = f"scale the weights by {number(math.exp(-gain), 5)}, which keeps the median"
    if theory.critical_width_per_depth > 0:
        width = math.ceil(theory.critical_width_per_depth * entry.depth)
        critical = theory.mean_square_growth**-0.5
        if theory.keeps_mean_square:
            return f"width {width:,} at this depth keeps half of a typical network's norm; or {step}"
        return (
            f"{step}; or scale them by {number(critical, 5)}, which keeps the mean square, with width {width:,} or more"
        )
    return step


def _solution(entry: InitRatios) -> list[Finding]:
    found = entry.solution
    if found is None:
        return []
    name, says, because, cure = (
        _gains_of_layers(entry, found, found.layers) if found.layers else _one_gain(entry, found)
    )
    if not found.tried:
        because += f", which rests on {found.carriers:.0f} of {counted(entry.seeds, 'network')} and cannot tell"
        if found.method != "exact":
            return [Finding("bad", f"{entry.init}: {name} is not to be trusted.", because, "--solve median, which few networks cannot distort")]  # fmt: skip
    elif found.z is not None and abs(found.z) > Z_ALLOWED:
        return [Finding("warn", f"{entry.init}: {name} misses on fresh networks.", f"{because}: {deviation(found.z)} standard errors", "more --seeds")]  # fmt: skip
    return [Finding("ok", says, because, cure)]


def _one_gain(entry: InitRatios, found: Solution) -> tuple[str, str, str, str]:
    """What the gain is called, what it does, why that is known, and how to use it."""
    error = "" if found.gain_stderr is None else f" (± {number(found.gain_stderr, 1)})"
    growth = (
        ""
        if found.mean_square_growth is None
        else f"a layer then multiplies the mean square by {number(found.mean_square_growth, 5)}; "
    )
    return (
        f"the gain {number(found.gain, 5)}",
        f"{entry.init}: with weights scaled by {number(found.gain, 5)}{error}, {KEPT[found.target]} over {counted(entry.depth, 'layer')}.",
        f"{growth}on fresh networks the {found.target} is {_said(found)}",
        f"after the initialization, multiply every weight matrix by {number(found.gain, 5)}",
    )


def _said(tried: Achieved) -> str:
    error = "" if tried.achieved_stderr is None else f" ± {number(tried.achieved_stderr, 2)}"
    return f"{number(tried.achieved)}{error}"


def _gains_of_layers(entry: InitRatios, found: Solution, layers: Sequence[LayerGain]) -> tuple[str, str, str, str]:
    """The same of a gain for each layer."""
    gains = [layer.gain for layer in layers]
    layer = found.worst or layers[-1]
    return (
        "a gain for each layer",
        f"{entry.init}: with a gain for each layer, from {number(min(gains), 5)} to {number(max(gains), 5)}, {KEPT[found.target]} after each of {counted(len(gains), 'layer')}.",
        f"on fresh networks the {found.target} is worst after layer {layer.name or layer.layer}: {_said(layer)}",
        "after the initialization, multiply each weight matrix by its gain; --save does it",
    )


def _typical_against_mean(entry: InitRatios) -> list[Finding]:
    last = entry.last
    if not last.live or not 0 < last.rms < math.inf:
        return []
    rms = math.log(last.rms) if last.theory_log_rms is None else last.theory_log_rms
    median = last.log_median if last.theory_log_median is None else last.theory_log_median
    if not rms - median > SUBTLE:
        return []
    known = last.q05 is not None
    tails = f"; 90 % of networks between {number(last.q05)} and {number(last.q95)}" if known else ""
    sources = [
        "in theory" if exact is not None else "measured" for exact in (last.theory_log_rms, last.theory_log_median)
    ]
    return [
        Finding(
            "note",
            f"{entry.init}: averages mislead, a typical network is {times_of_log(rms - median)} smaller than the average says.",
            f"at layer {entry.depth:,} root mean square {of_log(rms, 3 if last.theory_log_rms is None else 4)} ({sources[0]}), median {of_log(median, 3 if last.theory_log_median is None else 4)} ({sources[1]}){tails}",
            "judge an initialization by its median",
        )
    ]


def _dead(entry: InitRatios) -> list[Finding]:
    last = entry.last
    if not last.dead_fraction or not last.live:
        return []
    level: Level = "bad" if last.dead_fraction > MANY_DEAD else "warn"
    return [
        Finding(
            level,
            f"{entry.init}: {percent(last.dead_fraction)} of networks are born dead: their output is exactly zero.",
            f"{entry.seeds - last.live:,} of {entry.seeds:,} at layer {entry.depth:,}; medians are those of the others",
            "leaky ReLU, a wider layer, or another seed",
        )
    ]


def _underflow(entry: InitRatios) -> list[Finding]:
    if not entry.last.live or not entry.last.log_median < FLOAT32_FLOOR:
        return []
    return [
        Finding(
            "bad",
            f"{entry.init}: in float32 the output of a typical network is zero.",
            f"its norm is {of_log(entry.last.log_median)} times the input's, and float32 ends at 1.2e-38",
            "mend the scale before anything else",
        )
    ]
