"""Assignments of an optimizer's entries to parameters, against all of them tried one by one."""

import itertools
import random

import pytest

from hessdiag.optimizers.state import assignment
from hessdiag.optimizers.state.assignment import assignments


def all_of_them(model, groups):
    """Every choice of distinct parameters for the entries whose shapes match, each group in the model's order."""
    entries = [shape for group in groups for shape in group]
    ends = list(itertools.accumulate(map(len, groups)))
    found = []
    for chosen in itertools.permutations(range(len(model)), len(entries)):
        parts = [chosen[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        ordered = all(list(part) == sorted(part) for part in parts)
        if ordered and all(shape in (None, model[index][1]) for index, shape in zip(chosen, entries, strict=True)):
            found.append(tuple(tuple(model[index][0] for index in part) for part in parts))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_counts_and_names_are_those_of_brute_force(seed):
    draw = random.Random(seed)
    count = draw.randint(1, 6)
    model = [(f"p{index}", (draw.choice([1, 2, 3]),)) for index in range(count)]
    kept = [shape for _, shape in model if draw.random() < 0.8]
    groups = [[], []]
    for shape in kept:
        groups[draw.randint(0, 1)].append(None if draw.random() < 0.1 else shape)
    expected = all_of_them(model, groups)
    found = assignments(model, groups)
    assert found.count == len(expected)
    assert found.names == (expected[0] if len(expected) == 1 else ())
    several = {
        name
        for place in itertools.product(range(2), range(count))
        for names in [{one[place[0]][place[1]] for one in expected if place[1] < len(one[place[0]])}]
        if len(names) > 1
        for name in names
    }
    assert found.swappable == tuple(name for name, _ in model if name in several)


def test_what_cannot_be_counted_is_not_taken(monkeypatch):
    monkeypatch.setattr(assignment, "STATES", 20)
    model = [(f"p{index}", (4,)) for index in range(12)]
    found = assignments(model, [[(4,)]] * 12)
    assert (found.count, found.names) == (None, ())


def test_a_large_network_of_two_groups_is_quick():
    """Weights with decay, biases and norms without, as trainers do: one assignment among 2,000 tensors."""
    model = [(f"{layer}.{name}", shape) for layer in range(500) for name, shape in (
        ("norm", (8,)), ("weight", (8, 8)), ("bias", (8,)), ("out", (16, 8)))]  # fmt: skip
    groups = [[shape for _, shape in model if len(shape) == size] for size in (2, 1)]
    found = assignments(model, groups)
    assert found.count == 1
    assert found.names[1][:3] == ("0.norm", "0.bias", "1.norm")
