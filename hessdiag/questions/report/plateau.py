"""Whether there is a plateau to leave, by what `check` found. Pure: its document in, a reason out."""

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from hessdiag.numbers import number
from hessdiag.questions import registry

FLAT = 1e-3  # of the loss: what a change of a layer's weights by their own size changes, to first order, on a plateau


def no_plateau(check: Mapping[str, Any] | None) -> str | None:
    """Why there is nothing to escape from; `None` where there is.

    A network that is stuck need not be on a plateau: where steps are too large, or the loss is the wrong one, its
    gradient is as large as any. A race of optimizers then tells nothing of the cause.

    Args:
        check: The "result" of its document; `None` where it has no answer.
    """
    if check is None:
        return "check, which says whether the loss is stuck, has no answer"
    if check["trained"]:
        return "the network is trained: there is no plateau to leave"
    broken: float = registry.question("check").module("result").BROKEN
    if check["trains"] is not False and (check["confidence"] or 0.0) < broken:
        return "check finds nothing that keeps the loss from falling"
    slope = steepness(check)
    if slope is None or slope < FLAT:
        return None
    cause = next((one["id"].replace("_", " ") for one in check["causes"]), "")
    reason = f": the cause is another, {cause}" if cause else ""
    return f"the gradient is no plateau's, {number(slope, 2)} of the loss for all of a layer's weights{reason}"


def steepness(check: Mapping[str, Any]) -> float | None:
    """By how much of itself a change of a layer's weights by their own size changes the loss, in most layers at most.

    |g||w| / loss, the median of layers with weights; `None` where that is not known.

    >>> layer = {"gradient_rms": 1e-9, "weight_rms": 0.5, "parameters": 100}
    >>> round(steepness({"output": {"loss": 2.0}, "step": None, "layers": [layer]}), 12)
    2.5e-08
    """
    output, step = check["output"] or {}, check["step"] or {}
    loss = output.get("loss") or step.get("before")
    known = [
        layer["gradient_rms"] * layer["weight_rms"] * layer["parameters"]
        for layer in check["layers"]
        if _real(layer["gradient_rms"]) and _real(layer["weight_rms"])
    ]
    return median(known) / abs(loss) if known and _real(loss) and loss else None


def _real(value: object) -> bool:
    """Whether it is a number: what is none stands as a word in a document."""
    return isinstance(value, (int, float)) and math.isfinite(value)
