"""Rules on the optimizer: a learning rate, an epsilon or a weight decay that the network cannot be trained with."""

import math
from collections.abc import Callable
from statistics import median

from hessdiag.fields import Number, Numbers
from hessdiag.numbers import counted, number, percent, times
from hessdiag.questions.check.causes.candidate import Candidate, grade
from hessdiag.questions.check.readings import OtherSetting, StepReading
from hessdiag.questions.check.result import Check
from hessdiag.questions.check.stepping.judged import gain, late

SEEN = 0.9  # confidence where a run with another setting trains, and this one does not
DIVERGES = 0.6  # where it diverges, and does not train with a smaller learning rate, but diverges no more
HELPS, LAGS = 0.03, 0.5  # of the loss that a run with another setting must gain; part of that which is not enough
LEAPS = (2.5, 25.0)  # loss after one step over that before, or over chance: doubtful, and sure
REPLACES = (0.5, 2.5)  # update over weight, beside a loss that rises: a step that puts other weights in their place
RISES = 1.3  # loss over that before, or over chance, at which such a step does no good
USUAL_UPDATE = 0.02  # update over weight in networks that train
TINY = (2e-5, 2e-6)  # update over weight: 50,000 steps to change weights by their size, and half a million
SMALL_LR = {"sgd": 1e-3, "asgd": 1e-3}  # from which a learning rate itself is small
SMALL_ADAPTIVE_LR = 1e-5
LEAVES = (0.2, 0.02)  # what a floor leaves of a step
DECAY = (1.2, 4.0)  # weight decay over the gradient's part of a step
DECAY_STEPS = 2000  # in which weights that only decay lose all but an e-th: a few epochs of a small data set
ROUNDED = (0.6, 0.95)  # share of updates that are rounded away
ALONE = 0.8  # of the confidence, where no runs could show it


def optimizer(check: Check) -> list[Candidate]:
    """What the optimizer's settings do to this network, as far as the user named them."""
    step = check.step
    if step is None:
        return []
    found = [_rounded(check, step)]
    if step.given:
        found += [_learning_rate(check, step), _epsilon(check, step), _decay(check, step), _small(check, step)]
    return [one for one in found if one is not None and one.confidence > 0]


def _chance(check: Check) -> Number:
    return None if check.output is None else check.output.chance


def _better(
    check: Check, step: StepReading, setting: str, allowed: Callable[[float], bool], *, fell: bool = False
) -> OtherSetting | None:
    """The first run with another value of a setting that trains much better."""
    chance = _chance(check)
    own = gain(step.losses, chance, check.problem.batches)
    for other in step.others:
        if other.setting == setting and allowed(other.value) and (other.fell or not fell):
            gained = gain(other.losses, chance, check.problem.batches)
            if gained > HELPS and own < LAGS * gained:
                return other
    return None


def _end(losses: Numbers) -> str:
    """Where a run ends, in words."""
    values = [float(loss) for loss in losses if loss is not None]
    return number(late(values)) if len(values) == len(losses) else "a number that is not finite"


def _learning_rate(check: Check, step: StepReading) -> Candidate | None:
    """Too high: seen in runs, or where there were none in the first step."""
    lr = step.lr or 0.0
    if not lr or check.trains or step.before is None:
        return None
    smaller = _better(check, step, "lr", lambda value: value < lr, fell=True)
    if smaller is not None:
        highest = max((loss for loss in step.losses if loss is not None), default=step.before)
        ran = f"the loss goes from {number(step.before)} up to {number(highest)}, and ends at {_end(step.losses)}"
        falls = f"with {smaller.value:g} it falls to {_end(smaller.losses)}"
        return _too_high(lr, smaller.value, SEEN, f"{ran}; {falls}")
    if step.losses:
        return _diverges(step, lr) or _replaces(check, step, lr)
    usual = max(step.before, _chance(check) or 0.0)
    leap = math.inf if step.after is None else step.after / usual if usual > 0 else 0.0
    replaces = grade(step.update_ratio, *REPLACES) if leap > RISES else 0.0
    confidence = ALONE * max(grade(leap, *LEAPS), replaces)
    after = "not finite" if step.after is None else number(step.after)
    return _too_high(lr, _stable(step), confidence, f"one step takes the loss from {number(step.before)} to {after}")


def _diverges(step: StepReading, lr: float) -> Candidate | None:
    """The loss ends in no number, and in one with a smaller learning rate, though it does not fall with that either."""
    tamed = [other for other in step.others if other.setting == "lr" and other.value < lr and None not in other.losses]
    if not tamed or None not in step.losses:
        return None
    ran = f"the loss goes from {number(step.before)} to infinity within {counted(len(step.losses) - 1, 'step')}"
    return _too_high(lr, tamed[0].value, DIVERGES, f"{ran}, and with {tamed[0].value:g} it does not")


def _replaces(check: Check, step: StepReading, lr: float) -> Candidate | None:
    """Steps as large as the weights, from which the loss rises and then stays above chance.

    A smaller learning rate, with which it does not rise, may need more steps than there was time for.
    """
    chance, ratio = _chance(check), step.update_ratio
    if not chance or not ratio or any(loss is None for loss in step.losses):
        return None
    usual = RISES * max(step.before or 0.0, chance)
    own = [float(loss) for loss in step.losses if loss is not None]
    tamed = any(
        other.setting == "lr" and other.value < lr and all(loss is not None and loss < usual for loss in other.losses)
        for other in step.others
    )
    if not tamed or max(own) < usual or late(own) < chance:
        return None
    shown = f"a step changes the weights by {number(ratio)} of their size, and the loss goes from {number(own[0])} "
    shown += f"up to {number(max(own))}"
    return _too_high(lr, lr * USUAL_UPDATE / ratio, grade(ratio, *REPLACES), shown)


def _too_high(lr: float, most: float, confidence: float, shown: str) -> Candidate:
    return Candidate(
        id="learning_rate_too_high",
        layer=None,
        value=lr,
        threshold=most,
        quantity="learning rate",
        confidence=confidence,
        says=f"The learning rate {lr:g} is too high: {shown}.",
        remedy=f"Set lr to {number(most, 1)} or less.",
    )


def _stable(step: StepReading) -> float:
    """A learning rate at which the first step would lower the loss most, by the two losses and the slope."""
    lr, fall = step.lr or 0.0, step.predicted or 0.0
    if step.after is None or step.before is None or fall <= 0:
        return lr / 100
    overshoot = (step.after - step.before + fall) / fall
    return lr / min(max(2 * overshoot, 10.0), 1e4)


def _epsilon(check: Check, step: StepReading) -> Candidate | None:
    """An epsilon above gradients of a usual size."""
    epsilon = step.settings.get("eps")
    if epsilon is None or step.floor_leaves is None:
        return None
    confidence = grade(step.floor_leaves, *LEAVES)
    smaller = _better(check, step, "eps", lambda value: value < epsilon)
    if step.losses and smaller is None:
        return None
    if smaller is None:  # a learning rate may make up for it
        confidence *= ALONE if (step.update_ratio or 0.0) < 10 * TINY[0] and epsilon > 1e-6 else 0.0
    gradients = [layer.gradient_rms for layer in check.layers if layer.gradient_rms]
    most = min(median(gradients) / 10, epsilon / 10) if gradients else epsilon / 10
    shown = (
        f"The optimizer's eps = {epsilon:g} is above the gradients, and leaves {percent(step.floor_leaves)} of a step"
    )
    if smaller is not None:
        shown += f"; the loss ends at {_end(step.losses)}, with {smaller.value:g} at {_end(smaller.losses)}"
    return Candidate(
        id="epsilon_floor",
        layer=None,
        value=epsilon,
        threshold=most,
        quantity="eps, beside a tenth of the median layer's gradient",
        confidence=confidence,
        says=f"{shown}.",
        remedy=f"Set eps to {number(most, 1)} or less.",
    )


def _decay(check: Check, step: StepReading) -> Candidate | None:
    """Weight decay that outweighs the gradient, and shrinks weights to nothing within a few epochs."""
    decay, ratio = step.settings.get("weight_decay") or 0.0, step.decay_ratio
    if check.trained or ratio is None or not step.decay_steps or step.decay_steps > DECAY_STEPS:
        return None
    confidence = grade(ratio, *DECAY)
    without = _better(check, step, "weight_decay", lambda value: value < decay)
    if step.losses and without is None:
        return None
    if without is None:
        confidence *= ALONE
    most = decay * min(0.1, 0.1 / ratio)
    half = counted(max(round(math.log(2) * step.decay_steps), 1), "step")
    shown = f"Weight decay {decay:g} takes {times(ratio)} as much in a step as the gradient adds"
    return Candidate(
        id="weight_decay",
        layer=None,
        value=ratio,
        threshold=DECAY[0],
        quantity="what weight decay takes in a step over what the gradient adds",
        confidence=confidence,
        says=f"{shown}: by itself it halves the weights in {half}.",
        remedy=f"Set weight_decay to {number(most, 1)} or less.",
    )


def _small(check: Check, step: StepReading) -> Candidate | None:
    """Steps too small to get anywhere, by a learning rate that is small itself."""
    lr, ratio = step.lr, step.update_ratio
    if lr == 0:
        return _too_small(0.0, 1.0, "The learning rate is 0: nothing is trained.", "Set lr above 0.")
    momentum = float(step.settings.get("momentum") or 0.0)
    if check.trains or check.trained or lr is None or not ratio or not 0 <= momentum < 1:
        return None
    small = SMALL_LR.get(step.optimizer.lower())
    lasting = 1.0 if small is None else 1 / (1 - momentum)  # momentum adds up steps of gradient descent
    if lr * lasting > (SMALL_ADAPTIVE_LR if small is None else small):
        return None
    confidence = grade(ratio * lasting, *TINY)
    larger = _better(check, step, "lr", lambda value: value > lr)
    if step.losses and larger is None:
        return None
    if larger is None:
        confidence *= ALONE
    target = larger.value if larger is not None else lr * 10.0 ** round(math.log10(1e-3 / ratio))
    shown = f"at the learning rate {lr:g} each changes the weights by {number(ratio)} of their size"
    falls = "" if larger is None else f", with which the loss falls to {_end(larger.losses)}"
    remedy = f"Set lr to {number(target, 1)}{falls}."
    return _too_small(ratio, confidence, f"Steps are too small: {shown}.", remedy)


def _too_small(ratio: float, confidence: float, says: str, remedy: str) -> Candidate:
    return Candidate(
        id="updates_too_small",
        layer=None,
        value=ratio,
        threshold=TINY[0],
        quantity="size of a step over that of the weights, median layer",
        confidence=confidence,
        says=says,
        remedy=remedy,
    )


def _rounded(check: Check, step: StepReading) -> Candidate | None:
    """Steps that the weights' dtype rounds away."""
    dtype = "" if check.numbers is None else check.numbers.dtype
    share = step.rounded_share
    if share is None or not dtype.endswith(("bfloat16", "float16")):
        return None
    return Candidate(
        id="updates_too_small",
        layer=None,
        value=share,
        threshold=ROUNDED[0],
        quantity="share of weights that a step leaves as they are",
        confidence=grade(share, *ROUNDED),
        says=f"{dtype} rounds {percent(share)} of the updates away: they are below a weight's last digit.",
        remedy="Keep the weights in float32, and let autocast compute in half precision.",
    )
