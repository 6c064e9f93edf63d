"""Rules on the signal: whether what tells samples apart still enters the head, and at what size."""

import math
from collections.abc import Sequence
from itertools import pairwise

from hessdiag.numbers import number, percent, times
from hessdiag.questions.check.causes.candidate import Candidate, grade
from hessdiag.questions.check.causes.output import EXCESS
from hessdiag.questions.check.causes.path import adaptive, entering, excess, gain_words, head, main, named
from hessdiag.questions.check.causes.units import RECURRENT
from hessdiag.questions.check.readings import LayerReading
from hessdiag.questions.check.result import Check

# Under gradient descent, and under an optimizer whose steps do not shrink with the gradient.
VARIATION = {False: (0.03, 3e-3), True: (1e-3, 1e-5)}  # of what enters the head, over samples
SHRUNK = {False: (0.02, 2e-3), True: (1e-5, 1e-8)}  # its size over the input's
GROWN = 10.0  # size of what enters the head over that of the input
STUCK = 1e-5  # gradient of the layers before the head over that of the head
ONE = 0.6  # share of a loss, by its logarithm, from which it is one layer's
SHRINKS = 0.95  # of the signal that each layer leaves, from which layers themselves lose nothing
DEEP = 3  # layers from which on a loss or a growth is the path's


def signal(check: Check) -> list[Candidate]:
    """A signal that ends on its way, or grows without bound."""
    return [*_lost(check), *explodes(check)]


def lost(check: Check) -> float:
    """How sure it is that too little tells samples apart in what enters the head."""
    return max(_by_variation(check), _by_size(check))


def _by_variation(check: Check) -> float:
    last = head(check)
    return 0.0 if last is None or last.depth == 1 else grade(last.input_variation, *VARIATION[adaptive(check)])


def _by_size(check: Check) -> float:
    size = _growth(check)
    if size is None:
        return 0.0
    sure = grade(size, *SHRUNK[adaptive(check)])
    return sure if len(main(check)) > DEEP or _stuck(check) else min(sure, 0.3)


def _stuck(check: Check) -> bool:
    """Whether layers before the head get next to no gradient; else a small one grows in a few steps."""
    gradients = [layer.gradient_rms or 0.0 for layer in main(check)]
    return bool(gradients) and max(gradients[:-1], default=0.0) <= STUCK * gradients[-1]


def _growth(check: Check) -> float | None:
    """Size of what enters the head over that of what enters the first layer."""
    layers = main(check)
    start = entering(layers)
    if len(layers) < 2 or not start or layers[-1].input_rms is None:
        return None
    return layers[-1].input_rms / start


def culprit(check: Check) -> LayerReading | None:
    """The one layer that takes most of the signal, if one does: of those on the way, or of what is between two."""
    by_size = _by_size(check) > _by_variation(check)
    layers = main(check)
    drops = [drop for one, after in pairwise(layers) for drop in _drops(check, one, after, by_size=by_size)]
    if not drops:
        return None
    total = sum(drop for _, drop in drops if drop > 0)
    if not by_size:  # what is lost where nothing is read, as by a choice of positions, is no layer's
        total = max(total, _fall(layers[0].input_variation, layers[-1].input_variation))
    worst, most = max(drops, key=lambda found: found[1])
    return worst if total > 0 and most >= ONE * total else None


def _drops(check: Check, one: LayerReading, after: LayerReading, *, by_size: bool) -> list[tuple[LayerReading, float]]:
    """By how many e-folds a layer, and each normalization up to the next, lessen the signal: at most what enters that.

    What a branch loses is not lost where another way leads around it.
    """
    places = [place for place, layer in enumerate(check.layers) if layer is one or layer is after]
    between = check.layers[places[0] + 1 : places[-1]] if check.layers[places[0]] is one else ()
    found = [one, *(layer for layer in between if layer.depth is None and layer.fan_in is None)]
    gap = _fall(one.input_rms, after.input_rms) if by_size else _fall(one.input_variation, after.input_variation)
    drops = [min(_drop(layer, by_size=by_size), gap) for layer in found]
    if one.kind in RECURRENT:  # of all its steps the head may take one
        drops[0] = gap
    return list(zip(found, drops, strict=True))


def _drop(layer: LayerReading, *, by_size: bool) -> float:
    """By how many e-folds a layer lessens what tells samples apart."""
    before = layer.input_rms if by_size else layer.input_variation
    after = layer.signal_rms if by_size else layer.signal_variation
    return _fall(before, after)


def _fall(before: float | None, after: float | None) -> float:
    """How many e-folds one number is above another."""
    if before is None or after is None or before <= 0:
        return 0.0
    return math.log(before / after) if after > 0 else 100.0


def _lost(check: Check) -> list[Candidate]:
    sure, last = lost(check), head(check)
    if not sure or last is None:
        return []
    free = adaptive(check)
    by_size = _by_size(check) > _by_variation(check)
    layers = main(check)
    one = culprit(check)
    where = one or _first_below(layers, by_size, (SHRUNK if by_size else VARIATION)[free][0]) or last
    value = _growth(check) if by_size else last.input_variation
    way = f"most of the {_kind(by_size)} is lost in {named(one)}" if one else _way(layers, where, by_size)
    return [
        Candidate(
            id="signal_lost",
            layer=where.layer,
            value=value,
            threshold=(SHRUNK if by_size else VARIATION)[free][0],
            quantity="size of the signal at the last layer over the input's"
            if by_size
            else "variation between samples at the last layer",
            confidence=sure,
            says=f"The signal is lost: {_left(last, value, by_size)}; {way}{gain_words(layers, low=True)}.",
            remedy=_remedy(layers, one),
        )
    ]


def _first_below(layers: Sequence[LayerReading], by_size: bool, bound: float) -> LayerReading | None:
    start = entering(layers) or 1.0
    for layer in layers:
        left = layer.signal_rms if by_size else layer.signal_variation
        if left is not None and left < bound * (start if by_size else 1.0):
            return layer
    return None


def _left(last: LayerReading, value: float | None, by_size: bool) -> str:
    """What is left at the last layer, in words."""
    if by_size:
        return f"what enters the last layer ({last.layer}) has {number(value)} of the input's size"
    if value == 0:
        return f"what enters the last layer ({last.layer}) is the same for every sample"
    return f"samples differ by only {number(value)} of the size of what enters the last layer ({last.layer})"


def _kind(by_size: bool) -> str:
    return "size" if by_size else "difference"


def _way(layers: Sequence[LayerReading], where: LayerReading, by_size: bool) -> str:
    """How it is lost on the way: what a layer leaves of it, by the geometric mean, and where it is gone."""
    drops = [min(_drop(layer, by_size=by_size), 10.0) for layer in layers[:-1]]
    leaves = math.exp(-sum(drops) / max(len(drops), 1))
    gone = f"is gone after layer {where.layer}"
    if leaves > SHRINKS:
        return f"the {_kind(by_size)} {gone}"
    return f"a layer leaves {percent(leaves, 2)} of the {_kind(by_size)} on average, which {gone}"


def _remedy(layers: Sequence[LayerReading], one: LayerReading | None) -> str:
    if one is not None:
        return f"Look at layer {one.layer}: initialize it anew, and check what comes right after it."
    activation = next((layer.activation for layer in layers if layer.activation), None)
    if activation == "sigmoid":
        return "Use tanh or ReLU with an initialization made for it (Xavier, He), or normalize between layers."
    name = "Xavier with tanh's gain" if activation == "tanh" else "He"
    return f"Initialize all layers anew ({name}, biases at 0), normalize between layers, or add residual connections."


def explodes(check: Check) -> list[Candidate]:
    """A signal that grows on its way, where the loss suffers."""
    layers, growth = main(check), _growth(check)
    if growth is None or growth < GROWN:
        return []
    sure = grade(excess(check), *EXCESS[adaptive(check)])
    if not sure:
        return []
    last = layers[-1]
    start = entering(layers) or 1.0
    where = next((layer for layer in layers if (layer.signal_rms or 0) > GROWN * start), last)
    return [
        Candidate(
            id="signal_explodes",
            layer=where.layer,
            value=growth,
            threshold=GROWN,
            quantity="size of the signal at the last layer over the input's",
            confidence=sure,
            says=f"The signal explodes: what enters the last layer ({last.layer}) has {times(growth)} the input's size"
            f"{gain_words(layers, low=False)}.",
            remedy="Initialize all layers anew with the gain that the nonlinearity needs, or normalize between layers.",
        )
    ]
