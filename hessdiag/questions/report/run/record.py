"""What a look of a `Monitor` finds, and the lines of its log: plain data, no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hessdiag.fields import Count, Number
from hessdiag.report.document import plain

SCHEMA = "hessdiag-run/1"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One quantity at one step. What is `None` or empty stands in no log.

    Attributes:
        value: It; `None` where it was not measured, see `why`.
        stderr: How far it can be off: an estimate's standard error, or an eigenvalue's residual |Hv - value v|, within
            which there is an eigenvalue. `None` of what is exact up to rounding.
        converged: Whether an eigenvalue's residual was small enough; if not, the value is a bound.
        bound: Whether the true value is at or above ("lower"), or at or below it ("upper").
        threshold: Of `sharpness`: the curvature at which the optimizer is at the edge of stability now.
        curvature: Of `sharpness`: the largest eigenvalue in the optimizer's metric. `value` is that over `threshold`.
        optimizer: Of `sharpness`: its settings now.
        proven: Of `negative_curvature`: whether v'Hv < 0 was seen.
        layers: The same of each layer, by name.
        products: Hessian-vector products spent on it.
        seconds: Spent on it.
        why: Why there is no value.
    """

    value: Number
    stderr: Number = field(default=None, metadata={"optional": True})
    converged: bool | None = field(default=None, metadata={"optional": True})
    bound: Literal["lower", "upper"] | None = field(default=None, metadata={"optional": True})
    threshold: Number = field(default=None, metadata={"optional": True})
    curvature: Number = field(default=None, metadata={"optional": True})
    optimizer: str | None = field(default=None, metadata={"optional": True})
    proven: bool | None = field(default=None, metadata={"optional": True})
    layers: Mapping[str, Number] | None = field(default=None, metadata={"optional": True})
    products: Count = 0
    seconds: float = 0.0
    why: str | None = field(default=None, metadata={"optional": True})


@dataclass(frozen=True, kw_only=True)
class Record:
    """One look, or why there was none.

    Attributes:
        step: Steps of the optimizer that were made before it.
        readings: By the name of the quantity; empty of a look that was skipped.
        products: Hessian-vector products of all readings.
        seconds: That the look took.
        share: Time of all looks so far over training's own.
        skipped: Why there was no look.
        left_out: Quantities that were chosen and not measured, with the reason.
        failed: Quantities that failed, with the error; they are tried again, see `gave_up`.
        gave_up: Quantities that failed so often that they are not tried any more, this time for the last.
    """

    step: Count
    readings: Mapping[str, Reading] = field(default_factory=dict)
    products: Count = 0
    seconds: float = 0.0
    share: float = 0.0
    skipped: str | None = field(default=None, metadata={"optional": True})
    left_out: Mapping[str, str] | None = field(default=None, metadata={"optional": True})
    failed: Mapping[str, str] | None = field(default=None, metadata={"optional": True})
    gave_up: tuple[str, ...] | None = field(default=None, metadata={"optional": True})

    def line(self) -> dict[str, Any]:
        """As it stands in the log.

        >>> Record(step=50, skipped="no time").line()
        {'step': 50, 'readings': {}, 'products': 0, 'seconds': 0.0, 'share': 0.0, 'skipped': 'no time'}
        """
        found: dict[str, Any] = plain(self)
        return found

    def __str__(self) -> str:
        """In a line, for a training loop that prints it.

        >>> print(Record(step=50, readings={"loss": Reading(value=0.5)}, left_out={"trace": "no time"}))
        step 50: loss 0.5; no trace: no time
        >>> print(Record(step=50, skipped="no time"))
        step 50: no look: no time
        """
        if self.skipped is not None:
            return f"step {self.step}: no look: {self.skipped}"
        found = [
            f"{name} {reading.why if reading.value is None else format(reading.value, '.4g')}"
            for name, reading in self.readings.items()
        ]
        reasons: dict[str, list[str]] = {}
        for name, why in {**(self.left_out or {}), **(self.failed or {})}.items():
            reasons.setdefault(why, []).append(name)
        missing = [f"no {' and no '.join(names)}: {why}" for why, names in reasons.items()]
        return f"step {self.step}: {'; '.join([', '.join(found), *missing] if found else missing)}"

    def value(self, name: str) -> float | None:
        """One reading's number; `None` where it was not measured.

        >>> Record(step=50, readings={"loss": Reading(value=0.5)}).value("loss")
        0.5
        """
        reading = self.readings.get(name)
        return None if reading is None else reading.value

    def known(self, name: str) -> tuple[float, Reading] | None:
        """One reading with its number, where that is one and is finite."""
        reading = self.readings.get(name)
        if reading is None or reading.value is None or not math.isfinite(reading.value):
            return None
        return reading.value, reading

    def scalars(self) -> dict[str, float]:
        """All numbers by flat names, for curves.

        >>> norms = Reading(value=5.0, layers={"0": 3.0, "2": 4.0})
        >>> Record(step=50, readings={"gradient_norms": norms}).scalars()
        {'gradient_norms': 5.0, 'gradient_norms/0': 3.0, 'gradient_norms/2': 4.0}
        """
        found: dict[str, float] = {}
        for name, reading in self.readings.items():
            numbers: dict[str, Any] = {
                name: reading.value,
                f"{name}_stderr": reading.stderr,
                f"{name}_threshold": reading.threshold,
                f"{name}_curvature": reading.curvature,
            }
            found |= {key: float(number) for key, number in numbers.items() if number is not None}
            layers = {f"{name}/{layer}": norm for layer, norm in (reading.layers or {}).items()}
            found |= {key: float(norm) for key, norm in layers.items() if norm is not None}
        return found
