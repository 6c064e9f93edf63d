"""muP: initial sizes and learning rates with which a network of any width learns alike (Yang et al., arXiv 2203.03466).

A tensor's role follows from which of its sides grow with the width. Table 3 of the paper, with base learning rates: the
output layer starts smaller by 1/sqrt(width) than it otherwise would, and learning rates grow as a power of the width
that depends on the optimizer. Networks whose optimizer divides the gradient by its size need other powers than those
of gradient descent.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from hessdiag.errors import SpecError

Role = Literal["input", "hidden", "output", "vector", "fixed"]
Family = Literal["sgd", "adam"]

POWERS: dict[Family, dict[Role, int]] = {  # of the width, in the learning rate
    "sgd": {"input": 1, "hidden": 0, "output": -1, "vector": 1, "fixed": 0},
    "adam": {"input": 0, "hidden": -1, "output": -1, "vector": 0, "fixed": 0},
}
FAMILIES: dict[str, Family] = {
    "sgd": "sgd",
    **dict.fromkeys(("adam", "adamw", "adamax", "nadam", "radam", "rmsprop", "adagrad", "adadelta", "lion"), "adam"),
}
PARAMETRIZATIONS = ("standard", "mup")


def role(small: Sequence[int], large: Sequence[int], *, embedding: bool = False) -> Role:
    """What a tensor is, by its shapes in a narrow and in a wide network.

    Args:
        small: Shape in the narrow one: (outputs, inputs, ...) of a matrix, (width,) of a bias or gain.
        large: In the wide one.
        embedding: Whether it is a table of vectors, (entries, width), which has no inputs that grow.

    >>> role((64, 10), (256, 10)), role((64, 64), (256, 256)), role((10, 64), (10, 256)), role((64,), (256,))
    ('input', 'hidden', 'output', 'vector')
    """
    outs, ins = growth(small, large, embedding=embedding)
    if len(small) < 2:
        return "vector" if outs != 1 else "fixed"
    if outs != 1:
        return "hidden" if ins != 1 else "input"
    return "output" if ins != 1 else "fixed"


def growth(small: Sequence[int], large: Sequence[int], *, embedding: bool = False) -> tuple[float, float]:
    """By what factor outputs and inputs grow.

    >>> growth((64, 10), (256, 10))
    (4.0, 1.0)
    """
    if len(small) < 2:
        return (large[0] / small[0] if small else 1.0), 1.0
    ratios = [after / before for before, after in zip(small, large, strict=True)]
    outs, ins = (ratios[1], ratios[0]) if embedding else (ratios[0], ratios[1])
    return outs, ins


def multiplier(family: Family, small: Sequence[int], large: Sequence[int], *, embedding: bool = False) -> float:
    """What muP multiplies a tensor's learning rate by in the wide network, where the narrow one has the base rate.

    >>> multiplier("sgd", (64, 10), (256, 10)), multiplier("adam", (64, 64), (256, 256))
    (4.0, 0.25)
    """
    outs, ins = growth(small, large, embedding=embedding)
    power = POWERS[family][role(small, large, embedding=embedding)]
    return float((outs if power > 0 else ins) ** power)


def refuse_unknown(parametrization: str) -> None:
    """Refuse a parametrization that there is none of.

    Raises:
        SpecError: if it is another than standard and mup.
    """
    if parametrization not in PARAMETRIZATIONS:
        names = " or ".join(map(repr, PARAMETRIZATIONS))
        raise SpecError(f"unknown parametrization {parametrization!r}: {names}.", "parametrization='mup'")


def start_small(output: nn.Linear, parametrization: str, base_width: int) -> None:
    """Make an output layer's initial weights those of the parametrization: with muP smaller by sqrt(base / width).

    Raises:
        SpecError: if the parametrization is unknown, or the base below 1.

    >>> layer = nn.Linear(4, 1)
    >>> _ = nn.init.ones_(layer.weight)
    >>> start_small(layer, "mup", base_width=1)
    >>> layer.weight.tolist()
    [[0.5, 0.5, 0.5, 0.5]]
    """
    refuse_unknown(parametrization)
    if base_width < 1:
        raise SpecError(f"base_width must be at least 1, not {base_width}.", "base_width=64")
    if parametrization == "mup":
        with torch.no_grad():
            output.weight.mul_((base_width / output.in_features) ** 0.5)
