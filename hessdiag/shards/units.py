"""The units of a model: modules whose parameters are gathered, that compute, and let go, as `division` finds them.

Where a parameter is used outside its unit, joined ones are parted again, and others are enlarged.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, wraps
from itertools import count, takewhile
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from hessdiag.errors import ComputeError
from hessdiag.machine.collectives import gathered, scattered
from hessdiag.machine.ranks import ranks
from hessdiag.shards.division import Found, below, joined, with_lists
from hessdiag.shards.layout import share
from hessdiag.shards.placeholder import OutsideUnitError, Placeholder, Slot, noting, running, shown

AT_ONCE = 2**20  # numbers of all processes that are exchanged at a time: beside a large unit few

Forward = Callable[..., Any]
Kind = Callable[["Unit"], "Forward | None"]


@dataclass(eq=False)
class Unit:
    """A module whose parameters are gathered for the time that it computes.

    Attributes:
        module: The module.
        path: Where it is in the model; empty for the model itself.
        number: Of the unit in the model.
        forward: Its own forward pass, which finds whole parameters within `filled`.
        writes_to: Which of its tensor arguments it changes in place, by number; known once it has run.
        is_whole: Whether its parameters are gathered whole, all at once.
        is_open: Whether it is only the module's own parameters, and what is below has units of its own.
        is_joined: Whether it could be several smaller ones.
        is_cheap: Whether what it computes is so little that nothing is kept of it; known once it has run.
        keepers: What keeps products of its calls, for as long as these are needed.
    """

    module: nn.Module
    path: str
    number: int
    forward: Forward
    writes_to: set[int] = field(default_factory=set)
    is_whole: bool = True
    is_open: bool = False
    is_joined: bool = False
    is_cheap: bool = False
    keepers: WeakSet[Any] = field(default_factory=WeakSet)
    _has_met: bool = False

    @cached_property
    def _modules(self) -> tuple[nn.Module, ...]:
        return with_lists(self.module) if self.is_open else tuple(self.module.modules())

    @cached_property
    def parameters(self) -> tuple[Placeholder, ...]:
        """Its parameters, trained and frozen, each once."""
        every = (item for module in self._modules for item in module.parameters(recurse=False))
        return tuple({id(item): item for item in every if isinstance(item, Placeholder)}.values())

    @property
    def pieces(self) -> tuple[Tensor, ...]:
        """What this process keeps of each, flat and padded."""
        return tuple(parameter.piece for parameter in self.parameters)

    @property
    def bytes(self) -> int:
        """Of its pieces."""
        return sum(piece.numel() * piece.itemsize for piece in self.pieces)

    def kept(self) -> int:
        """Bytes of the products of its calls that are kept."""
        return sum(keeper.bytes for keeper in self.keepers)

    @property
    def numbers(self) -> int:
        """How many numbers are gathered for it."""
        return sum(parameter.numel() for parameter in self.parameters)

    @cached_property
    def _slots(self) -> tuple[Slot, ...]:
        """Where modules keep parameters: among their own, and in attributes and lists of them."""
        return tuple(
            (home, name, value)
            for module in self._modules
            for home in (module._parameters, vars(module))
            for name, value in home.items()
            if isinstance(value, Placeholder)
            or (isinstance(value, (list, tuple)) and any(isinstance(item, Placeholder) for item in value))
        )

    @contextmanager
    def filled(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """Let the module find whole tensors where its parameters were.

        Args:
            weights: One for each of `parameters`.
        """
        above = shown.get()  # of these the unit must not take any unseen: what it computes has no graph to them
        token, hidden = running.set(self), shown.set(())
        try:
            for (home, name, value), _ in above:
                home[name] = value
            for (home, name, _), whole in self._wholes(weights):
                home[name] = whole
            with noting():
                yield
        finally:
            for home, name, value in self._slots:
                home[name] = value
            for (home, name, _), whole in above:
                home[name] = whole
            shown.reset(hidden)
            running.reset(token)

    @contextmanager
    def opened(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """The same for a module that runs as it is; the units below it do not find them.

        Args:
            weights: One for each of `parameters`.
        """
        wholes = self._wholes(weights)
        token = shown.set((*shown.get(), *wholes))
        try:
            for (home, name, _), whole in wholes:
                home[name] = whole
            yield
        finally:
            for home, name, value in self._slots:
                home[name] = value
            shown.reset(token)

    def _wholes(self, weights: Sequence[Tensor]) -> tuple[tuple[Slot, Any], ...]:
        """What comes in each slot."""
        by = {id(parameter): weight for parameter, weight in zip(self.parameters, weights, strict=True)}
        return tuple(
            (
                slot,
                by[id(slot[2])]
                if isinstance(slot[2], Placeholder)
                else type(slot[2])(by.get(id(item), item) for item in slot[2]),
            )
            for slot in self._slots
        )

    def gathered(self, *rows: Sequence[Tensor | None]) -> list[list[Tensor]]:
        """Whole tensors of rows of pieces, all of them in one exchange for each dtype.

        Args:
            rows: Of pieces, one for each of `parameters`; `None` for zeros.

        Returns:
            For each row, a tensor of each parameter's shape.
        """
        own = self.pieces
        self._meet(own[0].device)
        found: list[list[Tensor]] = [list(own) for _ in rows]
        for indices in self._by_dtype:
            tensors = [
                [torch.zeros_like(own[i]) if (piece := row[i]) is None else piece for i in indices] for row in rows
            ]
            for row, wholes in enumerate(_gathered(tensors, [self.parameters[i] for i in indices], self)):
                for i, whole in zip(indices, wholes, strict=True):
                    found[row][i] = whole
        return found

    def _meet(self, device: torch.device) -> None:
        """Make sure, the first time, that all processes are at this unit: exchanges of other sizes end processes.

        Raises:
            ComputeError: if another process is at another unit.
        """
        if not self._has_met:
            numbers = gathered(torch.tensor([self.number], device=device))
            if bool((numbers != self.number).any()):
                raise _elsewhere(self)
            self._has_met = True

    def scattered(self, rows: Sequence[Sequence[Tensor]], wanted: Sequence[int]) -> list[list[Tensor]]:
        """This process's pieces of sums over all processes, in one exchange for each dtype.

        Args:
            rows: Of whole tensors, one for each wanted parameter.
            wanted: Which parameters they belong to.
        """
        found: list[list[Tensor]] = [list(row) for row in rows]
        for indices in self._by_dtype:
            places = [place for place, i in enumerate(wanted) if i in indices]
            if places and rows:
                for row, pieces in enumerate(_scattered([[row[place] for place in places] for row in rows])):
                    for place, piece in zip(places, pieces, strict=True):
                        found[row][place] = piece
        return found

    @cached_property
    def _by_dtype(self) -> tuple[tuple[int, ...], ...]:
        kinds: dict[torch.dtype, list[int]] = {}
        for index, parameter in enumerate(self.parameters):
            kinds.setdefault(parameter.dtype, []).append(index)
        return tuple(map(tuple, kinds.values()))


@dataclass(frozen=True)
class _Run:
    """Some numbers that every process has of one tensor.

    Attributes:
        number: Of the tensor.
        start: Where they begin in each process's piece.
        stop: Where they end.
        at: Where they begin in what is exchanged.
    """

    number: int
    start: int
    stop: int
    at: int

    @property
    def inside(self) -> slice:
        """Where they lie in what is exchanged."""
        return slice(self.at, self.at + self.stop - self.start)


def _exchanges(shares: Sequence[int], most: int) -> Iterator[list[_Run]]:
    """Pieces of so many numbers in exchanges of about at most so many: few for small pieces, several for a large one.

    >>> [[(run.number, run.start, run.stop) for run in runs] for runs in _exchanges([2, 5, 1], 3)]
    [[(0, 0, 2), (1, 0, 1)], [(1, 1, 4)], [(1, 4, 5), (2, 0, 1)]]
    """
    runs, room = list[_Run](), most
    for number, own in enumerate(shares):
        start = 0
        while start < own:
            stop = min(start + room, own)
            runs.append(_Run(number, start, stop, most - room))
            room, start = room - (stop - start), stop
            if not room:
                yield runs
                runs, room = [], most
    if runs:
        yield runs


def _gathered(rows: list[list[Tensor]], parameters: Sequence[Placeholder], unit: Unit) -> list[list[Tensor]]:
    """Whole tensors of pieces of one dtype. What is sent begins with the unit's number, so that none is mistaken.

    Raises:
        ComputeError: if another process is at another unit.
    """
    _, size = ranks()
    if size == 1:
        return [[piece.view(parameter.shape) for piece, parameter in zip(row, parameters, strict=True)] for row in rows]
    pieces = [piece for row in rows for piece in row]
    wholes = [piece.new_empty(size, piece.numel()) for piece in pieces]
    mark = torch.full((1,), float(unit.number % 251), dtype=pieces[0].dtype, device=pieces[0].device)
    for runs in _exchanges([piece.numel() for piece in pieces], max(AT_ONCE // size, 1)):
        found = gathered(torch.cat([mark, *(pieces[r.number][r.start : r.stop] for r in runs)])).view(size, -1)
        wrong = (found[:, 0] != mark).any()
        if wrong.is_cuda:  # to ask is to wait for it: let what comes out be no number, which is asked at the end
            found[:, 1:2].masked_fill_(wrong, torch.nan)
        elif bool(wrong):
            raise _elsewhere(unit)
        for run in runs:
            wholes[run.number][:, run.start : run.stop] = found[:, 1:][:, run.inside]
        del found  # before the next ones come
    each = iter(wholes)
    return [[next(each).view(-1)[: item.numel()].view(item.shape) for item in parameters] for _ in rows]


def _elsewhere(unit: Unit) -> ComputeError:
    return ComputeError(
        f"the ranks are at different modules: this one is at {unit.path or 'the model'}.",
        "a model that runs the same modules in the same order for all samples; or without --shard",
    )


def _scattered(rows: list[list[Tensor]]) -> list[list[Tensor]]:
    """Pieces of sums over all processes of whole tensors of one dtype."""
    _, size = ranks()
    if size == 1:
        return [[whole.reshape(-1) for whole in row] for row in rows]
    flats = [whole.reshape(-1) for row in rows for whole in row]
    shares = [share(flat.numel(), size) for flat in flats]
    pieces = [flat.new_empty(own) for flat, own in zip(flats, shares, strict=True)]
    for runs in _exchanges(shares, max(AT_ONCE // size, 1)):
        sent = flats[0].new_zeros(size, runs[-1].inside.stop)
        for run in runs:
            flat, own = flats[run.number], shares[run.number]
            for rank in range(size):
                part = flat[rank * own + run.start : min(rank * own + run.stop, flat.numel())]
                sent[rank, run.at : run.at + len(part)] = part
        found = scattered(sent.flatten())
        for run in runs:
            pieces[run.number][run.start : run.stop] = found[run.inside]
    each = iter(pieces)
    return [[next(each) for _ in row] for row in rows]


class Units:
    """The units of a model, which compute in place of its modules.

    How a module is served is up to its kind. A kind is a function that is given a `Unit` and returns what is called in
    place of the module's forward pass, or `None` where it does not know such a module; the first that knows it is taken
    (`kinds.KINDS`). What it returns takes the forward pass's own arguments, and a graph of its results must lead to the
    `unit.pieces` that require gradients, be differentiable twice, and give each process the derivatives of the sum of
    all processes' shares of the loss. It has to call the same collectives in the same order on all processes.

    Args:
        model: With placeholders for parameters; its modules' forward passes are replaced.
        kinds: The kinds, in the order in which they are asked.
    """

    def __init__(self, model: nn.Module, kinds: Sequence[Kind]) -> None:
        self._model, self._kinds = model, tuple(kinds)
        self.every: list[Unit] = []
        for config in [vars(module).get("config") for module in model.modules()]:
            if config is not None and getattr(config, "use_cache", False):
                config.use_cache = False  # what a block adds to a cache would be there when it runs again
        self._numbers = count()
        for found in below(model, ""):
            self._add(found)
        for found in joined(model, self.largest):
            self._replace(found)

    @property
    def largest(self) -> int:
        """Numbers of the largest: what a process holds whole at a time."""
        return max((unit.numbers for unit in self.every if unit.is_whole), default=0)

    def _add(self, found: Found) -> None:
        module = found.module
        unit = Unit(module, found.path, next(self._numbers), module.forward)
        unit.is_open, unit.is_joined = found.is_open, found.is_joined
        forward = next(served for kind in self._kinds if (served := kind(unit)) is not None)

        @wraps(unit.forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            # Within another unit its parameters are there already, or are asked for outside their own.
            return unit.forward(*args, **kwargs) if running.get() is not None else forward(*args, **kwargs)

        vars(module)["forward"] = run
        self.every.append(unit)

    def enlarge(self, error: OutsideUnitError) -> None:
        """Make one unit of what a parameter was used in: of the unit that owns it, and the one that ran or the parent.

        Where one of them was joined of smaller ones, it becomes these again instead.

        Raises:
            OutsideUnitError: the same, if there is nothing larger.
        """
        owners = [unit for unit in self.every if any(error.parameter is item for item in unit.parameters)]
        users = [unit for unit in self.every if unit is error.unit]
        if parted := [unit for unit in dict.fromkeys([*owners, *users]) if unit.is_joined]:
            for unit in parted:
                self._remove(unit)
                for found in below(unit.module, unit.path):
                    self._add(found)
            return
        path = _common([unit.path.split(".") for unit in (*owners, *users)])
        taken = {unit.path for unit in owners if not unit.is_open}
        while path and (".".join(path) in taken or self._is_list(".".join(path))):
            path = path[:-1]
        name = ".".join(path)
        if not owners or name in taken:
            raise error
        self._replace(Found(name, self._model.get_submodule(name)))

    def _replace(self, found: Found) -> None:
        """Make one unit of all at or below a path."""
        inside = f"{found.path}." if found.path else ""
        for unit in [unit for unit in self.every if f"{unit.path}.".startswith(inside)]:
            self._remove(unit)
        self._add(found)

    def _remove(self, unit: Unit) -> None:
        vars(unit.module)["forward"] = unit.forward
        self.every.remove(unit)

    def _is_list(self, path: str) -> bool:
        return isinstance(self._model.get_submodule(path), nn.ModuleList | nn.ModuleDict)


def _common(paths: Sequence[Sequence[str]]) -> list[str]:
    """What paths begin with in common.

    >>> _common([["a", "bc", "d"], ["a", "bd"]])
    ['a']
    """
    return [names[0] for names in takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))]
