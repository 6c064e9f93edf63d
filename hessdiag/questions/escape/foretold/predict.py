"""How many steps an optimizer should take off a plateau, by laws that hold before anything is run."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.nets.chain import Chain
from hessdiag.numbers import number
from hessdiag.optimizers.presets import START, preset
from hessdiag.questions.escape.result import Plateau, Prediction
from hessdiag.theory import escape_laws as laws
from hessdiag.theory.chain_plateau import flow_time
from hessdiag.theory.optimizer_floors import ESCAPE, Escape, Floor, floor_of, floored_escape

BAND = (0.7, 1.5)  # of what gradient flow takes: how much sooner and later gradient descent came
EXACT = (0.98, 1.02)  # of the closed form
APART = (
    10.0  # of the most negative curvature: the largest, from which on it is of other weights than those that are flat
)
ABOVE = 0.1  # of a floor over the gradient, up to which steps do not depend on the gradient's size
REST = 200.0  # steps below the floor, beside which those above do not count where they have no law
TRUST = Escape(3, 12, 60)  # steps of a trust region, whatever the flatness
SEARCHED = Escape(1, 8, 60)  # the same where a step tries several radii
TRUST_RADIUS = 0.1  # of the weights' norm: a step that leads off a plateau, where the way is not known
LEAP_OF_RMSPROP, LEAP_OF_SIGNS = 0.4, 0.12  # width times the first step, above which it leaps and laws fail
AVERAGED = {"adam": (0.9, 0.999), "adamw": (0.9, 0.999), "rmsprop": (0.0, 0.99), "adagrad": (0.0, 0.0)}
WEIGHT_DECAY = {"sgd": 0.0, "adamw": 0.01, "muon": 0.1}  # of the weights, by default, beside the gradient's step
SIGNS = ("lion", "signsgd", "adam", "adamw", "sophiah")
BESIDE = {"momentum": "sgd", "gd": "sgd"}
PLAIN = (nn.Linear, nn.ReLU, nn.Flatten, nn.Identity)
SPREAD = 1e-9  # of the weights of a chain that are taken for equal
SIZES = {"lion": 1.0, "signsgd": 1.0, "muon": 0.6875, "sophiah": 0.01}  # of steps on one weight, over lr; in bfloat16
LAGS = {"muon": 19.0, "adam": 9.0, "adamw": 9.0}  # steps by which averages of gradients are behind


@dataclass(frozen=True)
class _Asked:
    """What is predicted.

    Attributes:
        plateau: Where it starts.
        name: Of the optimizer, in small letters and without settings.
        settings: Its own.
        model: As it is there.
        level: The loss that counts as out.
    """

    plateau: Plateau
    name: str
    settings: Mapping[str, Any]
    model: nn.Module
    level: float

    def setting(self, key: str, default: float) -> float:
        """One that is a number."""
        value = self.settings.get(key)
        return float(value) if isinstance(value, int | float) else default

    @property
    def lr(self) -> float:
        """The learning rate of an optimizer that keeps its scale; with momentum, what steps add up to."""
        rate, momentum = self.setting("lr", math.nan), self.setting("momentum", 0.0)
        if self.name not in ("sgd", "rmsprop") or not momentum:
            return rate
        return rate * (1 - self.setting("dampening", 0.0)) / (1 - momentum)

    @property
    def decay(self) -> float:
        """What decoupled weight decay takes of a weight per step."""
        usual = WEIGHT_DECAY.get(self.name)
        rate = self.lr if self.name == "sgd" else self.setting("lr", 0.0)
        return 0.0 if usual is None else rate * self.setting("weight_decay", usual)

    @property
    def shrinking(self) -> float:
        """The rate per step at which that shrinks curvature, of all matrices at once."""
        return max(self.plateau.matrices - 2, 0) * self.decay

    @property
    def floor(self) -> Floor | None:
        """That of its epsilon."""
        return floor_of(self.name, epsilon=self.settings.get("eps"), dtype=str(_dtype(self.model)))

    @property
    def typical(self) -> float | None:
        """The size of the gradient that the floor is compared with."""
        of_matrix = self.floor is not None and self.floor.of == "matrix"
        return self.plateau.matrix_median if of_matrix else self.plateau.gradient_median


def predicted(
    plateau: Plateau, optimizer: str, settings: Mapping[str, Any], *, model: nn.Module, threshold: float
) -> Prediction | None:
    """How many steps an optimizer should take to leave a plateau.

    Args:
        plateau: Where it starts.
        optimizer: Its name, with or without settings in parentheses.
        settings: lr, momentum, eps, ...
        model: With the weights from which it starts.
        threshold: Share of the way from the floor of the loss to the reference loss that counts as out.

    Returns:
        The law with its band; `None` where no law holds: without a plateau, for a dead network, for methods that
        nothing is known of, or where the learning rate is too large for the curvature.
    """
    name = optimizer.partition("(")[0].rpartition(".")[2].lower().replace("_", "-")
    name = BESIDE.get(name, name)
    level = plateau.floor + threshold * (plateau.reference - plateau.floor)
    asked = _Asked(plateau, name, settings, model, level)
    if plateau.dead:
        return None
    if name.startswith("tr-"):
        return _trust_region(asked) if plateau.present else None
    if not math.isfinite(asked.lr) or asked.lr <= 0:
        return None
    start = _equal_chain(asked)
    if start is not None:  # its laws are exact wherever it starts
        return _on_chain(asked, *start)
    return _on_network(asked) if plateau.present else None


def _on_network(asked: _Asked) -> Prediction | None:
    floor, typical = asked.floor, asked.typical
    if floor is None or typical is None:
        return None
    if math.isinf(floor.floor):
        return _descent(asked)
    above = _above(asked)
    if typical > floor.floor / 10:
        return above
    return _below(asked, floor, above)


def _descent(asked: _Asked) -> Prediction | None:
    """Gradient descent: gradient flow in steps of the learning rate."""
    plateau, rate = asked.plateau, asked.lr
    momentum = asked.setting("momentum", 0.0)
    largest = plateau.highest
    if largest is not None and largest > 0 and asked.setting("lr", 0.0) * largest > 2 * (1 + momentum):
        return None  # it is thrown about, and laws of small steps say nothing
    found = _flow_steps(asked, rate)
    if found is None:
        return None
    steps, how = found
    lag = momentum / (1 - momentum)
    beside = f", which momentum {momentum:g} multiplies by {1 / (1 - momentum):.3g}" if momentum else ""
    return Prediction(
        law="gradient descent",
        typical=max(1.0, steps.typical + lag),
        low=max(1.0, steps.low),
        high=max(1.0, steps.high + 2 * lag),
        says=f"{how} at the learning rate {asked.setting('lr', 0.0):g}{beside}",
    )


def _flow_steps(asked: _Asked, rate: float) -> tuple[Escape, str] | None:
    """Steps of gradient descent, and how they are known; with decay of the weights, which may win."""
    found = _undecayed(asked, rate)
    if found is None or not asked.shrinking:
        return found
    steps, how = found
    how = f"{how} while weight decay shrinks curvature e-fold in {number(1 / asked.shrinking, 2)} steps,"
    return _slowed(asked, steps), how


def _slowed(asked: _Asked, steps: Escape) -> Escape:
    """The same steps with decay of the weights."""
    return Escape(*(laws.decayed_steps(one, asked.shrinking) for one in steps))


def _undecayed(asked: _Asked, rate: float) -> tuple[Escape, str] | None:
    """From gradient flow, or else from curvature."""
    plateau = asked.plateau
    bound, ended = 0.0, ""
    if plateau.flow is not None and len(plateau.flow.time) > 1:
        time, ended = _time(asked), plateau.flow.ended
        if time is not None:
            low, high = BAND
            steps = Escape(low * time / rate, time / rate, high * time / rate)
            return steps, f"gradient flow is out after the time {number(time)}:"
        bound = float(plateau.flow.time[-1] or 0.0) / rate
    if ended == "dead":
        never = math.inf
        return Escape(never, never, never), "gradient flow ends where every gradient is zero:"
    if plateau.lowest is None or plateau.lowest >= 0:
        return None
    law = floored_escape(1.0, rate, -plateau.lowest)
    low, high = max(law.low, BAND[0] * bound), max(law.high, 3 * bound)
    how = f"{ESCAPE}/(lr |lambda_min|), lambda_min = {number(plateau.lowest)},"
    if bound > law.low:
        late = " (followed no further for want of time)" if ended == "late" else ""
        how = f"gradient flow is not out after the time {number(bound * rate)}{late}, "
        how += f"lambda_min = {number(plateau.lowest)},"
    return Escape(low, max(law.typical, 1.5 * bound), high), how


def _time(asked: _Asked) -> float | None:
    """When gradient flow reaches the level; `None` where it was not followed so far."""
    flow = asked.plateau.flow
    if flow is None:
        return None
    times, losses = np.array(flow.time, float), np.array(flow.loss, float)
    below = np.flatnonzero(losses <= asked.level * (1 + 1e-9))
    if not below.size:
        return None
    at = int(below[0])
    if not at:
        return float(times[0])
    share = (losses[at - 1] - asked.level) / (losses[at - 1] - losses[at])
    return float(times[at - 1] + min(max(share, 0.0), 1.0) * (times[at] - times[at - 1]))


def _below(asked: _Asked, floor: Floor, above: Prediction | None) -> Prediction | None:
    """Below its floor: gradient descent with another learning rate, until the gradient has grown to the floor."""
    rate, lowest, highest = asked.lr * floor.kappa, asked.plateau.lowest, asked.plateau.highest
    if lowest is not None and highest is not None and highest > max(APART * abs(lowest), 2 / rate):
        return None  # biases curve that have learnt the constant: their gradients are above the floor
    found = _flow_steps(asked, rate)
    if found is None:
        return None
    steps, how = found
    crossing = _crossing(asked, floor)
    if crossing is not None and crossing < math.inf:
        low, high = BAND
        steps = _slowed(asked, Escape(low * crossing / rate, crossing / rate, high * crossing / rate))
        if above is None and steps.typical < REST:
            return None
    rest = (above.low or 0.0, above.typical or 0.0, above.high or 0.0) if above is not None else (0.0, 0.0, 0.0)
    return Prediction(
        law="floor",
        low=max(1.0, steps.low),
        typical=max(1.0, steps.typical + rest[1]),
        high=max(1.0, steps.high + rest[2]),
        says=f"below its floor {number(floor.floor)} it is SGD with the step {number(rate)}: {how}",
    )


def _crossing(asked: _Asked, floor: Floor) -> float | None:
    """When the gradient has grown to the floor, along gradient flow."""
    flow, typical, entry = asked.plateau.flow, asked.typical, asked.plateau.gradient_median
    if flow is None or typical is None or not entry:
        return None
    sizes = np.array(flow.gradient, float) * (typical / entry)
    over = np.flatnonzero(sizes >= floor.floor)
    return float(np.array(flow.time, float)[over[0]]) if over.size else None


def _above(asked: _Asked) -> Prediction | None:
    """Above its floor, steps have a size of their own."""
    shape = _shape(asked.model)
    if shape is None:
        return None
    gain, width = shape
    name, rate = asked.name, asked.setting("lr", math.nan)
    if name == "rmsprop":
        if width * asked.lr / math.sqrt(1 - asked.setting("alpha", 0.99)) > LEAP_OF_RMSPROP:
            return None
        steps = laws.width_steps(width, asked.lr, asked.setting("alpha", 0.99))
        return _law("width", steps, f"width {width} times the sum of step sizes comes to {laws.WIDTH.typical:g}")
    if name == "muon":
        steps = laws.growth_steps(gain, laws.MUON_GROWTH * rate)
        return _law("growth", steps, f"each layer's gain grows from {number(gain)} to 1 by 0.7 lr a step")
    if name in SIGNS:
        size = rate * (asked.floor.cap if asked.floor is not None else 1.0)
        if width * size > LEAP_OF_SIGNS:
            return None
        steps = laws.growth_steps(gain, laws.SIGN_GROWTH * width * size)
        return _law(
            "growth", steps, f"each layer's gain grows from {number(gain)} to 1 by 0.3 width lr a step, width {width}"
        )
    return None


def _law(law: str, steps: Escape, says: str) -> Prediction:
    return Prediction(law=law, low=float(steps.low), typical=float(steps.typical), high=float(steps.high), says=says)


def _shape(model: nn.Module) -> tuple[float, int] | None:
    """Gain of a typical layer and its width, of a plain ReLU network; `None` for another."""
    leaves = [module for module in model.modules() if not any(module.children())]
    layers = [module for module in leaves if isinstance(module, nn.Linear)]
    relu = any(isinstance(module, nn.ReLU) for module in leaves)
    if len(layers) < 3 or not relu or not all(isinstance(module, PLAIN) for module in leaves):
        return None
    hidden = layers[1:-1]
    gains = [laws.relu_gain(float(one.weight.detach().double().square().mean()), one.in_features) for one in hidden]
    return float(np.median(gains)), int(np.median([one.in_features for one in hidden]))


def _trust_region(asked: _Asked) -> Prediction | None:
    """A trust region goes as far as it takes, in steps that grow; those of a raw metric have no such length."""
    size, flow, metric = asked.plateau.weight_norm, asked.plateau.flow, asked.name.removeprefix("tr-")
    constants = preset(str(asked.settings.get("preset", "robust")), metric)
    if not size or not (constants.relative or metric == "uniform"):
        return None
    way = flow.travelled[-1] if flow is not None and flow.ended == "out" else None
    usual = START if constants.radius is None else constants.radius / size
    radius = asked.setting("radius", usual * size) / size
    tries, growth = int(asked.setting("tries", constants.tries)), constants.gamma[0]
    longest = radius * growth ** (tries - 1)  # of the first step
    more = laws.growing_radii(float(way or TRUST_RADIUS), longest, growth**tries) - 1
    steps = SEARCHED if tries > 1 else TRUST
    says = f"whatever the flatness: steps from {number(radius)} |w| on, which grow by {growth:g} each"
    says += f", and try up to {tries} lengths" if tries > 1 else ""
    return _law("growth", Escape(steps.low + more / 2, steps.typical + more, steps.high + 2 * more), says)


def _equal_chain(asked: _Asked) -> tuple[int, float, float, float] | None:
    """Length, weight, scale of the loss and the weight at which it is out, of a chain of equal weights.

    `None` for another network or another loss than `scale (1 - product)^2`, as its gradient tells.
    """
    if not isinstance(asked.model, Chain):
        return None
    weights = np.array([float(one.detach()) for one in asked.model.parameters()])
    length, start = len(weights), float(weights[0])
    if length < 3 or not 0 < start < 1 or np.ptp(weights) > SPREAD:
        return None
    scale = asked.plateau.loss / (1 - start**length) ** 2
    slope = 2 * scale * start ** (length - 1) * (1 - start**length) * math.sqrt(length)
    share = asked.level / asked.plateau.loss if asked.plateau.loss else 0.0
    if abs(slope - asked.plateau.gradient_norm) > 1e-6 * slope or not 0 < share < 1:
        return None
    return length, start, scale, laws.chain_end(length, start, share)


def _on_chain(asked: _Asked, length: int, start: float, scale: float, end: float) -> Prediction | None:
    """The chain of equal weights has one unknown, and its laws are exact."""
    name, rate, floor = asked.name, asked.setting("lr", math.nan), asked.floor
    if name == "sgd":
        try:
            steps = flow_time(length, start, end**length) / (2 * scale) / asked.lr
        except SpecError:
            return None
        low, high = EXACT
        says = f"gradient flow along {length} equal weights is out after the time {number(steps * asked.lr)}, exactly"
        steps = _slowed(asked, Escape(steps, steps, steps)).typical
        if math.isinf(steps):
            return Prediction(law="chain", typical=steps, low=steps, high=steps, says=f"{says}; weight decay is faster")
        return Prediction(
            law="chain", typical=steps, low=math.floor(low * steps) - 1, high=math.ceil(high * steps) + 2, says=says
        )
    if floor is None:
        return None
    typical = asked.plateau.gradient_norm / math.sqrt(length)
    if name in SIZES and typical > ABOVE * floor.floor:
        count = _signs(length, start, end, SIZES[name] * rate, asked.decay)
        says = f"{number(end - start)} to go in steps of {number(SIZES[name] * rate)}"
        return Prediction(law="chain", typical=count, low=count, high=count, says=says)
    if name in AVERAGED:
        taken = laws.chain_steps(length, start, end, scale, _divided(asked), decay=asked.decay)
        if taken is not None:
            says = f"{name}'s own equation for {length} equal weights"
            return Prediction(law="chain", typical=taken, low=taken - 1, high=taken + 1, says=says)
    if not floor.kappa < math.inf:
        return None
    steps = laws.floored_chain_steps(
        length,
        start,
        end,
        learning_rate=2 * scale * rate,
        kappa=floor.kappa,
        floor=floor.floor,
        step=SIZES.get(name, floor.cap) * rate,
    )
    says = f"SGD with the step {number(rate * floor.kappa)} up to the floor {number(floor.floor)}, then in steps of lr"
    steps += LAGS.get(name, 0.0)
    low, high = BAND
    slowed = _slowed(asked, Escape(low * steps, steps, high * steps))
    return Prediction(law="chain", typical=slowed.typical, low=slowed.low, high=slowed.high, says=says)


def _signs(length: int, start: float, end: float, step: float, decay: float) -> float:
    """Steps of one size; with decay, which takes a part of each."""
    if not decay:
        return laws.sign_chain_steps(start, end, step)
    taken = laws.chain_steps(length, start, end, 0.5, lambda gradient: math.copysign(step, gradient), decay=decay)
    return math.inf if taken is None else taken


def _divided(asked: _Asked) -> Callable[[float], float]:
    first, second = AVERAGED[asked.name]
    floor = asked.floor
    assert floor is not None
    first = asked.setting("beta1", first)
    second = asked.setting("alpha" if asked.name == "rmsprop" else "beta2", second)
    adagrad, adam = asked.name == "adagrad", asked.name.startswith("adam")
    return laws.divided(asked.lr, first, second, floor.floor, summed=adagrad, corrected=adam)


def _dtype(model: nn.Module) -> str:
    parameter = next(iter(model.parameters()), None)
    return "float32" if parameter is None else str(parameter.dtype).removeprefix("torch.")
