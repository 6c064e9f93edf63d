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

from hessdiag.shards.division import Found, below, joined, with_lists
from hessdiag.shards.exchanges import meet_at, sums_of, wholes_of
from hessdiag.shards.placeholder import OutsideUnitError, Placeholder, Slot, noting, running, shown

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
            self._refuse_others()
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
        self._refuse_others()
        token = shown.set((*shown.get(), *wholes))
        try:
            for (home, name, _), whole in wholes:
                home[name] = whole
            yield
        finally:
            for home, name, value in self._slots:
                home[name] = value
            shown.reset(token)

    def _refuse_others(self) -> None:
        """Refuse parameters that have taken the place of its own for a while: those would be gathered over them."""
        already = {(id(home), name) for (home, name, _), _ in shown.get()}
        if any(home.get(name) is not value and (id(home), name) not in already for home, name, value in self._slots):
            raise OutsideUnitError(
                self.parameters[0],
                f"{self.path or 'the model'} runs with other parameters in place of its own, as with functional_call.",
            )

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
        if not self._has_met:
            self.meet()
        found: list[list[Tensor]] = [list(own) for _ in rows]
        for indices in self._by_dtype:
            tensors = [
                [torch.zeros_like(own[i]) if (piece := row[i]) is None else piece for i in indices] for row in rows
            ]
            parameters = [self.parameters[i] for i in indices]
            for row, wholes in enumerate(wholes_of(tensors, parameters, self.number, self.path)):
                for i, whole in zip(indices, wholes, strict=True):
                    found[row][i] = whole
        return found

    def meet(self) -> None:
        """Make sure that all processes are at this unit: exchanges of other sizes end processes.

        Raises:
            ComputeError: if another process is at another unit.
        """
        meet_at(self.number, self.path)
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
                for row, pieces in enumerate(sums_of([[row[place] for place in places] for row in rows])):
                    for place, piece in zip(places, pieces, strict=True):
                        found[row][place] = piece
        return found

    @cached_property
    def _by_dtype(self) -> tuple[tuple[int, ...], ...]:
        kinds: dict[torch.dtype, list[int]] = {}
        for index, parameter in enumerate(self.parameters):
            kinds.setdefault(parameter.dtype, []).append(index)
        return tuple(map(tuple, kinds.values()))


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
