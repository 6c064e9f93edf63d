"""What norms and traces of layer blocks prove of negative curvature."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hessdiag.linalg.eigenpairs import ROUNDING as NOISE
from hessdiag.numbers import number
from hessdiag.problem.layers import Layer
from hessdiag.questions.blocks.result import IndefinitePair
from hessdiag.questions.common.certificate import Witness

Floats = NDArray[np.float64]


def indefinite(layers: Sequence[Layer], norms: Floats, rounding: float) -> IndefinitePair | None:
    """The pair of layers with the largest |H_lm|^2 - |H_ll| |H_mm|, if that is positive beyond rounding.

    Of blocks that are known; NaN stands for the others. A semidefinite matrix has blocks A_l'A_m, and
    |A_l'A_m|^2 = <A_lA_l', A_mA_m'> is at most |A_l'A_l| |A_m'A_m|.
    """
    own = np.outer(norms.diagonal(), norms.diagonal())
    excess = np.nan_to_num(norms**2 - own, nan=-np.inf, posinf=np.inf)
    row, column = (int(index) for index in np.unravel_index(np.argmax(excess), excess.shape))
    if row == column or excess[row, column] <= rounding * float(np.nansum(norms**2)):
        return None
    below = float(own[row, column])
    ratio = float(norms[row, column]) ** 2 / below if below else math.inf
    return IndefinitePair((layers[min(row, column)].name, layers[max(row, column)].name), ratio)


def witnesses(
    layers: Sequence[Layer],
    norms: Floats,
    traces: Floats,
    *,
    pair: IndefinitePair | None,
    exact: bool,
    precision: float,
) -> list[Witness]:
    """What norms and traces of the blocks say of the smallest eigenvalue.

    With M = H - lambda_min positive semidefinite, |H_lm|^2 <= |M_ll| |M_mm|, and |M_ll| is at most |H_ll| - lambda_min
    sqrt(n_l): the root of a quadratic. The mean of a block's diagonal, and v'Hv of random signs v on the layer over
    their number, are Rayleigh quotients or means of some.

    Args:
        layers: In the order of execution.
        norms: |H_lm|, (L, L); NaN where it is not known.
        traces: tr H_ll, or v'Hv for some v each, (samples, L); likewise.
        pair: The one that `indefinite` found.
        exact: Whether traces are meant.
        precision: Relative error of products.
    """
    found = []
    sizes = np.array([layer.size for layer in layers], dtype=float)
    if pair is not None:
        names = [layer.name for layer in layers]
        first, second = (names.index(name) for name in pair.layers)
        a, b, c = norms[first, first], norms[second, second], norms[first, second]
        left, right = np.sqrt(sizes[[first, second]])
        linear, square = a * right + b * left, left * right
        depth = 2 * (c * c - a * b) / (linear + math.sqrt(linear**2 + 4 * square * (c * c - a * b)))
        says = f"layers {pair.layers[0]} and {pair.layers[1]} couple more strongly than a semidefinite matrix allows"
        found.append(Witness(-float(depth), says, 0.0))
    if np.isfinite(traces).any():
        means = traces.min(0) / sizes
        lowest = int(np.nanargmin(means))
        what = "the mean of the diagonal" if exact else "v'Hv / v'v, for random signs v,"
        says = f"{what} of layer {layers[lowest].name} is {number(means[lowest], 4)}"
        found.append(Witness(float(means[lowest]), says, NOISE * precision * float(np.sqrt(np.nansum(norms**2)))))
    return found
