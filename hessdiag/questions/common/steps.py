"""Steps of training, as names of checkpoints and results tell them."""

import itertools
import re
from collections.abc import Sequence


def step_numbers(labels: Sequence[str]) -> list[float] | None:
    """The number in which labels differ, if that is one number in each, and it grows.

    >>> step_numbers(["step0.pt", "step100.pt", "step1000.pt"]), step_numbers(["a.pt", "b.pt"])
    ([0.0, 100.0, 1000.0], None)
    """
    steps = numbers_in(labels)
    return steps if steps is not None and all(a < b for a, b in itertools.pairwise(steps)) else None


def numbers_in(labels: Sequence[str]) -> list[float] | None:
    """The number in which labels differ, if that is one number in each, in whatever order.

    >>> numbers_in(["step10.json", "step9.json"]), numbers_in(["a1.json", "b2.json"])
    ([10.0, 9.0], None)
    """
    parts = [re.split(r"(\d+)", label) for label in labels]
    if len({len(part) for part in parts}) > 1:
        return None
    varying = [index for index in range(len(parts[0])) if len({part[index] for part in parts}) > 1]
    if len(varying) != 1 or varying[0] % 2 == 0:
        return None
    return [float(part[varying[0]]) for part in parts]
