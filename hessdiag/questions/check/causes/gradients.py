"""Rules on gradients: parts that none reaches, and those that fade or grow on the way back."""

import math
from itertools import takewhile

from hessdiag.numbers import number, percent
from hessdiag.questions.check.causes.candidate import Candidate, grade
from hessdiag.questions.check.causes.path import adaptive, gain_words, main, named
from hessdiag.questions.check.readings import LayerReading
from hessdiag.questions.check.result import Check

VANISHED = {False: (1e-3, 1e-5), True: (1e-7, 1e-10)}  # gradient by the first layer's output over that by the last's
EXPLODED = (200.0, 5e3)
FRESH = (1 / math.sqrt(3), math.sqrt(2))  # gains of torch's own initialization and of He's
FRESH_WITHIN = 0.02
MOST, NEARLY_ALL = 0.5, 0.9  # share of parameters


def gradients(check: Check) -> list[Candidate]:
    """Where gradients end."""
    return [*_no_graph(check), *_detached(check), *_zero(check), *_frozen(check), *on_the_way(check)]


def _no_graph(check: Check) -> list[Candidate]:
    found = check.output
    if found is None or found.gradient_rms is not None or not found.depends_on_output:
        return []
    if any(layer.reached and layer.trainable for layer in check.layers):
        return []
    says = "No gradient leads from the loss to the model: something between them detaches its output."
    remedy = "Remove .detach(), .item(), .numpy(), argmax and torch.no_grad() between the model and the loss."
    return [Candidate("detached", None, 0.0, None, "gradient by the output", 0.97, says, remedy)]


def _detached(check: Check) -> list[Candidate]:
    """Layers in use that the loss does not reach."""
    trainable = [layer for layer in check.layers if layer.trainable]
    hit = [layer for layer in trainable if not layer.reached and layer.calls]
    if not hit or len(hit) == len(trainable):
        return []
    share = sum(layer.parameters for layer in hit) / max(sum(layer.parameters for layer in trainable), 1)
    on_way = any(layer.depth is not None for layer in hit)
    sure = 0.9 if on_way else 0.65 if share > 0.05 else 0.3
    last = hit[-1]
    whom = named(last) if len(hit) == 1 else f"{len(hit):,} layers, the last of them {named(last)}"
    says = (
        f"No gradient reaches {whom}, with {percent(share)} of the parameters: "
        "something after it cuts the way back from the loss."
    )
    remedy = f"Remove .detach(), .data, torch.no_grad() or a conversion to numbers after layer {last.layer}."
    return [
        Candidate(
            "detached", last.layer, share, 0.05, "share of parameters that no gradient reaches", sure, says, remedy
        )
    ]


def _zero(check: Check) -> list[Candidate]:
    """The first layers, where every gradient of theirs is exactly zero though they are reached.

    A matrix of zeros behind them, as of a residual branch or a head, holds gradients back for one step only.
    """
    trainable = [layer for layer in main(check) if layer.trainable and layer.reached]
    hit = list(takewhile(lambda layer: layer.gradient_zero_fraction == 1, trainable))
    after = trainable[len(hit)] if len(hit) < len(trainable) else None
    if not hit or (after is not None and after.weight_rms == 0):
        return []
    share = len(hit) / len(trainable)
    last = hit[-1]
    whom = f"the first {len(hit):,} layers, up to {named(last)}," if len(hit) > 1 else named(last)
    says = f"The gradients of {whom} are exactly 0: what follows sends nothing back."
    remedy = (
        f"Look at what follows layer {last.layer}: dead or saturated units, zero weights, rounding, a constant output."
    )
    sure = 0.85 if share >= MOST else 0.5
    return [Candidate("gradient_vanishes", last.layer, 0.0, 0.0, "gradient of the layer", sure, says, remedy)]


def _frozen(check: Check) -> list[Candidate]:
    """Most parameters frozen while they look freshly initialized."""
    hit = [layer for layer in check.layers if not layer.trainable and layer.fan_in]
    total = sum(layer.parameters for layer in check.layers)
    share = sum(layer.parameters for layer in hit) / max(total, 1)
    if check.trains or share < MOST or not all(_fresh(layer) for layer in hit):
        return []
    says = f"{percent(share)} of the parameters are frozen, and look freshly initialized: nothing has trained them."
    remedy = "Load trained weights for the frozen part, or let it be trained: requires_grad_(True)."
    return [
        Candidate(
            "detached",
            hit[-1].layer,
            share,
            MOST,
            "share of parameters that are frozen",
            0.6 if share < NEARLY_ALL else 0.8,
            says,
            remedy,
        )
    ]


def _fresh(layer: LayerReading) -> bool:
    within = max(FRESH_WITHIN, 2 / math.sqrt(layer.parameters or 1))  # of weights drawn at random, in three deviations
    return any(layer.weight_gain and abs(layer.weight_gain / gain - 1) < within for gain in FRESH)


def on_the_way(check: Check) -> list[Candidate]:
    """Gradients that fade or grow from the last layer to the first."""
    layers = [layer for layer in main(check) if layer.output_gradient_rms]
    if len(layers) < 3:
        return []
    first, last = layers[0], layers[-1]
    ratio = (first.output_gradient_rms or 0.0) / (last.output_gradient_rms or 1.0)
    fades, grows = grade(ratio, *VANISHED[adaptive(check)]), grade(ratio, *EXPLODED)
    if not max(fades, grows):
        return []
    per_layer = ratio ** (1 / (len(layers) - 1))
    says = (
        f"Gradients {'vanish' if fades else 'explode'} on the way back: at layer {first.layer} they are "
        f"{number(ratio)} times as large as at layer {last.layer}; each layer on the way makes them "
        f"{number(per_layer)} times as large{gain_words(layers, low=bool(fades))}."
    )
    remedy = (
        "Initialize all layers anew with the gain that the nonlinearity needs, normalize between layers, "
        "or add residual connections."
        if fades
        else "Clip gradients, lower the weights' gain, or add residual connections."
    )
    return [
        Candidate(
            "gradient_vanishes" if fades else "gradient_explodes",
            first.layer,
            ratio,
            VANISHED[adaptive(check)][0] if fades else EXPLODED[0],
            "gradient at the first layer over that at the last",
            max(fades, grows),
            says,
            remedy,
        )
    ]
