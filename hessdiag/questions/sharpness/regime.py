"""Which reading decides, and what it says: stable, at the edge, or not."""

from dataclasses import replace

from hessdiag.questions.sharpness.result import Kind, Reading, Regime, Sharpness
from hessdiag.theory.stability import EDGE

DECIDE: tuple[Kind, ...] = ("preconditioned", "lambda_max", "directional")  # the first that has a ratio


def decided(found: Sharpness) -> Sharpness:
    """With what the deciding reading says: of an eigenvalue where the optimizer has one, else of its next step."""
    ratios = {one.kind: one for one in found.readings if one.ratio is not None}
    optimizer = found.optimizer
    kinds = DECIDE if optimizer is None or optimizer.constant is not None else DECIDE[-1:]
    deciding = next((ratios[kind] for kind in kinds if kind in ratios), None)
    if deciding is None or optimizer is None:
        return found
    state = regime(deciding)
    lr = largest_lr(found, deciding)
    error = (
        None
        if lr is None or deciding.ratio_stderr is None or not deciding.ratio
        else deciding.ratio_stderr / deciding.ratio
    )
    return replace(
        found,
        decided_by=deciding.kind,
        threshold=deciding.threshold,
        ratio=deciding.ratio,
        ratio_stderr=deciding.ratio_stderr,
        regime=state,
        stable={"stable": True, "unstable": False}.get(state or ""),
        largest_lr=lr,
        largest_lr_stderr=None if lr is None or error is None else lr * error,
    )


def regime(reading: Reading) -> Regime | None:
    """What a ratio says; `None` where a bound leaves it open.

    >>> [regime(Reading(kind="lambda_max", value=3.0, ratio=ratio)) for ratio in (0.9, 1.03, 1.2)]
    ['stable', 'edge', 'unstable']
    """
    assert reading.ratio is not None
    error = reading.ratio_stderr or 0.0
    if reading.ratio - error > 1 + EDGE:
        return "unstable"
    if reading.bound == "lower":
        return None
    return "stable" if reading.ratio + error < 1 - EDGE else "edge"


def largest_lr(found: Sharpness, deciding: Reading) -> float | None:
    """At which the ratio is 1, the optimizer's state and everything else as it is; `None` where nothing curves up.

    Decoupled weight decay takes its share of the 2 that thresholds begin with, the more the larger the rate.
    """
    optimizer, value = found.optimizer, deciding.value
    if optimizer is None or deciding.ratio is None or value is None or not deciding.ratio > 0:
        return None
    lr, decay = optimizer.lr, optimizer.weight_decay or 0.0
    if deciding.kind == "directional" or optimizer.constant is None or not decay:
        return lr / deciding.ratio
    if optimizer.coupled:
        return optimizer.constant / (value + (decay if deciding.kind == "lambda_max" else 0.0))
    whole = 2 * optimizer.constant / (2 - lr * decay)
    return whole / (value + whole * decay / 2)
