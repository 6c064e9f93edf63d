"""Damage to result documents: values of other types and sizes, keys and entries that go, and text that is no JSON."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELD = Path(__file__).parents[1] / "documents"
DOCUMENTS = sorted(HELD.glob("*.json")) + sorted(HELD.glob("older/*.json"))
SCRIPT, ESCAPE = "<script>alert(1)</script>", "\x1b[31mred"
NUMBERS = [None, "NaN", "Infinity", "-Infinity", 0, -1, 1.5, 1e308, -1e308, 5e-324, 1e-320, 10**15, 2**63, 10**400]
TEXTS = ["abc", "", SCRIPT, ESCAPE, "a\ud800", "x" * 5000, "\u202e", "a|b\n# c", "NaN", "hessdiag; rm x"]
OTHERS = [True, [], {}, [1, 2], {"a": [[]]}, [[[0.5]]], [None] * 40]
PARTS = ["result"] * 14 + ["problem", "verdict", "provenance", "checks", "theory"]


def mutated(rng: random.Random) -> str:
    """The text of a real document with some damage."""
    doc = json.loads(rng.choice(DOCUMENTS).read_text("utf-8"))
    if rng.random() < 0.1:
        return _text(json.dumps(doc), rng)
    for _ in range(rng.choice((1, 1, 2, 5))):
        _damage(doc, rng)
    return json.dumps(doc)


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _places(item, (*path, key))


def _damage(doc: dict[str, Any], rng: random.Random) -> None:
    top = [(key,) for key in doc]
    part = rng.choice(PARTS)
    *way, last = rng.choice(top if rng.random() < 0.02 else list(_places(doc.get(part), (part,))) or top)
    holder: Any = doc
    for key in way:
        holder = holder[key]
    value, dice = holder[last], rng.random()
    if dice < 0.08:
        del holder[last]
    elif isinstance(value, list) and dice < 0.4:
        holder[last] = rng.choice((value[:1], value[::-1], value * 3, value[:-1], [value]))
    elif isinstance(value, str) and dice < 0.8:
        holder[last] = rng.choice(TEXTS)
    elif (value is None or isinstance(value, (int, float))) and dice < 0.9:
        holder[last] = rng.choice(NUMBERS)
    else:
        holder[last] = copy.deepcopy(rng.choice(NUMBERS + TEXTS + OTHERS))


def _text(text: str, rng: random.Random) -> str:
    """What is no JSON, or no document at all."""
    place = rng.randrange(len(text))
    return rng.choice(
        (
            text[:place],
            text[:place] + rng.choice('{}[],:"\\x\x00') + text[place:],
            text.replace("null", "NaN"),
            text.replace('"result":', '"result": {}, "result":', 1),
            "[" * 100_000,
            text[:-1] + ', "deep": ' + "[" * 900 + "]" * 900 + "}",
            text.replace("hessdiag/1", "hessdiag/" + rng.choice(("2", "1.0", ESCAPE))),
            "1" * 5000,
            "",
        )
    )
