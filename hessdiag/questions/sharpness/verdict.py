"""What the readings mean for the optimizer, and what a person can do about it."""

from hessdiag.numbers import counted, number, percent, times, with_error
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import (
    checks_findings,
    data_findings,
    in_this_mode,
    interrupted_after,
    most_severe_first,
    other_mode_findings,
    piece_findings,
    running_statistics,
)
from hessdiag.questions.sharpness.result import OptimizerSeen, Reading, Sharpness
from hessdiag.theory.stability import ADAPTIVE

ALIKE = 0.1  # relative difference of two ratios, beyond their errors, within which they say the same
AS_SHARP = 0.5  # curvature along the step over the largest, below which it goes elsewhere
HARDLY = 0.3  # |cos| of the step and the top eigenvector, below which it hardly goes along it
UNKNOWN = "no threshold for"  # how a note on an optimizer begins that has none
DOUBTED = "the state's v"  # in a note on a state that does not look like the gradients here
NAMES = {
    "lambda_max": "lambda_max",
    "preconditioned": "lambda_max in its metric",
    "dual": "in the norm of its steps",
    "directional": "along its next step",
    "critical": "critical, by losses",
    "adaptive": "adaptive, by |w|",
}
SEES = {
    "lambda_max": "lambda_max",
    "preconditioned": "lambda_max in its own metric",
    "directional": "the curvature along its next step",
}


@most_severe_first
def findings(found: Sharpness) -> list[Finding]:
    """The verdict on an optimizer, the most important sentence first."""
    said = checks_findings(found.checks, found.check_tolerance, found.point)
    if not found.trusted or found.optimizer is None:
        return [*said, *data_findings(found.problem)]
    if found.interrupted and found.readings:
        said.append(interrupted_after([NAMES[one.kind] for one in found.readings], "the same command, with more time"))
    optimizer = found.optimizer
    said += [in_this_mode(found.problem, one) for one in _regime(found, optimizer)]
    said += other_mode_findings(found.problem)
    said += _unconverged(found)
    said += _step(found)
    said += _critical(found, optimizer)
    said += _one_step_only(found, optimizer)
    said += _minibatches(found)
    said += _noise(found)
    said += _assumed(found, optimizer)
    said += piece_findings(found.point)
    said += data_findings(found.problem)
    return said


def _regime(found: Sharpness, optimizer: OptimizerSeen) -> list[Finding]:
    """Stable, at the edge, or not."""
    deciding = found.reading(found.decided_by or "")
    if deciding is None:
        return _undecided(found, optimizer)
    because = f"{SEES[deciding.kind]} is {_valued(deciding)}, and the limit {number(deciding.threshold, 4)}: a ratio of {with_error(deciding.ratio, deciding.ratio_stderr, 3)}"
    rate = with_error(found.largest_lr, found.largest_lr_stderr, 3)
    limit = "" if found.largest_lr is None else f"the limit is a learning rate of {rate} here, everything else as it is"
    if deciding.kind == "directional":
        return [_of_step(found, optimizer, because, limit)]
    if found.regime == "stable":
        return [Finding("note", f"{optimizer.name} is stable here: {_taken(deciding)}.", because, limit)]
    if found.regime == "edge":
        says = (
            f"{optimizer.name} is at the edge of stability here: the curvature that it sees is what it can just take."
        )
        remedy = "full-batch training often settles here and goes on; for steps that always lower the loss, a smaller learning rate"
        return [Finding("note", says, because, remedy)]
    if found.regime == "unstable":
        so = ", as far as the gradients here tell" if _standing(optimizer) else ""
        says = f"{optimizer.name} is unstable here{so}: the curvature that it sees is {times(deciding.ratio or 0.0)} what it can take."
        remedy = f"a learning rate below {rate}, or a warm-up; else the loss rises until the curvature has fallen, or for good"
        return [Finding("warn", says, because, remedy)]
    says = f"Whether {optimizer.name} is stable here is open: {SEES[deciding.kind]} is known from below only."
    remedy = "--dtype float64, if it is in another, or --layers GLOB for some of the parameters"
    return [Finding("note", says, because, remedy)]


def _of_step(found: Sharpness, optimizer: OptimizerSeen, because: str, limit: str) -> Finding:
    """What can be said of an optimizer whose threshold is no eigenvalue's: what its next step does."""
    if found.regime == "stable":
        taken = f"curvature along it is {percent(max(found.ratio or 0.0, 0.0))} of what it can take"
        return Finding("note", f"The next step of {optimizer.name} lowers the loss: {taken}.", because, limit)
    if found.regime == "edge":
        says = f"The next step of {optimizer.name} leaves the loss about where it is: it is at its edge."
        return Finding("note", says, because, "a smaller learning rate, for steps that lower the loss")
    says = f"The next step of {optimizer.name} raises the loss: curvature along it is {times(found.ratio or 0.0)} what it can take."
    return Finding("warn", says, because, limit)


def _taken(deciding: Reading) -> str:
    ratio = deciding.ratio or 0.0
    if ratio <= 0:
        return "no curvature that it sees is positive"
    return f"the curvature that it sees is {percent(ratio)} of what it can take"


def _valued(reading: Reading) -> str:
    side = {"lower": "at least ", "upper": "at most "}.get(reading.bound or "", "")
    return f"{side}{with_error(reading.value, reading.stderr, 4)}"


def _undecided(found: Sharpness, optimizer: OptimizerSeen) -> list[Finding]:
    step = found.reading("directional")
    if found.interrupted or step is None:
        return []
    because = step.why or "no reading has a threshold for it"
    return [
        Finding(
            "note", f"Nothing here says whether {optimizer.name} is stable.", because, "a smaller and a larger --lr"
        )
    ]


def _unconverged(found: Sharpness) -> list[Finding]:
    missed = [
        one
        for one in found.readings
        if one.bound == "lower" and one.kind in ("lambda_max", "preconditioned", "adaptive")
    ]
    if not missed or found.interrupted:
        return []
    deciding = any(one.kind == found.decided_by for one in missed)
    names = " and ".join(one.kind for one in missed)
    return [
        Finding(
            "bad" if deciding else "note",
            f"Not converged, and so known from below only: {names}.",
            f"after {counted(missed[0].passes, 'product')}; clusters of eigenvalues at the upper end do this, and rounding of products in a steep metric",
            "--dtype float64, or --layers GLOB for some of the parameters",
        )
    ]


def _step(found: Sharpness) -> list[Finding]:
    """What the next step does to the loss."""
    step = found.reading("directional")
    if step is None or found.decided_by == "directional":
        return []
    if step.ratio is None:
        if found.slope == 0:
            none = found.gradient_norm == 0
            says = f"The next step {'is zero: there is no gradient here' if none else 'does not change the loss, to first order'}."
            because = f"|g| is {number(found.gradient_norm)}, and g'd is 0 per unit of the learning rate"
            return [Finding("note", says, because, "" if none else "a larger --lr, if rounding covers the step")]
        if found.slope is not None and found.slope < 0:
            says = "The next step goes uphill at first: what its momentum carries points against the gradient."
            return [Finding("note", says, f"g'd is {number(found.slope)} per unit of the learning rate", "")]
        return []
    because = f"d'Hd / d'd is {number(step.value)}, and at {number(step.threshold)} this step would leave the loss where it is"
    losses = found.reading("critical")
    if losses is None or losses.ratio is None:
        what = "raises" if step.ratio > 1 else "lowers"
        return [Finding("note", f"The next step {what} the loss, by the quadratic model.", because, "")]
    if losses.ratio > 1:
        says = f"The next step raises the loss: it is back at its value after {percent(1 / losses.ratio)} of it."
    elif losses.bound == "upper" or not losses.ratio > 0:  # no longer one that was tried leads back
        far = f", as far as was looked: {times(1 / losses.ratio)} its length" if losses.ratio > 0 else ""
        says = f"The next step lowers the loss, and so does a longer one{far}."
    else:
        says = f"The next step lowers the loss: it could be up to {times(1 / losses.ratio)} as long."
    if (losses.ratio > 1) != (step.ratio > 1):
        because += "; the quadratic model says otherwise, for the loss is no parabola over this step"
    return [Finding("note", says, because, "")]


def _alike(losses: Reading, deciding: Reading, *, moving: bool) -> bool:
    """Whether both say the same.

    Of an optimizer on its way, over their limits: momentum that swings along an eigenvector meets more curvature than
    its step does. Of one that has not stepped, the curvature itself.
    """
    own, other = (losses.ratio, deciding.ratio) if moving else (losses.value, deciding.value)
    error = (losses.ratio_stderr, deciding.ratio_stderr) if moving else (losses.stderr, deciding.stderr)
    if own is None or other is None:
        return False
    return abs(own - other) <= ALIKE * max(abs(own), abs(other)) + sum(one or 0.0 for one in error)


def _elsewhere(found: Sharpness) -> bool:
    """Whether the next step is off the top eigenvector, and not along others that are about as sharp."""
    along, top = found.reading("directional"), found.reading("lambda_max")
    if found.overlap is None or found.overlap >= HARDLY or along is None or top is None:
        return False
    return along.value is not None and top.value is not None and along.value < AS_SHARP * top.value


def _critical(found: Sharpness, optimizer: OptimizerSeen) -> list[Finding]:
    """Whether critical sharpness tells what the eigenvalue does."""
    losses, deciding = found.reading("critical"), found.reading(found.decided_by or "")
    if losses is None or losses.ratio is None or deciding is None or deciding.ratio is None:
        return []
    if deciding.kind == "directional" or not deciding.ratio > 0:  # where nothing curves up, no direction is sharp
        return []
    what = "lambda_max" if deciding.kind == "lambda_max" else "lambda_max in the optimizer's metric"
    because = f"{_valued(losses)} against {_valued(deciding)}; over their limits {with_error(losses.ratio, losses.ratio_stderr, 3)} and {with_error(deciding.ratio, deciding.ratio_stderr, 3)}"
    if _alike(losses, deciding, moving=optimizer.state != "gradients"):
        says = (
            f"Critical sharpness, from {counted(losses.passes, 'forward pass', 'forward passes')}, agrees with {what}"
        )
        if _elsewhere(found):
            lies = f"; |cos| of the step and the top eigenvector is {number(found.overlap, 2)}"
            return [
                Finding(
                    "note",
                    f"{says} by chance: the next step hardly goes along the sharpest direction.",
                    because + lies,
                    "the eigenvalue decides on stability; at another step the two may differ",
                )
            ]
        return [Finding("note", f"{says}: the next step goes along the sharpest directions.", because, "")]
    goes = "hardly goes" if found.overlap is None or found.overlap < HARDLY else "goes only in part"
    lies = "" if found.overlap is None else f"; |cos| of the step and the top eigenvector is {number(found.overlap, 2)}"
    return [
        Finding(
            "note",
            f"Critical sharpness is not {what} here: the next step {goes} along the sharpest direction.",
            because + lies,
            "the eigenvalue decides on stability, for small deviations grow along it whatever the step; critical sharpness says how far this one step may go",
        )
    ]


def _one_step_only(found: Sharpness, optimizer: OptimizerSeen) -> list[Finding]:
    """That an optimizer without an eigenvalue's threshold is judged by its next step alone."""
    if found.decided_by != "directional":
        return []
    why = next((note for note in optimizer.notes if note.startswith(UNKNOWN)), "no threshold is derived for it")
    widest = found.reading("dual")
    if widest is not None and widest.ratio is not None:
        why += f"; lr S / (2 |g|_*) is at least {number(widest.ratio)}, with S the largest curvature that a step of its norm can meet: below 1 no such step raises the loss"
    return [Finding("note", "That is the edge of one step, not one of an eigenvalue.", why, "")]


def _minibatches(found: Sharpness) -> list[Finding]:
    """That curvature is of all batches, and steps of training may be of one."""
    batches = found.problem.batches
    if batches < 2:
        return []
    return [
        Finding(
            "note",
            f"This is the curvature of all {counted(batches, 'batch', 'batches')} together; steps of minibatches see that of each, which is larger on average.",
            "the largest eigenvalue of a mean is at most the mean of the largest eigenvalues, and noise of gradients adds to it",
            "--batches 1 for the curvature of one, and a margin below the limit",
        )
    ]


def _noise(found: Sharpness) -> list[Finding]:
    parts = found.noise
    if parts is None:
        return []
    if parts.scale is None:
        if parts.at_least is None:
            return []
        says = f"The gradient noise scale is above {number(parts.at_least, 2)} samples; these data are too few for its value."
        return [Finding("note", says, parts.why or "", "more samples, where it matters")]
    proxy = (
        ""
        if parts.simple is None
        else f"; the proxy tr(S) / |g|^2, without the Hessian, says {with_error(parts.simple, parts.simple_stderr, 2)}"
    )
    return [
        Finding(
            "note",
            f"The gradient noise scale is {with_error(parts.scale, parts.scale_stderr, 2)} samples: batches far below it step along noise, batches far above it gain little.",
            f"tr(H S) / g'Hg, from {counted(parts.pieces, 'part')} of {counted(parts.samples, 'sample')}{proxy}",
            "",
        )
    ]


def _standing(optimizer: OptimizerSeen) -> bool:
    """Whether its averages are those of an optimizer that stands still here."""
    return optimizer.state == "gradients" and optimizer.kind in ADAPTIVE


def _assumed(found: Sharpness, optimizer: OptimizerSeen) -> list[Finding]:
    """What was assumed of the optimizer, or is special about its state."""
    notes = [note for note in optimizer.notes if found.decided_by != "directional" or not note.startswith(UNKNOWN)]
    other_mode = running_statistics(found.problem)  # then it is no wonder that gradients here are not those of training
    doubted = "the order in which the optimizer was made: --optimizer train.py:make --state FILE; or the weights that belong to the state"
    said = [
        Finding("warn", f"{optimizer.name}: {note.rstrip('.?')}.", "", doubted)
        if DOUBTED in note and not other_mode
        else Finding("note", f"{optimizer.name}: {note.rstrip('.')}.", "", "")
        for note in notes
    ]
    if _standing(optimizer):
        says = "No state of the optimizer was given: its averages are those of one that stands still here."
        because = "v is the mean of the batches' squared gradients"
        remedy = "--optimizer ckpt.pt#optimizer, for the state that training has"
        said.append(Finding("note", says, because, remedy))
    return said
