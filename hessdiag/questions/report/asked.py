"""What is asked of a report: how much, and in what time."""

import math
import re
from typing import get_args

from hessdiag.errors import SpecError
from hessdiag.questions.report.result import Preset

PRESETS: tuple[Preset, ...] = get_args(Preset)
BUDGETS: dict[Preset, float] = {"quick": 20.0, "normal": 60.0, "full": math.inf}  # seconds

_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+\.?\d*|\.\d+)\s*(|s|sec|min|m|h)")


def seconds_of(budget: float | str) -> float:
    """A budget in seconds; infinity for none.

    Raises:
        SpecError: if it is no time.

    >>> seconds_of("60s"), seconds_of("1.5 min"), seconds_of(90), seconds_of("none")
    (60.0, 90.0, 90.0, inf)
    """
    if budget == "none":
        return math.inf
    found = _TIME.fullmatch(budget.strip().lower()) if isinstance(budget, str) else None
    try:
        seconds = float(found[1]) * _UNITS[found[2]] if found else float(budget)
    except (TypeError, ValueError):
        seconds = math.nan
    if not seconds > 0:
        raise SpecError(f"a budget is a time such as 60s, 2min or none, not {budget!r}.", "--budget 60s")
    return seconds


def budget_of(preset: Preset, budget: float | str | None) -> float:
    """The seconds that were asked for, or else those of the preset.

    Raises:
        SpecError: if the preset is none, or the budget no time.
    """
    if preset not in PRESETS:
        raise SpecError(f"there is no preset {preset!r}: {', '.join(PRESETS)}.", "--preset normal")
    return BUDGETS[preset] if budget is None else seconds_of(budget)
