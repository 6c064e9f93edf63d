"""Rules on what the loss receives: the loss at the start, the logits' scale, probabilities, what it ignores."""

import math

from hessdiag.numbers import number, times
from hessdiag.questions.check.causes.candidate import Candidate, grade
from hessdiag.questions.check.causes.path import adaptive, excess
from hessdiag.questions.check.result import Check

# Under gradient descent, and under an optimizer whose steps do not shrink with the gradient.
EXCESS = {False: (4.0, 15.0), True: (10.0, 300.0)}  # loss over that of an output that knows nothing
SPREAD = {False: (8.0, 25.0), True: (30.0, 300.0)}  # standard deviation of logits
FAR = {False: (12.0, 40.0), True: (8.0, 40.0)}  # distance of targets from the output, in units of their own spread
WIDE = {False: (6.0, 40.0), True: (50.0, 1000.0)}  # root mean square of targets
REACHES = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, math.inf)}
SQUASHED = {"softmax": "ce nll", "sigmoid": "bce ce", "log_softmax": ""}


def output(check: Check) -> list[Candidate]:
    """What is wrong with the output, as the loss takes it."""
    return [
        *ignored(check),
        *broadcast(check),
        *probabilities(check),
        *out_of_range(check),
        *loss_at_start(check),
        *logit_scale(check),
    ]


def ignored(check: Check) -> list[Candidate]:
    """A loss that does not change with the output, or that no graph leads through."""
    found = check.output
    if found is None:
        return []
    if not found.depends_on_output:
        says = f"The loss does not depend on the model's output: it stays {number(found.loss)} whatever the output is."
        remedy = "Look at what the loss is computed from: it must be what the model puts out, and not rounded (argmax)."
        return [
            Candidate("loss_ignores_output", None, 0.0, None, "change of the loss with the output", 0.97, says, remedy)
        ]
    return []


def broadcast(check: Check) -> list[Candidate]:
    """Output and target of different shapes: every sample is compared with every other one's target."""
    if check.output is None or not check.output.broadcast:
        return []
    says = (
        "Output and target have different shapes, and are broadcast: each output is compared with all samples' targets."
    )
    remedy = "Give both the same shape: output.squeeze(-1), or target.unsqueeze(-1)."
    return [Candidate("output_broadcast", None, 1.0, None, "whether shapes are broadcast", 0.95, says, remedy)]


def probabilities(check: Check) -> list[Candidate]:
    """Probabilities where the loss expects logits or their logarithms."""
    found = check.output
    kind = check.problem.loss_kind or check.problem.loss or ""
    if found is None or found.probabilities is None or kind not in SQUASHED.get(found.probabilities, "").split():
        return []
    takes = "logarithms of probabilities" if kind == "nll" else "logits, and makes probabilities of them itself"
    flat = f": the loss can only fall to {number(_floor(check))}" if _floor(check) is not None and kind == "ce" else ""
    last = found.probabilities
    says = f"The model ends in a {last}, but the loss expects {takes}{flat}."
    remedy = f"Remove the {last} at the end{' (or use log_softmax)' if kind == 'nll' else ''}."
    sure = 0.9 if found.last in (last, None) else 0.7
    return [Candidate("outputs_are_probabilities", None, found.high, 1.0, "largest output", sure, says, remedy)]


def out_of_range(check: Check) -> list[Candidate]:
    """Real targets that the last function cannot reach."""
    found, targets = check.output, check.targets
    if found is None or targets is None or targets.kind != "real" or found.last not in REACHES:
        return []
    if targets.low is None or targets.high is None or not targets.stdev:
        return []
    low, high = REACHES[found.last]
    beyond = max(low - targets.low, targets.high - high) / targets.stdev
    sure = grade(beyond, 0.5, 2.0)
    if not sure:
        return []
    top = "up" if math.isinf(high) else f"to {high:g}"
    says = (
        f"The output ends in a {found.last}, which gives numbers from {low:g} {top}, "
        f"but targets run from {number(targets.low)} to {number(targets.high)}."
    )
    remedy = f"Remove the {found.last} at the end, or scale the targets into its range."
    quantity = "distance of the farthest target from what the output reaches, in standard deviations"
    return [Candidate("output_range", None, beyond, 0.5, quantity, sure, says, remedy)]


def _floor(check: Check) -> float | None:
    """Least cross entropy of outputs between 0 and 1."""
    classes = check.targets.classes if check.targets else None
    return math.log(math.e + classes - 1) - 1 if classes else None


def loss_at_start(check: Check) -> list[Candidate]:
    """A loss far above that of an output that knows nothing."""
    found, targets = check.output, check.targets
    if found is None or found.loss is None:
        return []
    if targets is not None and targets.kind == "real":
        return _regression(check)
    over = excess(check)
    sure = 0.9 * grade(over, *EXCESS[adaptive(check)])
    if not sure or over is None:
        return []
    says = (
        f"The loss starts at {number(found.loss)}, {times(over)} that of an output that knows nothing "
        f"({number(found.uniform)}): outputs run from {number(found.low)} to {number(found.high)}."
    )
    remedy = "Scale the last layer down and set its biases to 0."
    return [
        Candidate(
            "loss_at_start",
            None,
            over,
            EXCESS[adaptive(check)][0],
            "loss over that of an output that knows nothing",
            sure,
            says,
            remedy,
        )
    ]


def _regression(check: Check) -> list[Candidate]:
    """Targets far from where the output starts."""
    found, targets = check.output, check.targets
    if found is None or targets is None or targets.mean is None or targets.stdev is None:
        return []
    free = adaptive(check)
    spread = max(targets.stdev, found.rms or 0.0)
    away = abs(targets.mean - (found.mean or 0.0))
    size = math.hypot(targets.mean, targets.stdev)
    far = away / spread if spread else 0.0
    sure = max(grade(far, *FAR[free]) if size > 1 else 0.0, grade(size, *WIDE[free]))
    if not sure:
        return []
    says = (
        f"The targets have mean {number(targets.mean)} and standard deviation {number(targets.stdev)}, where the "
        f"output starts at mean {number(found.mean)} and size {number(found.rms)}: most steps go into getting there."
    )
    remedy = (
        "Standardize the targets (subtract their mean, divide by their standard deviation), and undo it on predictions."
    )
    by_size = grade(size, *WIDE[free]) >= sure
    value, threshold = (size, WIDE[free][0]) if by_size else (far, FAR[free][0])
    quantity = (
        "root mean square of the targets" if by_size else "distance of the targets from the output over their spread"
    )
    return [Candidate("loss_at_start", None, value, threshold, quantity, sure, says, remedy)]


def logit_scale(check: Check) -> list[Candidate]:
    """Logits so large that probabilities are 0 and 1 before anything was learnt."""
    found, targets = check.output, check.targets
    if found is None or targets is None or targets.kind not in ("classes", "binary"):
        return []
    over = excess(check)
    sure = grade(found.spread, *SPREAD[adaptive(check)])
    if not sure or found.spread is None or (over is not None and over <= 1):
        return []
    says = (
        f"Logits are too large: they spread by {number(found.spread)}, so probabilities are 0 or 1 "
        f"and the loss is {number(found.loss)} where guessing costs {number(found.uniform)}."
    )
    remedy = "Divide the logits, or the last layer's weights, until they spread by about 1."
    return [
        Candidate(
            "logit_scale",
            None,
            found.spread,
            SPREAD[adaptive(check)][0],
            "standard deviation of the logits",
            sure,
            says,
            remedy,
        )
    ]
