"""Rules on units: dead ones, saturated ones, copies of each other."""

import math
from itertools import pairwise

from hessdiag.numbers import counted, number, percent
from hessdiag.questions.check.causes.candidate import Candidate, grade
from hessdiag.questions.check.causes.path import head, main, named, sentence
from hessdiag.questions.check.readings import LayerReading
from hessdiag.questions.check.result import Check

ALIVE, FEW_ALIVE = 0.2, 0.03  # share of units that are not dead: fewer train worse, fewer still do not
FREE, HARDLY_FREE = 0.1, 1e-3  # share of entries that are not saturated
COPIES = 0.5  # share of units
FEWEST_ROWS = 16  # of what a unit was computed: of fewer, all may be below zero by chance
BYPASSED = 0.05  # variation at the head above which a dead layer must have a way around it
RECURRENT = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")  # the next layer of which is itself
BOUNDED = ("tanh", "sigmoid", "hardtanh", "hardsigmoid", "softsign", "relu6")


def units(check: Check) -> list[Candidate]:
    """Units that cannot learn, or not differ."""
    return [*_dead(check), *_saturated(check), *_identical(check)]


def _dead(check: Check) -> list[Candidate]:
    last = head(check)
    found = []
    for layer in check.layers:
        share = layer.dead_fraction
        if not share or 0 < layer.rows < FEWEST_ROWS or not (sure := grade(1 - share, ALIVE, FEW_ALIVE)):
            continue
        if share == 1 and last is not None and (last.input_variation or 0) >= BYPASSED and last is not layer:
            sure = 0.3
        found.append(
            Candidate(
                id="dead_units",
                layer=layer.layer,
                value=share,
                threshold=1 - ALIVE,
                quantity="share of units that are zero for every sample",
                confidence=sure,
                says=f"{sentence(named(layer))} is {'' if share == 1 else 'mostly '}dead: "
                f"{_how_many(layer, share)} zero for every sample{_because(layer)}.",
                remedy=_revive(layer),
            )
        )
    return found


def _how_many(layer: LayerReading, share: float) -> str:
    if layer.units is None:
        return f"{percent(share, 2)} of its units are"
    dead = round(share * layer.units)
    return f"all {layer.units:,} units are" if dead == layer.units else f"{dead:,} of {layer.units:,} units are"


def _because(layer: LayerReading) -> str:
    """What made them dead, as far as the layer itself tells."""
    if _by_bias(layer):
        varies = number(_spread(layer))
        return f", because its biases average {number(layer.bias_mean)} where its output varies by {varies}"
    if layer.weight_rms == 0:
        return ", because its weights are 0"
    if layer.output_mean is not None and layer.output_mean < 0:
        return f": its output averages {number(layer.output_mean)} and varies by {number(_spread(layer))}"
    return ""


def _by_bias(layer: LayerReading) -> bool:
    return layer.bias_mean is not None and layer.bias_mean < -2 * _spread(layer) and layer.bias_mean < 0


def _spread(layer: LayerReading) -> float:
    """How much a layer's output varies over samples."""
    return (layer.output_variation or 0.0) * (layer.output_rms or 0.0)


def _revive(layer: LayerReading) -> str:
    if _by_bias(layer):
        return f"Set the biases of layer {layer.layer} to 0."
    return f"Initialize layer {layer.layer} anew (He), or use a nonlinearity with a slope on both sides, as LeakyReLU."


def _saturated(check: Check) -> list[Candidate]:
    hit = [layer for layer in check.layers if layer.activation in BOUNDED and layer.saturated_fraction]
    found = []
    for layer in hit:
        share = layer.saturated_fraction or 0.0
        if not (sure := grade(1 - share, FREE, HARDLY_FREE)):
            continue
        found.append(
            Candidate(
                id="saturated_units",
                layer=layer.layer,
                value=share,
                threshold=1 - FREE,
                quantity="share of entries where the nonlinearity is flat",
                confidence=sure,
                says=f"{sentence(named(layer))} is saturated: {percent(share)} of its output is where "
                f"{layer.activation} is flat, because {_pushed(layer)}.",
                remedy=f"Scale the weights of layer {layer.layer} down, set its biases to 0, or normalize its input.",
            )
        )
    return found


def _pushed(layer: LayerReading) -> str:
    bias = layer.bias_rms or 0.0
    if layer.output_rms and bias > 0.7 * layer.output_rms:
        return f"its biases are {number(bias)} in size"
    gain = "" if layer.weight_gain is None else f" at a gain of {number(layer.weight_gain)}"
    return f"inputs of size {number(layer.input_rms)}{gain} give {number(layer.output_rms)}"


def _identical(check: Check) -> list[Candidate]:
    """Copies, where the next layer cannot part them: of two layers in a row, or of all."""
    layers = [layer for layer in main(check) if layer.identical_fraction is not None and (layer.units or 0) > 1]
    copies = [layer for layer in layers if (layer.identical_fraction or 0) > COPIES]
    stay = [layer for layer in copies if not layer.copies_part]
    if not stay:
        return []
    recurrent = [layer for layer in stay if layer.kind in RECURRENT]
    in_row = [one for one, next_ in pairwise(layers) if one in stay and next_ in copies]
    first = (in_row or recurrent or stay)[0]
    if len(copies) == len(layers) and (len(layers) > 1 or first.weight_rms):
        sure = 0.95
    elif in_row:
        sure = 0.7 + 0.2 * (len(in_row) + 1) / len(layers)
    elif recurrent:
        sure = 0.75
    else:
        return []
    share = first.identical_fraction or 0.0
    others = f" (and {counted(len(copies) - 1, 'other layer')} likewise)" if len(copies) > 1 else ""
    same = (
        "all weights are 0"
        if all(layer.weight_rms == 0 for layer in copies)
        else f"{_copied(first, share)} are copies of others"
    )
    return [
        Candidate(
            id="identical_units",
            layer=first.layer,
            value=share,
            threshold=COPIES,
            quantity="share of units whose weights equal those of another",
            confidence=sure,
            says=f"In {named(first)} {same}{others}: units that are alike get the same gradient, and stay alike.",
            remedy="Initialize the weights at random; constants are for biases and scales of normalizations.",
        )
    ]


def _copied(layer: LayerReading, share: float) -> str:
    return (
        f"{percent(share, 2)} of units"
        if layer.units is None
        else f"{math.ceil(share * layer.units):,} of {layer.units:,} units"
    )
