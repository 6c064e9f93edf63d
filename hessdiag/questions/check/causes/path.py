"""Which layers data passes on its way to the loss, and how things are called in sentences."""

import math
from collections.abc import Iterable, Sequence
from statistics import median, mode

from hessdiag.fields import Number
from hessdiag.numbers import number
from hessdiag.questions.check.readings import LayerReading, ModeReading
from hessdiag.questions.check.result import Check

# What the root mean square of weights times the root of their fan-in must be for a signal to keep its size, by the
# nonlinearity that takes it: torch's own for relu and tanh; 4 is the inverse of sigmoid's slope at 0; the others by
# quadrature of E f(gz)^2 = 1 for a normal z.
NEEDED = {
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2),
    "elu": 1.28,
    "gelu": 1.47,
    "silu": 1.56,
    "mish": 1.45,
    "tanh": 5 / 3,
    "sigmoid": 4.0,
    "selu": 1.0,
}

FEW = 5  # losses that an average is of, at least


def main(check: Check) -> list[LayerReading]:
    """Layers on the longest way from the data to the loss, the first one first."""
    return sorted((layer for layer in check.layers if layer.depth is not None), key=lambda layer: layer.depth or 0)


def head(check: Check) -> LayerReading | None:
    """The last layer that multiplies by a matrix."""
    layers = main(check)
    return layers[-1] if layers else None


def entering(layers: Iterable[LayerReading]) -> float | None:
    """Size of what enters the first layer that takes real numbers."""
    return next((layer.input_rms for layer in layers if layer.input_rms), None)


def progress(check: Check) -> float:
    """By what part of chance the loss fell in the few steps taken, like batches against like."""
    step, output = check.step, check.output
    losses = () if step is None else step.losses
    known = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    if len(known) < max(len(losses), 4):
        return 0.0
    batches = check.problem.batches
    period = min(batches * math.ceil(FEW / batches), len(known) // 2)
    first, last = (sum(part) / period for part in (known[:period], known[-period:]))
    chance = None if output is None else output.chance
    start = min(first, chance) if chance else first
    return (start - last) / start if start > 0 else 0.0


def order(check: Check) -> dict[str, int]:
    """The place of each layer in execution."""
    return {layer.layer: place for place, layer in enumerate(check.layers)}


def named(layer: LayerReading | ModeReading) -> str:
    """What a sentence calls a layer, or a function that is called without one.

    >>> named(LayerReading(layer="body.2", kind="Linear", parameters=6))
    'layer body.2 (Linear)'
    >>> named(LayerReading(layer="Linear", kind="Linear", parameters=6))  # the model itself
    'layer Linear'
    """
    if layer.kind == "function":
        return f"the function {layer.layer}"
    return f"layer {layer.layer}" if layer.layer == layer.kind else f"layer {layer.layer} ({layer.kind})"


def sentence(text: str) -> str:
    """With a capital letter.

    >>> sentence("layer 2 is dead.")
    'Layer 2 is dead.'
    """
    return text[:1].upper() + text[1:]


def needed(layer: LayerReading) -> float:
    """The gain at which a signal keeps its size through a layer and its nonlinearity."""
    return NEEDED.get(layer.activation or "", 1.0)


def gains(layers: Iterable[LayerReading]) -> list[float]:
    """Gains of those layers whose scale has an effect, over what their nonlinearities need."""
    return [layer.weight_gain / needed(layer) for layer in layers if layer.weight_gain and not layer.normalized]


def typical(values: Iterable[Number]) -> float | None:
    """The median of what is known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return median(known) if known else None


def adaptive(check: Check) -> bool:
    """Whether the optimizer's steps do not shrink with the gradient; so it is where none is known."""
    return check.step is None or check.step.optimizer.lower() not in ("sgd", "asgd")


def stands_in(check: Check) -> bool:
    """Whether the steps are of an optimizer that the user did not name: theirs may do worse."""
    return check.step is not None and not check.step.given


def excess(check: Check) -> float | None:
    """The loss over that of an output which knows nothing; `None` where either is not known."""
    output = check.output
    if output is None or output.loss is None or not output.uniform or output.uniform <= 0:
        return None
    return math.inf if not math.isfinite(output.loss) else output.loss / output.uniform


def gain_words(layers: Sequence[LayerReading], *, low: bool) -> str:
    """The gain before the commonest nonlinearity in words, where it is off in the way that explains it."""
    before = [layer.activation for layer in layers if layer.weight_gain and not layer.normalized and layer.activation]
    activation = mode(before) if before else ""
    gain = typical(layer.weight_gain for layer in layers if layer.activation == activation and not layer.normalized)
    needs = NEEDED.get(activation)
    if gain is None or needs is None or (low and gain > 0.85 * needs) or (not low and gain < 1.15 * needs):
        return ""
    return f"; the gain of the weights is {number(gain)}, where {activation} needs {number(needs)}"
