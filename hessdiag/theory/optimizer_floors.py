"""Below which gradient an adaptive optimizer no longer divides by it: the epsilon in its denominator takes over.

An update `lr g / (|g| + eps)` is `lr` whatever the gradient's size, as long as that is far above eps. Far below, it is
`lr g / eps`: gradient descent with the step `lr / eps`, which shrinks with the gradient. Forms and defaults are of the
optimizers' code: `torch.optim` 2.13, and `pytorch_optimizer` 4.1 for Lion, Shampoo, SOAP and Sophia.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

Of = Literal["entry", "matrix"]

ENTRY_EPSILON = {  # of g / (|g| + eps)
    "adam": 1e-8, "adamw": 1e-8, "nadam": 1e-8, "radam": 1e-8, "adamax": 1e-8, "sparseadam": 1e-8, "rmsprop": 1e-8,
    "soap": 1e-8, "adagrad": 1e-10,
}  # fmt: skip
SIGNS = ("lion", "signsgd")
MUON_GAIN = 485.0  # of small singular values in its five steps of Newton and Schulz: 3.4445^5
SOPHIA_CAP = 0.01
MACHINE_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
SMALLEST_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}
ESCAPE, ESCAPE_LOW, ESCAPE_HIGH = 2.6, 1.4, 16.0


@dataclass(frozen=True)
class Floor:
    """What an optimizer makes of a constant gradient g: steps of `lr cap |g| / (|g| + floor)`.

    Attributes:
        floor: In the gradient's units: far above it, steps do not depend on the gradient's size; far below, they are
            `lr kappa |g|`. Infinite for gradient descent, 0 for an optimizer that takes signs.
        cap: The largest step, over the learning rate; infinite for gradient descent.
        kappa: `cap / floor`: by how much the learning rate is multiplied below the floor; 1 for gradient descent,
            infinite for signs.
        of: Whether |g| is of one entry, or the Frobenius norm of a weight matrix's gradient.
    """

    floor: float
    cap: float
    kappa: float
    of: Of = "entry"


class Escape(NamedTuple):
    """Steps until a plateau is left: the typical number, and the band in which measured ones lay."""

    low: float
    typical: float
    high: float


def floor_of(optimizer: str, *, epsilon: float | None = None, dtype: str = "float32") -> Floor | None:
    """The floor of an optimizer by the name of its class.

    Args:
        optimizer: As "Adam" or "torch.optim.AdamW".
        epsilon: Its eps (Adafactor: the first of both; Shampoo: `matrix_eps`). Default: that of its class.
        dtype: Of the parameters, on which Adafactor's default depends.

    Returns:
        The floor; `None` for an optimizer that is not known.

    >>> floor_of("Adam").floor, floor_of("Adam").kappa, floor_of("SGD").kappa, floor_of("Lion").floor
    (1e-08, 100000000.0, 1.0, 0.0)
    """
    name = optimizer.rsplit(".", 1)[-1].lower().replace("_", "")
    if name in ENTRY_EPSILON:
        return _divided(ENTRY_EPSILON[name] if epsilon is None else epsilon)
    if name in SIGNS:
        return Floor(0.0, 1.0, math.inf)
    if name in ("sgd", "asgd"):
        return Floor(math.inf, math.inf, 1.0)
    if name == "adafactor":
        return _divided(MACHINE_EPSILON[dtype] if epsilon is None else epsilon)
    if name == "muon":
        return _divided((1e-7 if epsilon is None else epsilon) / MUON_GAIN, of="matrix")
    if name == "shampoo":
        return _divided(math.sqrt(1e-6 if epsilon is None else epsilon), of="matrix")
    if name in ("sophia", "sophiah"):
        return _divided(SOPHIA_CAP * (1e-12 if epsilon is None else epsilon), cap=SOPHIA_CAP)
    return None


def _divided(floor: float, *, cap: float = 1.0, of: Of = "entry") -> Floor:
    return Floor(floor, cap, cap / floor if floor else math.inf, of)


def effective_step(floor: Floor, gradient: float, learning_rate: float) -> float:
    """The size of a step, for a gradient that has stayed the same for long.

    Args:
        floor: Of the optimizer.
        gradient: Size of what `floor.of` says.
        learning_rate: lr.

    Example:
        >>> adam = floor_of("Adam")
        >>> f"{effective_step(adam, 1e-3, 0.1):.4f} {effective_step(adam, 4e-18, 0.1):.1e}"
        '0.1000 4.0e-11'
    """
    size = abs(gradient)
    if not size:
        return 0.0
    if math.isinf(floor.floor):
        return learning_rate * floor.kappa * size
    return learning_rate * floor.cap * size / (size + floor.floor)


def squares_underflow(dtype: str) -> float:
    """The gradient below which its square loses digits, and then is 0: an optimizer that averages squares has none.

    With an epsilon that is smaller still, steps are then `lr g / eps`, and larger than lr.

    >>> f"{squares_underflow('float32'):.1e} {squares_underflow('float64'):.1e}"
    '1.1e-19 1.5e-154'
    """
    return math.sqrt(SMALLEST_NORMAL[dtype])


def floored_escape(kappa: float, learning_rate: float, curvature: float) -> Escape:
    """Steps that an optimizer far below its floor takes to leave a plateau by its most negative curvature.

    Growth is `exp(lr kappa |lambda_min| t)`, and curvature itself grows on the way; the constants are measured on deep
    ReLU networks with optimizers of every kind.

    Args:
        kappa: Of the floor.
        learning_rate: lr.
        curvature: |lambda_min| of the Hessian.

    Example:
        >>> round(floored_escape(1e3, 0.1, 1.8e-4).typical)
        144
    """
    rate = learning_rate * kappa * curvature
    if not rate:
        return Escape(math.inf, math.inf, math.inf)
    return Escape(ESCAPE_LOW / rate, ESCAPE / rate, ESCAPE_HIGH / rate)
