"""What `check` says: the first cause, the others, whether the cure helped; or what speaks for a healthy network."""

from collections.abc import Sequence

from hessdiag.numbers import counted, number
from hessdiag.questions.check.result import BROKEN, Cause, Check, Symptom, Trial
from hessdiag.questions.common.result import Finding, Level
from hessdiag.questions.common.verdict import data_findings

TELLS = {True: "", False: ", which were large enough to tell", None: ", which does not tell much"}
EXPLAINED = 4  # symptoms that are named


def findings(check: Check) -> list[Finding]:
    """The verdict: causes in their order, which is that of importance."""
    found = [_of_cause(cause) for cause in check.causes] or [_healthy(check)]
    if check.trial is not None:
        found.insert(1, _of_trial(check.trial, check.causes[1:]))
    elif check.interrupted:
        found.insert(
            1, Finding("note", "Interrupted before the cure was tried.", "", "the same command with more time")
        )
    return [*found, *data_findings(check.problem)]


def _of_cause(cause: Cause) -> Finding:
    level: Level = "bad" if cause.confidence >= BROKEN else "warn"
    because = f"{cause.quantity}: {number(cause.value)}"
    if cause.threshold is not None:
        because += f", where {number(cause.threshold)} is the threshold"
    if cause.symptoms:
        because += f"; it explains {', '.join(_named(one) for one in cause.symptoms[:EXPLAINED])}"
    return Finding(level, cause.says, because, cause.remedy)


def _named(symptom: Symptom) -> str:
    if symptom.layer is None:
        return symptom.id
    more = f" and {symptom.more:,} more" if symptom.more else ""
    return f"{symptom.id} (layer {symptom.layer}{more})"


def _of_trial(trial: Trial, others: Sequence[Cause]) -> Finding:
    does = trial.says[:1].lower() + trial.says[1:]
    if trial.helped:
        return Finding(
            "ok", f"The cure was tried, and it helped. It {does}", trial.because, 'the change under "In your code"'
        )
    other = f"the next cause, {others[0].id}" if others else "your own --optimizer and --lr, and more --batches"
    return Finding("note", f"The cure was tried, and it did not help. It {does}", trial.because, other)


def _healthy(check: Check) -> Finding:
    step, output = check.step, check.output
    if check.trained and output is not None:
        known = f"its loss is {number(output.loss)}, where the best constant answer has {number(output.chance)}"
        return Finding("ok", "Nothing was found that would keep this network from training: it is trained.", known, "")
    if step is not None and step.losses:
        ran = f"from {number(step.losses[0])} to {number(step.losses[-1])}"
        steps = f"{counted(len(step.losses) - 1, 'step')} of {step.optimizer}"
        known = f"its loss went {ran} in {steps}{TELLS[check.trains]}"
    else:
        known = "signal, gradient, units, scales, modes, loss and first step are as training needs them"
    remedy = (
        "if it still does not train: --optimizer and --lr as you use them, --batches for more data"
        if step is None or not step.given
        else "if it still does not train: --batches for more data; hessdiag eigs for its sharpness"
    )
    if check.trains is False:
        return Finding("note", "Its loss does not fall, and no cause was found.", known, remedy)
    return Finding("ok", "Nothing was found that would keep this network from training.", known, remedy)
