"""Names of layers as a table shows them: short, never two alike, and with the full name at hand."""

from collections import Counter
from collections.abc import Iterator, Sequence

Parts = tuple[str, ...]


class Name(str):
    """What is shown of a name. `full` is the name itself: a page shows it where the pointer rests."""

    full: str

    def __new__(cls, shown: str, full: str | None = None) -> "Name":
        """Make a name that is shown as `shown`."""
        name = super().__new__(cls, shown)
        name.full = shown if full is None else full
        return name

    def and_other(self, other: "Name") -> "Name":
        """A pair of names, both short and in full."""
        return Name(f"{self} – {other}", f"{self.full} – {other.full}")


def shortened(names: Sequence[str]) -> tuple[Name, ...]:
    """Names without what they have in common, in the order given.

    Dotted parts in front of a block's index go where only one stack of blocks has them; of several stacks, what tells
    them apart stays. Other names lose the parts that all of them begin with. Names that would look alike stay longer.

    >>> shortened(["bert.embeddings.word", "bert.encoder.layer.0.dense", "bert.encoder.layer.11.dense", "head"])
    ('embeddings.word', '0.dense', '11.dense', 'head')
    >>> shortened(["encoder.block.0.wi", "decoder.block.0.wi"])
    ('encoder.0.wi', 'decoder.0.wi')
    """
    unique = list(dict.fromkeys(names))
    split = [tuple(name.split(".")) for name in unique]
    stacks = _stacks(split)
    plain = _common([parts for parts in split if len(parts) > 1])
    choices = [[".".join(parts) for parts in _candidates(one, stacks, plain)] for one in split]
    level = [0] * len(unique)
    while True:
        shown = [choice[at] for choice, at in zip(choices, level, strict=True)]
        counts = Counter(shown)
        alike = [i for i, name in enumerate(shown) if counts[name] > 1 and level[i] + 1 < len(choices[i])]
        if not alike:
            break
        for index in alike:
            level[index] += 1
    by_name = {full: Name(short, full) for full, short in zip(unique, shown, strict=True)}
    return tuple(by_name[name] for name in names)


def _candidates(parts: Parts, stacks: dict[Parts, Parts], plain: int) -> Iterator[Parts]:
    """Ways to show a name, shortest first, the last in full."""
    at = _index(parts)
    if at and parts[:at] in stacks:
        yield (*stacks[parts[:at]], *parts[at:])
    if len(parts) > 1:
        yield parts[plain:]
    yield parts


def _stacks(split: Sequence[Parts]) -> dict[Parts, Parts]:
    """What stands before blocks' indices, with what is shown of it: nothing, if it is always the same."""
    fronts = list(dict.fromkeys(parts[:at] for parts in split if (at := _index(parts))))
    if len(fronts) == 1:
        return {fronts[0]: ()}
    start = _common(fronts)
    end = _common([front[start:][::-1] for front in fronts])
    return {front: front[start : len(front) - end] for front in fronts}


def _index(parts: Parts) -> int | None:
    """Where a name has its first number, if a part follows or precedes it."""
    return next((at for at, part in enumerate(parts) if part.isdecimal()), None)


def _common(split: Sequence[Parts]) -> int:
    """How many parts all begin with, short of the last of any."""
    if len(split) < 2:
        return 0
    most = min(map(len, split)) - 1
    return next((at for at in range(most) if len({parts[at] for parts in split}) > 1), most)


def fitted(names: Sequence[str], longest: int) -> list[str]:
    """Names cut in their middle to a length, except where that would make two look alike.

    >>> fitted(["a_long_name_of_a_layer", "short"], 9)
    ['a_lo…ayer', 'short']
    """
    half = (longest - 1) // 2
    cut = [name if len(name) <= longest else f"{name[:half]}…{name[-half:]}" for name in names]
    seen: dict[str, set[str]] = {}
    for short, name in zip(cut, names, strict=True):
        seen.setdefault(short, set()).add(name)
    return [str(name) if len(seen[short]) > 1 else short for short, name in zip(cut, names, strict=True)]
