"""What the signal in a model's own weights means: where it ends, by which number, and what would mend it."""

import math
from collections.abc import Sequence
from itertools import pairwise

from hessdiag.numbers import counted, number, percent, times_of_log
from hessdiag.questions.common.result import Finding
from hessdiag.questions.forward.own_result import OwnLayer, OwnSignal
from hessdiag.questions.forward.result import Forward, InitRatios

# Where training ended on digits, 400 steps of Adam (1e-3) or 300 of SGD (0.1), ReLU, tanh and sigmoid networks of 3 to
# 20 layers: SGD learns nothing below 1e-2, Adam little below 1e-3 and nothing below 1e-6.
LOST, WEAK = 1e-3, 1e-2  # variation between samples at the end
SUDDEN = 100.0  # by what variation falls in one layer that is then to blame
FADED, GONE = 1e-3, 1e-6  # spread between samples at the end, over that at the start
GROWN, EXPLODED = 30.0, 100.0  # likewise
LARGE = 30.0  # size of what the last layer takes, from which growth matters
RAW, KEPT_RAW = 20.0, 10.0  # size of what the first layer takes, and the last one still does
KEEPS = 0.1  # variation between samples with which an initialization counts as a cure
NEXT = "hessdiag check looks for the cause in gradients, data and mode, too"


def own_findings(measured: Forward) -> list[Finding]:
    """The verdict on the model as it is, the first thing to mend first; one sentence where the signal arrives."""
    own = measured.own
    if own is None or not own.layers:
        return []
    found = [*_unseen(own), *(_dead(own) or _lost(own, measured.inits)), *_copies(own)]
    found = found or [*_grown(own, measured.inits), *_faded(own, measured.inits)] or _raw(own)
    return found or _arrives(own)


def end(own: OwnSignal) -> float | None:
    """How much samples differ where the signal ends: into the last layer or in the output, whichever is more.

    An output layer whose weights start at zero loses nothing, and a large bias hides no more than a constant.
    """
    last = own.last
    if own.output_rms == 0 and own.layers[-1].rms and own.samples > 1:
        return 0.0
    known = [own.output_variation, None if last is None else last.input_variation]
    ends = [value for value in known if value is not None]
    if ends:
        return max(ends)
    silent = own.output_rms == 0 and (last is None or last.input_rms == 0 or not last.zero_weights)
    return 0.0 if own.samples > 1 and silent else None


def dead_before(own: OwnSignal) -> tuple[OwnLayer, OwnLayer] | None:
    """The first layer of which nothing is passed on though it puts something out, and the one that gets zeros."""
    for index, layer in enumerate(own.layers):
        if layer.input_zero_units != 1:
            continue
        for before in reversed(own.layers[:index]):
            if before.units == layer.input_units and before.rms and not before.zero_weights:
                return before, layer
    return None


def _is_lost(own: OwnSignal) -> bool:
    left = end(own)
    return left is not None and left < LOST


def _unseen(own: OwnSignal) -> list[Finding]:
    """BatchNorm that passes its input on as it is, where that lets the signal end or explode."""
    first, last = own.first, own.last
    if not own.unseen_norms or first is None or last is None:
        return []
    left, growth = end(own), _growth(first, last)
    if left is None or (left >= WEAK and not (growth is not None and growth > GROWN)):
        return []
    return [
        Finding(
            "bad" if left < LOST or (growth or 0.0) > EXPLODED else "warn",
            f"{counted(own.unseen_norms, 'BatchNorm layer')} in evaluation mode never saw data and normalize nothing: {_at_the_end(own)}.",
            f"running means are 0 and variances 1, as they start; {_profile(own)}",
            "model.train() before training, or --train-mode here; for evaluation, some forward passes in training mode first",
        )
    ]


def _at_the_end(own: OwnSignal) -> str:
    left = end(own) or 0.0
    return f"at the end samples differ by {number(left, 2)} of the signal's size"


def _dead(own: OwnSignal) -> list[Finding]:
    found = dead_before(own)
    last = own.layers[-1]
    if found is None and own.output_rms == 0 and last.rms and own.samples > 1:
        found = last, last
    if found is None:
        return []
    dead, after = found
    lost, where = _is_lost(own), "the output" if dead is after else f"layer {after.name}"
    bias = "" if dead.bias_mean is None else f", and its bias is {number(dead.bias_mean, 3)} on average"
    rest = "" if lost else "; other ways lead around it, and samples still differ at the end"
    return [
        Finding(
            "bad" if lost else "warn",
            f"Layer {dead.name} is dead in the model as it is: all its {counted(dead.units, 'unit')} pass on exactly zero, for all {counted(own.samples, 'sample')}.",
            f"its largest output before the activation is {number(dead.highest, 3)}{bias}; what {where} gets is zero{rest}",
            f"set the bias of {dead.name} to zero and draw its weights anew, or leaky ReLU in its place; {NEXT}",
        )
    ]


def _lost(own: OwnSignal, inits: Sequence[InitRatios]) -> list[Finding]:
    left = end(own)
    if left is None or left >= WEAK or own.unseen_norms:
        return []
    what = "is lost in" if left < LOST else "hardly gets through"
    return [
        Finding(
            "bad" if left < LOST else "warn",
            f"The signal {what} the model as it is{_where(own)}: {_at_the_end(own)}.",
            _profile(own),
            _cure(
                inits,
                "another activation (ReLU or tanh for sigmoid), normalization between layers, residual connections or fewer layers",
            ),
        )
    ]


def _where(own: OwnSignal) -> str:
    """The layer that is to blame, or from which on samples are all but the same."""
    known = [layer for layer in own.layers if layer.input_variation is not None]
    for before, layer in pairwise(known):
        assert before.input_variation is not None
        assert layer.input_variation is not None
        if layer.input_variation < LOST and before.input_variation > SUDDEN * layer.input_variation:
            return f" at layer {before.name}"
    below = [layer for layer in known if (layer.input_variation or 0.0) < LOST]
    return f", from layer {below[0].name} on" if below else ""


def _profile(own: OwnSignal) -> str:
    """Variation between samples along the way."""
    known = [layer for layer in own.layers if layer.input_variation is not None]
    if not known:
        return f"nothing but zeros in {counted(len(own.layers), 'layer')}"
    places = sorted({0, len(known) // 2, len(known) - 1})
    said = [f"{number(known[place].input_variation, 2)} into {known[place].name}" for place in places]
    if own.output_variation is not None:
        said.append(f"{number(own.output_variation, 2)} in the output")
    return f"standard deviation over {counted(own.samples, 'sample')} over size: {', '.join(said)}"


def _copies(own: OwnSignal) -> list[Finding]:
    """Layers whose units all put out the same; the output layer may have its reasons."""
    alike = [layer for layer in own.layers[:-1] if layer.alike]
    if not alike:
        return []
    first, rest = alike[0], len(alike) - 1
    more = f", as in {counted(rest, 'other layer')}" if rest else ""
    return [
        Finding(
            "bad",
            f"All {counted(first.units, 'unit')} of layer {first.name} are copies of one another{more}: the model has the power of one unit there.",
            f"their outputs are the same for each of {counted(own.samples, 'sample')}; equal units get equal gradients and stay equal",
            f"draw the weights of {first.name} at random",
        )
    ]


def _growth(first: OwnLayer, last: OwnLayer) -> float | None:
    """By what the spread between samples grows from the first layer to the last, where what arrives is large."""
    if not first.input_spread or last.input_spread is None or last.input_rms is None:
        return None
    grown = last.input_spread / first.input_spread
    return grown if last.input_rms > LARGE or grown < 1 else 1.0


def _grown(own: OwnSignal, inits: Sequence[InitRatios]) -> list[Finding]:
    first, last = own.first, own.last
    growth = None if first is None or last is None else _growth(first, last)
    if first is None or last is None or growth is None or growth < GROWN:
        return []
    gains = {
        layer.name: layer.spread / layer.input_spread
        for layer in own.layers[:-1]
        if layer.input_spread and layer.spread is not None
    }
    name = max(gains, key=lambda name: gains[name])
    others = sorted(gains.values())
    alone = gains[name] > GROWN / 3 and gains[name] > 10 * others[len(others) // 2 - (len(others) > 1)]
    at = (
        f" at layer {name}, which multiplies it by {number(gains[name], 3)}"
        if alone
        else f" over {counted(len(own.layers), 'layer')}"
    )
    return [
        Finding(
            "bad" if growth > EXPLODED or (alone and gains[name] > EXPLODED) else "warn",
            f"The signal explodes in the model as it is{at}: it is {times_of_log(math.log(growth))} larger at the end.",
            f"what differs between samples is {number(first.input_spread, 3)} into {first.name} and {number(last.input_spread, 3)} into {last.name}",
            f"divide the weights of {name} by {number(gains[name], 2)}, or draw them anew"
            if alone
            else _cure(inits, "smaller weights, or normalization between layers"),
        )
    ]


def _faded(own: OwnSignal, inits: Sequence[InitRatios]) -> list[Finding]:
    first, last = own.first, own.last
    growth = None if first is None or last is None else _growth(first, last)
    if first is None or last is None or growth is None or growth >= FADED:
        return []
    return [
        Finding(
            "bad" if growth < GONE else "warn",
            f"The signal fades in the model as it is: it is {times_of_log(-math.log(max(growth, 1e-300)))} smaller at the end.",
            f"what differs between samples is {number(first.input_spread, 3)} into {first.name} and {number(last.input_spread, 3)} into {last.name}",
            _cure(inits, "larger weights, normalization between layers or residual connections"),
        )
    ]


def _raw(own: OwnSignal) -> list[Finding]:
    first, last = own.first, own.last
    if first is None or last is None or first.input_rms is None or last.input_rms is None:
        return []
    if first.input_rms < RAW or last.input_rms < KEPT_RAW:
        return []
    return [
        Finding(
            "warn",
            f"The inputs are large and nothing normalizes them: their size is {number(first.input_rms, 3)}, and {number(last.input_rms, 3)} still reaches the last layer.",
            f"root mean square into {first.name} and into {last.name}; initializations and learning rates are made for a size of about 1",
            "standardize the inputs: subtract their mean, divide by their standard deviation",
        )
    ]


def _arrives(own: OwnSignal) -> list[Finding]:
    left = end(own)
    if left is None:
        return _one_sample() if own.samples == 1 else []
    return [
        Finding(
            "ok",
            f"The signal arrives in the model as it is: at the end samples differ by {percent(left, 2)} of its size.",
            _profile(own),
            "",
        )
    ]


def _one_sample() -> list[Finding]:
    return [
        Finding(
            "note",
            "One sample does not tell what of the signal differs between samples.",
            "the model as it is is judged by how far samples stay apart, layer by layer",
            "a batch of several samples: --data, --batch-size",
        )
    ]


def _cure(inits: Sequence[InitRatios], otherwise: str) -> str:
    """The initialization that keeps the signal, if one of those that were tried does; else what changes the network."""
    keeping = [
        init
        for init in inits
        if init.last.live and (init.last.variation or 0.0) >= KEEPS and abs(init.last.log_median) < math.log(LARGE)
    ]
    if not keeping:
        tried = f"none of {', '.join(init.init for init in inits)} keeps it: " if inits else ""
        return f"{tried}{otherwise}"
    best = min(keeping, key=lambda init: abs(init.last.log_median))
    return (
        f"initialize with {best.init}: in the experiment samples then differ by {percent(best.last.variation, 2)} at the end, "
        f"at {number(best.median, 2)} times the input's size; {otherwise}"
    )
