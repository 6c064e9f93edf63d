"""How long the plateau of the width-one network holds an optimizer that starts at L equal weights w < 1.

Under gradient flow `w' = w^{L-1} - w^{2L-1}` for the loss `(w^L - 1)^2 / 2`, which separates, so the time is known
exactly. It is exponential in L; an optimizer that divides by the gradient's own size needs no more than the distance.
Derivations: docs/concepts/chain.md.
"""

import math

from scipy.special import hyp2f1

from hessdiag.errors import SpecError


def blow_up_time(length: int, start: float) -> float:
    """When `w' = w^{L-1}`, which is never slower than the flow, reaches infinity: `w^{2-L} / (L - 2)`.

    Args:
        length: Number of weights, at least 3.
        start: Value of each weight, between 0 and 1.

    Returns:
        The time; inf beyond the range of float64.

    Raises:
        SpecError: for a shorter chain, which has no plateau, or another start.

    >>> blow_up_time(10, 0.5)
    32.0
    """
    _check(length, start, 1.0)
    return _power(start, 2 - length) / (length - 2)


def flow_time_bound(length: int, start: float, target: float) -> float:
    """A lower bound on the time that gradient flow takes until the output is `target`: that of `w' = w^{L-1}`.

    Raises:
        SpecError: as `flow_time` does.

    >>> flow_time_bound(10, 0.5, 1.0), round(flow_time_bound(10, 0.5, 0.5), 3)
    (31.875, 31.782)
    """
    _check(length, start, target)
    return blow_up_time(length, start) - _power(target, (2 - length) / length) / (length - 2)


def flow_time(length: int, start: float, target: float) -> float:
    """The time that gradient flow takes until the output is `target`.

    `dt = dw / (w^{L-1} (1 - w^L))` in a geometric series: the first term is `flow_time_bound`, the others add up to
    `w^2/2 2F1(1, 2/L; 1 + 2/L; w^L)` between the ends.

    Args:
        length: Number of weights, at least 3.
        start: Value of each weight, between 0 and 1.
        target: Output at the end, between `start^length` and 1.

    Raises:
        SpecError: if an argument is out of range.

    >>> round(flow_time(10, 0.5, 0.5), 4)
    32.1444
    """
    if target == 1:
        raise SpecError("gradient flow takes forever until the output is 1.", "target=0.5")

    def rest(output: float) -> float:
        return _power(output, 2 / length) / 2 * float(hyp2f1(1, 2 / length, 1 + 2 / length, output))

    return flow_time_bound(length, start, target) + rest(target) - rest(_power(start, length))


def rmsprop_time_bound(length: int, start: float, target: float) -> float:
    """An upper bound on the time of `w' = g / sqrt(E)`, E a lagged average of `g^2`: the distance, so below 1.

    While the gradient g grows, that is up to the output `theory.chain.peak(length)`, E is below `g^2` and `w' >= 1`.

    Raises:
        SpecError: as `flow_time` does, and for a target beyond the peak.

    >>> round(rmsprop_time_bound(10, 0.5, 0.4), 4), round(rmsprop_time_bound(1000, 0.5, 0.4), 4)
    (0.4124, 0.4991)
    """
    _check(length, start, target)
    if target > (length - 1) / (2 * length - 1):
        raise SpecError("the bound holds up to the gradient's peak, output (L - 1) / (2L - 1).", "target=0.4")
    return _power(target, 1 / length) - start


def _check(length: int, start: float, target: float) -> None:
    if length < 3:
        raise SpecError(f"a chain of {length} weights has no plateau.", "length=3 or more")
    if not 0 < start < 1:
        raise SpecError(f"the start must lie between 0 and 1, not at {start:g}.", "start=0.5")
    if not _power(start, length) <= target <= 1:
        raise SpecError(f"the target must lie between the first output and 1, not at {target:g}.", "target=0.5")


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
