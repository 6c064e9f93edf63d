"""How many steps an optimizer takes to leave a plateau: laws that need no training run.

Below the floor of its epsilon every method is gradient descent (`theory.optimizer_floors`), which takes as long as the
flow does. Above, steps have a size of their own, and what counts is how far it is: a deep ReLU network leaves the
plateau when each layer passes on about what it gets, and the chain of equal weights w when w has come far enough.
Derivations, and what was measured: docs/concepts/escape.md.
"""

import math
from collections.abc import Callable

from hessdiag.errors import SpecError
from hessdiag.theory.chain_plateau import blow_up_time
from hessdiag.theory.optimizer_floors import Escape

WIDTH = Escape(0.2, 0.5, 2.2)  # width times the sum of step sizes at the escape, for RMSprop
MUON_GROWTH = 0.7  # of a layer's gain in a step of Muon, over the learning rate: what its five steps make of a one
SIGN_GROWTH = 0.3  # the same of signs, over width times learning rate: how well a matrix of signs is aligned
GROWTH_LOW, GROWTH_HIGH = 0.5, 2.0  # over the law: the band
AT_ONCE = 0.1  # of a gain: what is missing at least, for steps of a size of their own do not hit it exactly
MOST_STEPS = 200_000  # of the chain's equation, one after another


def relu_gain(variance: float, fan_in: int) -> float:
    """By how much a layer with independent weights multiplies a signal's root mean square, ReLU included.

    >>> relu_gain(2 / 16, 16), round(relu_gain(1 / (3 * 16), 16), 3)
    (1.0, 0.408)
    """
    return math.sqrt(variance * fan_in / 2)


def growth_steps(gain: float, growth: float) -> Escape:
    """Steps until every layer's gain is one, where each step adds the same to all of them.

    Args:
        gain: Of a layer at the start.
        growth: Per step: 0.7 lr for Muon, 0.3 width lr for signs.

    >>> growth_steps(0.707, 0.7 * 0.01).typical
    42
    """
    missing = max(1 - gain, AT_ONCE)
    return Escape(*(math.ceil(share * missing / growth) for share in (GROWTH_LOW, 1, GROWTH_HIGH)))


def accumulated_steps(distance: float, learning_rate: float, decay: float) -> int:
    """The fewest steps of RMSprop that go a distance, with a gradient of one size: the first ones are the longest.

    Step i is `lr / sqrt(1 - decay^i)`, because the average of squares starts at zero.

    >>> accumulated_steps(1.5, 0.1, 0.99), accumulated_steps(1.5, 0.1, 0.0)
    (2, 15)
    """
    gone, steps = 0.0, 0
    while gone < distance * (1 - 1e-12):
        steps += 1
        held = decay**steps
        if held < 1e-12:
            return steps + math.ceil((distance - gone) / learning_rate * (1 - 1e-12)) - 1
        gone += learning_rate / math.sqrt(1 - held)
    return steps


def width_steps(width: int, learning_rate: float, decay: float) -> Escape:
    """Steps of RMSprop off the plateau of a ReLU network: its summed step sizes times the width are about a half.

    >>> width_steps(16, 1e-3, 0.99)
    Escape(low=2, typical=5, high=53)
    """
    return Escape(*(accumulated_steps(product / width, learning_rate, decay) for product in WIDTH))


def decayed_steps(steps: float, shrinking: float) -> float:
    """Steps of gradient descent off a plateau whose gradient decay of the weights shrinks meanwhile.

    Decay by `lr lambda` a step of L layers at once makes curvature fall like `exp(-(L - 2) lr lambda t)`, and the time
    of the flow that t steps add up to is `(1 - exp(-k t)) / k` of it: no more than `1 / k` for ever.

    Args:
        steps: Without decay.
        shrinking: k, the rate per step at which curvature falls.

    Returns:
        Their number; infinite where decay wins.

    >>> round(decayed_steps(10.0, 0.01), 2), decayed_steps(1600.0, 0.062), decayed_steps(10.0, 0.0)
    (10.54, inf, 10.0)
    """
    if not shrinking:
        return steps
    return -math.log1p(-steps * shrinking) / shrinking if steps * shrinking < 1 else math.inf


def sign_chain_steps(start: float, end: float, step: float) -> int:
    """Steps of one size along the chain of equal weights: the distance, exactly.

    >>> sign_chain_steps(0.5, 0.5 + 0.4698, 1e-3)
    470
    """
    return math.ceil((end - start) / step * (1 - 1e-12))


def floored_chain_steps(
    length: int, start: float, end: float, *, learning_rate: float, kappa: float, floor: float, step: float
) -> float:
    """Steps along the chain below an epsilon and, once the gradient `w^{L-1}` is above it, of one size.

    Below, the weights are those of `w' = w^{L-1}` with the step `lr kappa`: `w0^{2-L} / ((L-2) lr kappa)` if the floor
    is far off.

    Args:
        length: Of the chain, L.
        start: Every weight.
        end: Where it is to come.
        learning_rate: lr.
        kappa: Of the floor.
        floor: Gradient below which the method is gradient descent.
        step: Its size above.

    >>> steps = floored_chain_steps(40, 0.5, 0.9698, learning_rate=1e-2, kappa=1e10, floor=1e-10, step=1e-2)
    >>> round(steps, 1)  # 71 below, and 42 of 0.01
    112.4
    """
    crossing = min(max(math.exp(math.log(floor) / (length - 1)), start), end) if floor > 0 else start
    if crossing <= start:
        return (end - start) / step
    below = blow_up_time(length, start) - blow_up_time(length, crossing)
    return below / (learning_rate * kappa) + (end - crossing) / step


def chain_end(length: int, start: float, level: float) -> float:
    """The weight of the chain of equal weights at which `(1 - w^L)^2` has fallen to a share of what it was.

    >>> round(chain_end(5, 0.5, 0.5) - 0.5, 4), round(chain_end(80, 0.5, 0.5) - 0.5, 4)
    (0.2937, 0.4848)
    """
    return math.pow(1 - math.sqrt(level) * (1 - start**length), 1 / length)


def chain_steps(
    length: int, start: float, end: float, scale: float, step: Callable[[float], float], *, decay: float = 0.0
) -> int | None:
    """Steps of an optimizer along the chain of equal weights, whose equation has one unknown.

    Args:
        length: Of the chain.
        start: Every weight.
        end: Where it is to come.
        scale: Of the loss `scale (1 - w^L)^2`.
        step: Given the gradient, what the optimizer subtracts; it may remember.
        decay: What every step takes of the weight before, as a share: lr times decoupled weight decay.

    Returns:
        Their number; `None` if it is more than 200,000.

    >>> chain_steps(10, 0.5, chain_end(10, 0.5, 0.5), 0.5, lambda gradient: 0.1 * gradient)
    322
    """
    weight = start
    for steps in range(1, MOST_STEPS + 1):
        gradient = -2 * scale * weight ** (length - 1) * (1 - weight**length)
        weight = weight * (1 - decay) - step(gradient)
        if weight >= end:
            return steps
    return None


def divided(
    learning_rate: float, first: float, second: float, epsilon: float, *, summed: bool = False, corrected: bool = True
) -> Callable[[float], float]:
    """What Adam, RMSprop or Adagrad subtract from one weight, for one gradient after another.

    Args:
        learning_rate: lr.
        first: Decay of the average of gradients; 0 for RMSprop and Adagrad.
        second: Decay of the average of squares.
        epsilon: Added to its root.
        summed: Whether squares are added up, as Adagrad does.
        corrected: Whether averages are corrected for their start at zero, as Adam's are.

    >>> adam = divided(1e-3, 0.9, 0.999, 1e-8)
    >>> round(adam(0.5), 9), round(adam(-0.5), 9)
    (0.001, -5.2632e-05)
    """
    mean = squares = 0.0
    count = 0

    def step(gradient: float) -> float:
        nonlocal mean, squares, count
        count += 1
        mean = first * mean + (1 - first) * gradient
        squares = squares + gradient**2 if summed else second * squares + (1 - second) * gradient**2
        ahead, behind = (1 - first**count, 1 - second**count) if corrected and not summed else (1.0, 1.0)
        bottom = math.sqrt(squares / behind) + epsilon
        return learning_rate * mean / ahead / bottom if bottom else 0.0

    return step


def growing_radii(distance: float, radius: float, growth: float) -> int:
    """Steps of a trust region that go a distance, where every step may be longer than the one before.

    Args:
        distance: To go.
        radius: Of the first step.
        growth: Factor from one step to the next, above 1.

    Raises:
        SpecError: for a region that does not grow.

    >>> growing_radii(7.0, 1.0, 2.0), growing_radii(0.5, 1.0, 2.0)
    (3, 1)
    """
    if growth <= 1:
        raise SpecError(f"the region must grow, and not by a factor of {growth:g}.", "growth=1.5")
    return max(1, math.ceil(math.log1p(distance / radius * (growth - 1)) / math.log(growth) * (1 - 1e-12)))
