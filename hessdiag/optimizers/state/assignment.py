"""Which parameter each entry of an optimizer's state belongs to, where only shapes and the model's order tell.

Optimizers save by position in their groups, and not by name. Where each group keeps the model's order, as lists made of
`model.named_parameters()` do, an assignment is a way to deal the model's parameters out to groups so that all shapes
match. It is taken only where it is the only one: two tensors of one shape that were swapped give no error, and wrong
numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
Places = tuple[int, ...]  # how many entries of each group have been dealt out

STATES = 20_000  # of the count at one parameter, beyond which it is given up


@dataclass(frozen=True)
class Assignments:
    """All that fit.

    Attributes:
        count: How many; `None` where there are too many ways to count.
        names: The only one: for each group, the parameter of each entry; empty where there is not exactly one.
        swappable: Parameters that one and the same entry could belong to, in the model's order.
    """

    count: int | None
    names: tuple[tuple[str, ...], ...] = ()
    swappable: tuple[str, ...] = ()


def assignments(model: Sequence[tuple[str, Shape]], groups: Sequence[Sequence[Shape | None]]) -> Assignments:
    """Count the ways to give entries to parameters, by dynamic programming along the model.

    Args:
        model: Names and shapes of its parameters, in order; those that no group holds are left out.
        groups: Shapes of each group's entries, in order; `None` where an entry has no state that tells.

    Example: two biases of one shape in one group can only be in order, and of one of them it is not known which.

    >>> model = [("a.weight", (3, 2)), ("a.bias", (3,)), ("b.bias", (3,))]
    >>> assignments(model, [[(3, 2)], [(3,), (3,)]]).names
    (('a.weight',), ('a.bias', 'b.bias'))
    >>> assignments(model, [[(3, 2), (3,)]]).swappable
    ('a.bias', 'b.bias')
    """
    ends = tuple(map(len, groups))
    ahead: list[dict[Places, int]] = [{(0,) * len(groups): 1}]
    for index, (_, shape) in enumerate(model):
        following: dict[Places, int] = {}
        for places, ways in ahead[-1].items():
            for _, then in _moves(places, shape, groups):
                if len(model) - index - 1 >= sum(ends) - sum(then):  # enough are left for what is left
                    following[then] = following.get(then, 0) + ways
        if len(following) > STATES:
            return Assignments(None)
        ahead.append(following)
    count = ahead[-1].get(ends, 0)
    if not count:
        return Assignments(0)
    possible = _possible(model, groups, ahead, ends)
    if count == 1:
        return Assignments(1, tuple(tuple(names[0] for names in group) for group in possible))
    several = {name for group in possible for names in group if len(names) > 1 for name in names}
    return Assignments(count, swappable=tuple(name for name, _ in model if name in several))


def _moves(places: Places, shape: Shape, groups: Sequence[Sequence[Shape | None]]) -> list[tuple[int | None, Places]]:
    """What may become of a parameter: to which group it goes, or `None`, and where that leads."""
    found: list[tuple[int | None, Places]] = [(None, places)]
    for number, place in enumerate(places):
        if place < len(groups[number]) and groups[number][place] in (None, shape):
            found.append((number, (*places[:number], place + 1, *places[number + 1 :])))
    return found


def _possible(
    model: Sequence[tuple[str, Shape]],
    groups: Sequence[Sequence[Shape | None]],
    ahead: Sequence[dict[Places, int]],
    ends: Places,
) -> list[list[list[str]]]:
    """For each entry the parameters that it has in some assignment, backwards over what was reached."""
    possible: list[list[list[str]]] = [[[] for _ in group] for group in groups]
    alive = {ends}
    for index in range(len(model) - 1, -1, -1):
        name, shape = model[index]
        before = set()
        for places in ahead[index]:
            for number, then in _moves(places, shape, groups):
                if then not in alive:
                    continue
                before.add(places)
                if number is not None and name not in possible[number][places[number]]:
                    possible[number][places[number]].append(name)
        alive = before
    return possible
