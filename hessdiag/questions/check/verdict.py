"""What `check` says: the first cause, the others, whether the cure helped; or what speaks for a healthy network."""

from hessdiag.numbers import counted, number
from hessdiag.questions.check.result import BROKEN, Cause, Check, Symptom, Trial
from hessdiag.questions.common.result import Finding, Level
from hessdiag.questions.common.verdict import data_findings

EXPLAINED = 4  # symptoms that are named


def findings(check: Check) -> list[Finding]:
    """The verdict: causes in their order, which is that of importance."""
    found = [_of_cause(cause) for cause in check.causes] or [_healthy(check)]
    if check.trial is not None:
        found.insert(1, _of_trial(check.trial))
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


def _of_trial(trial: Trial) -> Finding:
    if trial.helped:
        return Finding("ok", f"Tried, and it helped: {trial.says}", trial.because, "the change under In your code")
    remedy = "the next cause; hessdiag check with more --batches, or with your own --optimizer and --lr"
    return Finding("note", f"Tried, and it did not help: {trial.says}", trial.because, remedy)


def _healthy(check: Check) -> Finding:
    step, output = check.step, check.output
    if check.trained and output is not None:
        known = f"its loss is {number(output.loss)}, where the best constant answer has {number(output.chance)}"
        return Finding("ok", "Nothing was found that would keep this network from training: it is trained.", known, "")
    if step is not None and step.losses:
        ran = f"from {number(step.losses[0])} to {number(step.losses[-1])}"
        steps = f"{counted(len(step.losses) - 1, 'step')} of {step.optimizer}"
        known = f"its loss went {ran} in {steps}{'' if check.trains else ', which does not tell much'}"
    else:
        known = "signal, gradient, units, scales, modes, loss and first step are as training needs them"
    remedy = (
        "if it still does not train: --optimizer and --lr as you use them, --batches for more data"
        if step is None or not step.given
        else "if it still does not train: --batches for more data; hessdiag eigs for its sharpness"
    )
    return Finding("ok", "Nothing was found that would keep this network from training.", known, remedy)
