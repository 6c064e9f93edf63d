"""From logs of ratios to the result: statistics of each layer beside theory, their agreement, and the verdict."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hessdiag.fields import Number
from hessdiag.nets.initializers import Distribution
from hessdiag.questions.common.ensembles.agreement import FEWEST_TO_COMPARE
from hessdiag.questions.common.result import Provenance, Status, Subject
from hessdiag.questions.common.verdict import Z_ALLOWED
from hessdiag.questions.forward.asked import Asked
from hessdiag.questions.forward.norms import Floats, ratio_statistics
from hessdiag.questions.forward.own_result import OwnSignal
from hessdiag.questions.forward.result import (
    Forward,
    ForwardTheory,
    InitRatios,
    LayerAgreement,
    LayerRatio,
    RatioStatistics,
    Solution,
)
from hessdiag.questions.forward.theory import NOTHING_EXACT, ExactLayers
from hessdiag.questions.forward.verdict import findings


def init_ratios(
    init: str,
    distribution: Distribution | None,
    logs: Floats,
    solution: Solution | None,
    *,
    activation: str | None = None,
    width: int | None = None,
    names: Sequence[str] | None = None,
    exact: ExactLayers = NOTHING_EXACT,
    variations: Floats | None = None,
    in_float64: int = 0,
) -> InitRatios:
    """One initialization.

    Args:
        init: Its name.
        distribution: Of the weights.
        logs: Of the ratios, (networks, layers).
        solution: The gain that was solved for.
        activation: Of built-in networks.
        width: Likewise.
        names: Of the layers of a user's model.
        exact: What theory says of them.
        variations: Between samples, of a user's model, (networks, layers).
        in_float64: How many networks of a user's model their own dtype did not hold.
    """
    depth = logs.shape[1]
    layers = tuple(
        _layer(
            index,
            ratio_statistics(logs[:, index]),
            exact,
            None if names is None else names[index],
            None if variations is None else _middle(variations[:, index]),
        )
        for index in range(depth)
    )
    last = layers[-1]
    return InitRatios(
        init=init,
        distribution=distribution,
        activation=activation,
        depth=depth,
        width=width,
        seeds=len(logs),
        median=last.median,
        median_stderr=last.median_stderr,
        rms=last.rms,
        rms_stderr=last.rms_stderr,
        log_median_per_layer=last.log_median / depth,
        log_median_per_layer_stderr=last.log_median_stderr / depth,
        layers=layers,
        solution=solution,
        in_float64=in_float64 or None,
    )


def _middle(variations: Floats) -> float | None:
    """The median of those that are known."""
    known = variations[np.isfinite(variations)]
    return float(np.median(known)) if len(known) else None


def _layer(
    index: int, ratio: RatioStatistics, exact: ExactLayers, name: str | None, variation: float | None
) -> LayerRatio:
    log_median, log_rms, kurtosis, dead = (
        None if values is None else float(values[index])
        for values in (exact.log_medians, exact.log_rms, exact.kurtosis, exact.dead)
    )
    return LayerRatio(
        layer=index + 1,
        name=name,
        median=ratio.median,
        median_stderr=ratio.median_stderr,
        mean=ratio.mean,
        mean_stderr=ratio.mean_stderr,
        rms=ratio.rms,
        rms_stderr=ratio.rms_stderr,
        q05=ratio.q05,
        q95=ratio.q95,
        log_median=ratio.log_median,
        log_median_stderr=ratio.log_median_stderr,
        dead_fraction=ratio.dead_fraction,
        live=ratio.live,
        carriers=ratio.carriers,
        kurtosis=ratio.kurtosis,
        kurtosis_stderr=ratio.kurtosis_stderr,
        theory_median=_exp(log_median),
        theory_rms=_exp(log_rms),
        theory_log_median=log_median,
        theory_log_rms=log_rms,
        theory_kurtosis=kurtosis,
        theory_dead_fraction=dead,
        z=_standard_errors(ratio, log_median),
        variation=variation,
    )


def _standard_errors(ratio: RatioStatistics, exact: float | None) -> float | None:
    """Between the measured log-median and the exact one."""
    if exact is None or ratio.live < FEWEST_TO_COMPARE or not ratio.log_median_stderr > 0:
        return None
    return (ratio.log_median - exact) / ratio.log_median_stderr


def _exp(log: float | None) -> float | None:
    if log is None:
        return None
    with np.errstate(over="ignore"):
        return float(np.exp(log))


def assembled(
    asked: Asked,
    entries: Sequence[InitRatios],
    *,
    problem: Subject,
    interrupted: bool,
    resumed_pieces: int,
    theory: ForwardTheory | None = None,
    own: OwnSignal | None = None,
) -> Forward:
    """The result with its verdict.

    Args:
        asked: What was to be measured.
        entries: What was, of each initialization.
        problem: Of which networks.
        interrupted: Whether an interrupt left out networks, initializations or gains.
        resumed_pieces: How many finished pieces of an earlier run were taken up.
        theory: What closed forms predict.
        own: The model as it is.
    """
    checks: dict[str, Number] = {
        f"{entry.init}_median_z": worst.z for entry in entries if (worst := entry.worst) is not None
    }
    solutions = [entry.solution for entry in entries if entry.solution is not None]
    status: Status = "ok" if all(found.tried or found.method == "exact" for found in solutions) else "inexact"
    return _judged(
        Forward(
            status="interrupted" if interrupted else status,
            problem=problem,
            theory=theory,
            checks=checks,
            thresholds=dict.fromkeys(checks, Z_ALLOWED),
            provenance=Provenance(resumed_pieces=resumed_pieces),
            own=own,
            inits=tuple(entries),
            agreement=tuple(row for entry in entries for row in _agreement(entry)),
            asked_seeds=asked.seeds if interrupted else None,
            asked_inits=asked.inits if interrupted else None,
        )
    )


def _agreement(entry: InitRatios) -> list[LayerAgreement]:
    return [
        LayerAgreement(
            init=entry.init,
            layer=layer.layer,
            measured_log_median=layer.log_median,
            stderr=layer.log_median_stderr,
            theory_log_median=layer.theory_log_median,
            z=layer.z,
        )
        for layer in entry.compared
        if layer.z is not None and layer.theory_log_median is not None
    ]


def unmeasured(problem: Subject) -> Forward:
    """The result of a run that was interrupted before two networks were done."""
    return _judged(Forward(inits=(), agreement=(), status="interrupted", problem=problem))


def _judged(measured: Forward) -> Forward:
    return replace(measured, findings=tuple(findings(measured)))
