"""Rule on weights: one layer whose scale stands out and does harm, or that of all."""

import math

from hessdiag.numbers import number, times
from hessdiag.questions.check.causes import gradients, output, signal, units
from hessdiag.questions.check.causes.candidate import Candidate, grade
from hessdiag.questions.check.causes.path import adaptive, excess, gains, named, needed, typical
from hessdiag.questions.check.readings import LayerReading
from hessdiag.questions.check.result import Check

OUTLIER = 8.0  # times the other layers' gain, and what the nonlinearity needs
FAR, UNSEEN = (16.0, 64.0), 0.55  # such times, and how sure at most it is where only slow training speaks for harm
HALF = 0.5  # of the orders of magnitude that a gradient fades by: from there on one layer's doing
MANY = 3  # layers from which on all may be off together


def weights(check: Check) -> list[Candidate]:
    """Layers whose weights are out of scale with the others', where something follows from it."""
    layers = [layer for layer in check.layers if layer.weight_gain is not None and not layer.normalized]
    found = [_zero(layer) for layer in layers if layer.weight_rms == 0 and layer.gradient_zero_fraction == 1]
    for layer in layers:
        others = typical(other.weight_gain for other in layers if other is not layer and other.weight_gain)
        if not layer.weight_gain or not (off := _off(layer, others)):
            continue
        harm = _harm(check, layer, off)
        if harm:
            found.append(_candidate(layer, off, others, harm))
    found += [] if found else _all(check, layers)
    return sorted(found, key=lambda one: -abs(math.log(one.value)) if one.value else -math.inf)


def _all(check: Check, layers: list[LayerReading]) -> list[Candidate]:
    """Weights that are too large everywhere, where nonlinearities keep the signal from exploding."""
    relative = typical(gains(layers))
    if len(layers) < MANY or relative is None or relative < OUTLIER or signal.explodes(check):
        return []
    grows = [one.confidence for one in gradients.on_the_way(check) if one.id == "gradient_explodes"]
    return [
        Candidate(
            id="weight_scale",
            layer=None,
            value=relative,
            threshold=OUTLIER,
            quantity="median gain of the weights over what the nonlinearity needs",
            confidence=max([_suffering(check), *grows]),
            says=f"The weights of all layers are too large: their median gain is {times(relative)} what is usual.",
            remedy="Initialize all layers anew (Xavier for tanh and sigmoid, He for ReLU).",
        )
    ]


def _zero(layer: LayerReading) -> Candidate:
    """A matrix of zeros that gets no gradient either."""
    return Candidate(
        id="weight_scale",
        layer=layer.layer,
        value=0.0,
        threshold=0.0,
        quantity="gain of the weights",
        confidence=0.9,
        says=f"The weights of {named(layer)} are all 0, and so is their gradient: what follows sends nothing back.",
        remedy=f"Initialize layer {layer.layer} at random; of two matrices in a row, at most one may start at 0.",
    )


def _off(layer: LayerReading, others: float | None) -> float | None:
    """By which factor a layer's gain is off, by the nearer of both yardsticks; `None` within bounds."""
    gain = layer.weight_gain or 0.0
    marks = [gain / mark for mark in (needed(layer), others) if mark]
    if all(mark >= OUTLIER for mark in marks):
        return min(marks)
    return max(marks) if all(mark <= 1 / OUTLIER for mark in marks) else None


def _harm(check: Check, layer: LayerReading, off: float) -> float:
    """How sure it is that the network suffers from it."""
    if off < 1:
        faded = [one for one in gradients.on_the_way(check) if one.id == "gradient_vanishes" and one.value]
        own = [one.confidence for one in faded if off < (one.value or 0.0) ** HALF]
        return max(signal.lost(check) if signal.culprit(check) is layer else 0.0, *own, 0.0)
    slow = check.step is not None and check.step.losses and check.trains is None and not check.trained
    return max(_suffering(check), min(grade(off, *FAR), UNSEEN) if slow and layer.trainable else 0.0)


def _suffering(check: Check) -> float:
    """How sure it is that weights which are too large do harm: by what follows from them."""
    follows = [*units.units(check), *output.loss_at_start(check), *output.logit_scale(check)]
    return max(0.3, grade(excess(check), *output.EXCESS[adaptive(check)]), *(one.confidence for one in follows))


def _candidate(layer: LayerReading, off: float, others: float | None, harm: float) -> Candidate:
    large, gain = off > 1, layer.weight_gain or 0.0
    beside = ""
    if others and gain:
        by = gain / others if large else others / gain
        beside = f", which is {times(by)} {'' if large else 'smaller than '}that of the other layers"
    return Candidate(
        id="weight_scale",
        layer=layer.layer,
        value=off,
        threshold=OUTLIER if large else 1 / OUTLIER,
        quantity="gain of the weights over what is usual",
        confidence=harm,
        says=f"The weights of {named(layer)} are too {'large' if large else 'small'}: "
        f"their gain is {number(gain)}{beside}.",
        remedy=f"Multiply them by {number(needed(layer) / gain)}, to a gain of {number(needed(layer))}, "
        f"or initialize layer {layer.layer} anew.",
    )
