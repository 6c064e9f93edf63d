"""A partition of the parameters into the blocks that people mean: layers, tensors, heads, neurons, classes, rows."""

import fnmatch
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hessdiag.errors import SpecError
from hessdiag.problem.parts.block import Block, Found
from hessdiag.problem.parts.classes import classes
from hessdiag.problem.parts.embeddings import embedding_rows
from hessdiag.problem.parts.heads import heads
from hessdiag.problem.parts.units import neurons
from hessdiag.problem.problem import Problem
from hessdiag.suggest import question


@dataclass(frozen=True, eq=False)
class Partition:
    """Disjoint sets of entries that cover the parameter vector.

    Attributes:
        by: What was asked for.
        names: Of each block, for people.
        kinds: What each block is: the class of a module, "Q", "neuron", "class", "rest", ...
        indices: Of each block the places of its entries in the parameter vector, int64, ascending.
        notes: What a reader must know of it: what is in no block that was asked for, what is shared.
    """

    by: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    indices: tuple[Tensor, ...]
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each block."""
        return tuple(len(block) for block in self.indices)

    @cached_property
    def labels(self) -> Tensor:
        """The number of the block that each entry of the parameter vector is in, (N,)."""
        labels = torch.empty(sum(self.sizes), dtype=torch.int64)
        for number, block in enumerate(self.indices):
            labels[block] = number
        return labels


def partition(problem: Problem, by: str | Sequence[str]) -> Partition:
    """The parameters of a problem in blocks.

    Args:
        problem: Whose parameters they are. Tied ones count once; frozen ones, and those that `layers` leaves out, are
            not there.
        by: One of `WORDS`, or patterns of names, as a sequence or separated by commas. A pattern takes the parameters
            whose name, or a module that they are in, matches it; what none takes is one block, "rest".

    Returns:
        Blocks in the order in which the model executes them. What belongs to no block of the kind that was asked for
        (the bias of a norm, if by neuron) is a block of its own for each tensor, and `notes` says so.

    Raises:
        SpecError: if a word is not known, a pattern matches nothing, two take the same parameter, or the model has
            nothing of the kind.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    >>> problem = Problem(model, data=[(torch.zeros(4, 2), torch.zeros(4, 1))], loss="mse")
    >>> parts = partition(problem, "layer")
    >>> parts.names, parts.kinds, parts.sizes
    (('0', '1', '2'), ('Linear', 'LayerNorm', 'Linear'), (9, 6, 4))
    >>> partition(problem, "*.bias").names, partition(problem, "neuron").names
    (('*.bias', 'rest'), ('0[0]', '0[1]', '0[2]', '1.weight', '1.bias', '2[0]'))
    """
    words = [word.strip() for word in (by.split(",") if isinstance(by, str) else by)]
    executed = _executed(problem)  # first, for a model that changes its own parameters is a copy from then on
    known = WORDS.get(words[0]) if len(words) == 1 else None
    found = _by_patterns(problem, words) if known is None else known(problem)
    left = sorted(_left_over(problem, found.blocks), key=executed)
    notes = [*found.notes, *([_left_over_note(words[0], left)] if left else [])]
    ordered = sorted([*found.blocks, *left], key=executed)
    return Partition(
        ",".join(words),
        tuple(block.name for block in ordered),
        tuple(block.kind for block in ordered),
        tuple(block.indices for block in ordered),
        tuple(notes),
    )


def _executed(problem: Problem) -> Callable[[Block], int]:
    """Sorts blocks by the layer that they begin in, the one that is executed first coming first; "rest" comes last."""
    first_entries = [layer.start for layer in problem.layer_slices]
    rank = {layer.start: number for number, layer in enumerate(problem.executed_layers)}

    def place(block: Block) -> int:
        if block.kind == "rest":
            return len(rank)
        return rank[first_entries[bisect_right(first_entries, int(block.indices[0])) - 1]]

    return place


def _by_layer(problem: Problem) -> Found:
    return Found(
        tuple(Block(layer.name, layer.kind, torch.arange(layer.start, layer.stop)) for layer in problem.layer_slices)
    )


def _by_tensor(problem: Problem) -> Found:
    return Found(tuple(_tensors(problem)))


def _tensors(problem: Problem) -> Iterator[Block]:
    kinds = [layer.kind for layer in problem.layer_slices for _ in problem.parameters_of(layer)]
    for (name, _), place, kind in zip(problem.named_parameters, problem.places(), kinds, strict=True):
        yield Block(name, kind, torch.arange(place.start, place.stop))


WORDS: Mapping[str, Callable[[Problem], Found]] = {
    "layer": _by_layer,
    "tensor": _by_tensor,
    "head": heads,
    "neuron": neurons,
    "class": classes,
    "embedding-row": embedding_rows,
}


def _left_over(problem: Problem, blocks: Sequence[Block]) -> Iterator[Block]:
    """What is in no block, tensor by tensor."""
    if sum(len(block.indices) for block in blocks) == problem.n_parameters:
        return
    free = torch.ones(problem.n_parameters, dtype=torch.bool)
    for block in blocks:
        free[block.indices] = False
    for tensor in _tensors(problem):
        indices = tensor.indices[free[tensor.indices]]
        if len(indices):
            yield Block(tensor.name, tensor.kind, indices)


def _left_over_note(word: str, left: Sequence[Block]) -> str:
    size = sum(len(block.indices) for block in left)
    names = ", ".join(block.name for block in left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    tensors = "1 tensor that belongs" if len(left) == 1 else f"{len(left)} tensors that belong"
    own = "is a block of its own" if len(left) == 1 else "are blocks of their own"
    return f"{size:,} parameters are in {tensors} to no {word} and {own}: {names}"


def _by_patterns(problem: Problem, patterns: Sequence[str]) -> Found:
    """One block for each pattern, and one for the rest."""
    known = {name: _known_as(problem, name) for name, _ in problem.named_parameters}
    takes = {
        pattern: [name for name, names in known.items() if any(fnmatch.fnmatchcase(one, pattern) for one in names)]
        for pattern in patterns
    }
    for pattern, taken in takes.items():
        if not taken:
            raise _unmatched(pattern, known)
    for name in known:
        by = [pattern for pattern, taken in takes.items() if name in taken]
        if len(by) > 1:
            raise SpecError(
                f"--by: {name} is in two blocks, {by[0]!r} and {by[1]!r}; blocks are disjoint.",
                f"--by {by[0]}, or patterns that share no parameter",
            )
    places = dict(zip(known, problem.places(), strict=True))

    def block(name: str, kind: str, taken: Sequence[str]) -> Block:
        return Block(name, kind, torch.cat([torch.arange(places[one].start, places[one].stop) for one in taken]))

    blocks = [block(pattern, "pattern", taken) for pattern, taken in takes.items()]
    rest = [name for name in known if not any(name in taken for taken in takes.values())]
    if not rest:
        return Found(tuple(blocks))
    last = block("rest", "rest", rest)
    tensors = "1 tensor" if len(rest) == 1 else f"{len(rest)} tensors"
    note = f"the block rest holds what no pattern matches: {tensors}, {len(last.indices):,} parameters"
    return Found((*blocks, last), (note,))


def _known_as(problem: Problem, name: str) -> list[str]:
    """A parameter's name and those of the modules that it is in."""
    parts = name.split(".")
    own = [layer.name for layer in problem.layer_slices if layer.path == ""] if len(parts) == 1 else []
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)] + own


def _unmatched(pattern: str, known: Mapping[str, Sequence[str]]) -> SpecError:
    if pattern in WORDS:
        return SpecError(
            f"--by: in a list {pattern!r} is a pattern of names, and it matches no parameter or module.",
            f"--by {pattern}",
        )
    names = dict.fromkeys(one for names in known.values() for one in names)
    like = question(pattern, [*WORDS, *names])
    return SpecError(
        f"--by: {pattern!r} is no word that is known, and matches no trainable parameter or module.{like}",
        f"--by {'|'.join(WORDS)}, or patterns of names such as {next(iter(known))!r}",
    )
