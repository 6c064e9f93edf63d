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


def short_names(labels: Sequence[str]) -> list[str]:
    """Labels without the words that all begin and end with, where something is left of each.

    >>> short_names(["run/step-0.json", "run/step-100.json"]), short_names(["before.json", "after.json"])
    (['0', '100'], ['before', 'after'])
    >>> short_names(["a.json", "b.json", "a.json"]), short_names(["result 1", "result 2"])
    (['a', 'b', 'a'], ['1', '2'])
    """
    front, back = _shared(labels), _shared([label[::-1] for label in labels])
    short = [label[front : len(label) - back] for label in labels]
    return short if all(short) and front + back < min(map(len, labels)) else list(labels)


def _shared(labels: Sequence[str]) -> int:
    """How many characters all begin with, up to the last one that ends a word."""
    alike = itertools.takewhile(lambda signs: len(set(signs)) == 1, zip(*labels, strict=False))
    return len(re.sub(r"[^\W_]+$", "", "".join(signs[0] for signs in alike)))
