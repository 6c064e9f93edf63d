"""What to try against gradients that vanish or explode with depth: as the case is, and as it was seen to train.

docs/concepts/vanishing.md has the runs behind each: an optimizer whose epsilon is far above the gradient trains nothing,
and residual connections with normalization train more than a hundred layers.
"""

import math

from hessdiag.numbers import number
from hessdiag.questions.common.adaptive_verdict import remedy, smaller_epsilon, stuck
from hessdiag.questions.common.ensembles.prediction import Theory
from hessdiag.questions.vanishing.result import DepthNorms, Vanishing

RESIDUAL = "residual connections with normalization"
SMALL_RATE = "a learning rate of 3e-4 or less"


def against_explosion(measured: Vanishing, last: DepthNorms, theory: Theory | None) -> str:
    """What keeps gradients from growing with depth."""
    if last.width is None:
        return "a smaller gain (hessdiag forward MODEL --solve median finds one); or normalization and residual connections together, for each alone explodes"
    if theory is None:
        return _solved(measured, last)
    if not theory.critical_width_per_depth > 0:  # so narrow that the closed form fails
        return f"width near the depth (--width same), a gain that keeps the forward norm; or {RESIDUAL}"
    return _scaled(theory)


def against_decay(measured: Vanishing, last: DepthNorms, theory: Theory | None, gradient: float) -> str:
    """What keeps gradients from shrinking with depth, or trains in spite of it.

    Args:
        measured: The result.
        last: Its deepest networks.
        theory: Closed forms for them.
        gradient: A typical entry of the gradient, in the layer that gets least.
    """
    if last.width is None:
        return _of_a_model(measured, last, gradient)
    if theory is None:
        return f"{_solved(measured, last)}; or {RESIDUAL}; {_optimizer(gradient)}"
    if not theory.critical_width_per_depth > 0:
        return f"width near the depth (--width same), a gain that keeps the forward norm; or {RESIDUAL}; {_optimizer(gradient)}"
    width = f"width {math.ceil(theory.critical_width_per_depth * last.depth):,} or more"
    if not theory.keeps_mean_square:
        return f"{_scaled(theory)}; then {width} at this depth; {_optimizer(gradient)}"
    gain = number(1 / theory.typical_growth, 5)
    return f"{RESIDUAL}; or, with {SMALL_RATE}, {width} at this depth, which keeps half of the typical norm, or weights scaled by {gain}; {_optimizer(gradient)}"


def _of_a_model(measured: Vanishing, last: DepthNorms, gradient: float) -> str:
    padded = last.padding_factor is not None and last.padding_factor < 1
    padding = "; padding other than zeros where images are small" if padded else ""
    if measured.init is None:
        first = "He initialization with zero biases for ReLU, Xavier for tanh, which takes the place of sigmoid (--init he_normal, xavier_normal show what they change)"
    else:
        first = "a gain that keeps the forward norm (hessdiag forward MODEL --solve median)"
    return f"{first}; or {RESIDUAL}; or fewer layers{padding}; {_optimizer(gradient)}"


def _optimizer(gradient: float) -> str:
    if not gradient or not stuck(gradient):
        return remedy(gradient)
    return (
        f"{remedy(gradient)} (with {smaller_epsilon(gradient)} Adam trained ReLU networks, slowly, and no sigmoid ones)"
    )


def _solved(measured: Vanishing, last: DepthNorms) -> str:
    init = measured.init.replace("_", "-") if measured.init else ""
    return f"the gain of hessdiag forward --depth {last.depth} --width {last.width} --activation {measured.activation} --init {init} --solve median"


def _scaled(theory: Theory) -> str:
    """By what to scale weights that do not keep the mean square."""
    gain = theory.mean_square_growth**-0.5
    return f"scale the weights by {number(gain, 5)}, for a layer multiplies the mean square by {number(theory.mean_square_growth)}"
