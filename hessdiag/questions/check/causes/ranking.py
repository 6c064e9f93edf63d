"""Which of the candidates are causes, which their symptoms, and which comes first."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from hessdiag.questions.check.causes.candidate import DOUBT, Candidate
from hessdiag.questions.check.causes.gradients import gradients
from hessdiag.questions.check.causes.inputs import inputs
from hessdiag.questions.check.causes.modes import modes
from hessdiag.questions.check.causes.numbers import numbers
from hessdiag.questions.check.causes.optimizer import optimizer
from hessdiag.questions.check.causes.output import output
from hessdiag.questions.check.causes.path import order, progress, stands_in
from hessdiag.questions.check.causes.signal import signal
from hessdiag.questions.check.causes.targets import targets
from hessdiag.questions.check.causes.units import units
from hessdiag.questions.check.causes.weights import weights
from hessdiag.questions.check.result import Cause, Check, Symptom

Rule = Callable[[Check], list[Candidate]]

RULES: tuple[Rule, ...] = (inputs, targets, modes, weights, units, signal, gradients, output, numbers, optimizer)

MOST = 5  # causes that are listed
LEAP = 0.35  # by how much surer a symptom may be than what explains it
REFUTED = 0.3  # what is left of the confidence in a cause that the loss contradicts
FAST = 0.35  # of chance, by which the loss of most healthy networks falls in the few steps: contradicts in full
UNKNOWN = 0.5  # how sure at most, where it trains with an optimizer that stands in, and may not with the user's
STUCK = 0.25  # of the remaining doubt, what goes where the loss did not fall

_STEPS = {"learning_rate_too_high", "updates_too_small", "epsilon_floor", "weight_decay"}
_BACK = {"gradient_vanishes", "gradient_explodes", *_STEPS}
_LOSS = {"loss_at_start", "logit_scale"}
_SIGNAL = {"signal_lost", "signal_explodes", "dead_units", "saturated_units"}
_ALL = {*_SIGNAL, *_LOSS, *_BACK, "numeric_range"}

# What follows from what. Of two that could explain each other, the one that comes first in the network does.
EXPLAINS: Mapping[str, set[str]] = {
    "loss_ignores_output": {"detached", "targets", *_BACK},
    "constant_inputs": {*_ALL, "targets"},
    "input_scale": _ALL,
    "normalization_untrained": _ALL,
    "mode": _ALL,
    "dropout": _ALL,
    "targets": {*_LOSS, *_BACK},
    "output_broadcast": {*_LOSS, *_BACK, "targets"},
    "output_range": {*_LOSS, *_BACK, "saturated_units"},
    "outputs_are_probabilities": {*_LOSS, *_BACK, "saturated_units"},
    "weight_scale": _ALL,
    "identical_units": {*_ALL, "weight_scale"},
    "detached": _BACK - {"gradient_explodes"},
    "signal_explodes": {*_LOSS, *_BACK, "saturated_units", "numeric_range"},
    "dead_units": {"signal_lost", "dead_units", *_BACK, *_LOSS, "numeric_range"},
    "saturated_units": {"signal_lost", "saturated_units", *_BACK, *_LOSS},
    "signal_lost": {"dead_units", "saturated_units", *_BACK, *_LOSS, "numeric_range"},
    "numeric_range": {"gradient_vanishes", *_LOSS, *_STEPS},
    "logit_scale": {"loss_at_start", "gradient_explodes", "learning_rate_too_high"},
    "loss_at_start": {"gradient_explodes", "learning_rate_too_high"},
    "gradient_explodes": _STEPS,
    "gradient_vanishes": {"updates_too_small", "epsilon_floor"},
    "epsilon_floor": {"updates_too_small"},
}
_RANK = {name: place for place, name in enumerate(EXPLAINS)}
_LATER = {("signal_lost", "dead_units"), ("signal_lost", "saturated_units")}  # only of layers after it

# What a loss that falls in a few steps contradicts, and what one that is low already does.
TRAINING_REFUTES = {
    *_SIGNAL - {"dead_units"},
    *_LOSS,
    *_BACK - {"weight_decay", "epsilon_floor"},  # shown by what the loss does without them
    "weight_scale",
    "input_scale",
}
SUITS_SOME = {"input_scale"}  # what an optimizer that stands in gets through, and others do not
TRAINED_REFUTES = {
    *TRAINING_REFUTES - {"learning_rate_too_high"},
    "dead_units",
    "identical_units",
    "normalization_untrained",
    "mode",
    "targets",
}


def causes(check: Check) -> tuple[Cause, ...]:
    """Why this network does not train, the likeliest first; nothing for a healthy one."""
    weighed = [_weighed(check, candidate) for rule in RULES for candidate in rule(check)]
    found = sorted((one for one in weighed if one.confidence >= DOUBT), key=_before)
    places = order(check)
    parents = {id(one): _parent(one, found, places) for one in found}
    roots: dict[int, list[Candidate]] = {id(one): [] for one in found if parents[id(one)] is None}
    for one in found:
        root = one
        while (parent := parents[id(root)]) is not None:
            root = parent
        if root is not one:
            roots[id(root)].append(one)
    named = [_cause(one, roots[id(one)], places) for one in found if id(one) in roots]
    return tuple(sorted(named, key=lambda cause: -cause.confidence)[:MOST])


def _before(one: Candidate) -> tuple[float, int]:
    return -one.confidence, _RANK.get(one.id, len(_RANK))


def _weighed(check: Check, one: Candidate) -> Candidate:
    """A candidate in the light of what the loss does."""
    confidence = one.confidence
    if check.trained and one.id in TRAINED_REFUTES:
        confidence *= REFUTED
    elif check.trains and stands_in(check) and one.id in SUITS_SOME:
        confidence = min(confidence, UNKNOWN)
    elif check.trains and one.id in TRAINING_REFUTES:
        confidence *= 1 - (1 - REFUTED) * min(max(progress(check), 0.0) / FAST, 1.0)
    elif check.trains is False and one.id in TRAINING_REFUTES and confidence >= DOUBT:
        confidence += STUCK * (1 - confidence)
    return replace(one, confidence=confidence)


def _parent(one: Candidate, found: list[Candidate], places: Mapping[str, int]) -> Candidate | None:
    """The surest of those that explain a candidate."""
    return next((other for other in found if other is not one and _explains(other, one, places)), None)


def _explains(cause: Candidate, one: Candidate, places: Mapping[str, int]) -> bool:
    if one.id not in EXPLAINS.get(cause.id, ()) or one.confidence > cause.confidence + LEAP:
        return False
    if cause.layer is None or one.layer is None or one.id in _BACK:
        return True
    first, second = places.get(cause.layer, 0), places.get(one.layer, 0)
    later = cause.id == one.id or (cause.id, one.id) in _LATER
    return first < second if later else first <= second


def _cause(one: Candidate, explained: list[Candidate], places: Mapping[str, int]) -> Cause:
    """A cause with its symptoms; what shows in a symptom is as sure as that."""
    return Cause(
        id=one.id,
        layer=one.layer,
        value=one.value,
        threshold=one.threshold,
        quantity=one.quantity,
        confidence=max([one.confidence, *(symptom.confidence for symptom in explained)]),
        says=one.says,
        remedy=one.remedy,
        symptoms=tuple(
            _symptom(name, explained, places) for name in dict.fromkeys(symptom.id for symptom in explained)
        ),
    )


def _symptom(name: str, explained: list[Candidate], places: Mapping[str, int]) -> Symptom:
    """All symptoms of one identifier as the first of them: where a layer is dead, so are all after it."""
    alike = [one for one in explained if one.id == name]
    first = min(alike, key=lambda one: -1 if one.layer is None else places.get(one.layer, 0))
    more = len({one.layer for one in alike}) - 1
    return Symptom(id=name, layer=first.layer, value=first.value, says=first.says, more=more)
