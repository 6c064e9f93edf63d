"""Piecewise operations inside a sharded problem: which units lie at a kink, and differences with all choices held.

They are met where a unit computes itself anew for its gradient: in what runs for the loss alone nothing is
differentiated. Nothing of the graph is kept, and no activation.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from hessdiag.curvature.point.gates import UNHELD
from hessdiag.curvature.point.result import Kink
from hessdiag.curvature.point.watch import DIGITS, Call, holding, rule_of, tracked
from hessdiag.curvature.sharded.moved import MovedPieces
from hessdiag.machine.collectives import summed
from hessdiag.shards.placeholder import running


@dataclass(frozen=True)
class Units:
    """The units of one call that is differentiated.

    Attributes:
        module: Path of the module that it ran in; empty for what the model or the loss computes itself.
        operation: Its name.
        zeros: By margin, which units are exactly at a kink; `None` where none is.
        counts: By margin, how many there are; empty where units cannot be told from those at a kink.
    """

    module: str
    operation: str
    zeros: tuple[Tensor | None, ...]
    counts: tuple[int, ...]


@dataclass
class Seen:
    """The piecewise operations of one gradient.

    Attributes:
        forward: All calls that the value took, in their order: units compute it without a graph.
        backward: All calls with a graph that the gradient took, where units compute anew.
        units: Of everything that is differentiated.
        unheld: Names of piecewise operations that no rule holds.
        dtype: The coarsest of anything that is differentiated.
    """

    forward: list[Call] = field(default_factory=list)
    backward: list[Call] = field(default_factory=list)
    units: list[Units] = field(default_factory=list)
    unheld: dict[str, None] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64

    @property
    def unsearched(self) -> tuple[str, ...]:
        """Names of operations whose units cannot be told from those at a kink."""
        return tuple(dict.fromkeys((*(units.operation for units in self.units if not units.counts), *self.unheld)))

    def leaving(self, there: "Seen") -> dict[tuple[str, str], tuple[int, int]]:
        """By module and operation: units at a kink that are not where `there` was seen, and units of all."""
        same = [units.operation for units in self.units] == [units.operation for units in there.units]
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for units, after in zip(self.units, there.units if same else self.units, strict=True):
            for mask, still, of in zip(units.zeros, after.zeros, units.counts, strict=True):
                at = 0 if mask is None else int((mask if still is None else mask & ~still).sum())
                before = found.get((units.module, units.operation), (0, 0))
                found[units.module, units.operation] = before[0] + at, before[1] + of
        return found


class _Looking(TorchFunctionMode):
    """Notes every piecewise call, and of what is differentiated the units."""

    def __init__(self, seen: Seen, inside: Sequence[str], forward: bool) -> None:
        super().__init__()
        self._seen, self._inside, self._forward = seen, inside, forward

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, rule = rule_of(func, args, without_graph=self._forward)
        if rule is not None:
            self._note(name, rule, args, kwargs)
        elif getattr(func, "__name__", "") in UNHELD and tracked(tree_leaves((args, kwargs))):
            self._seen.unheld[name] = None
        output = func(*args, **kwargs)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.dtype in DIGITS and leaf.requires_grad:
                self._seen.dtype = min(self._seen.dtype, leaf.dtype, key=DIGITS.index)
        return output

    def _note(self, name: str, rule: Any, args: Any, kwargs: Any) -> None:
        differentiated = tracked(args)
        try:
            piece = rule(*(arg.detach() if isinstance(arg, Tensor) else arg for arg in args), **kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError):  # a form of the call that the rule does not know
            if differentiated:
                self._seen.unheld[name] = None
            return
        unit = running.get()  # which is called by itself where it computes anew
        module = self._inside[-1] if self._inside else "" if unit is None else unit.path
        call = Call(module, name, replace(piece, margins=()))
        (self._seen.forward if self._forward else self._seen.backward).append(call)
        if differentiated:
            masks = [margin.values == 0 for margin in piece.margins]
            zeros = tuple(mask if bool(mask.any()) else None for mask in masks)
            self._seen.units.append(Units(module, name, zeros, tuple(mask.numel() for mask in masks)))


class Looking:
    """Notes the piecewise operations of every gradient, batch by batch.

    Attributes:
        seen: Of each batch.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self.seen: list[Seen] = []

    @contextmanager
    def __call__(self, batch: Any, forward: bool) -> Iterator[None]:
        """Look at a batch's value, and then at its gradient."""
        inside: list[str] = []

        def enter(module: nn.Module, args: Any) -> None:
            inside.append(self._names.get(module, inside[-1] if inside else ""))

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            inside.pop()

        if forward:
            self.seen.append(Seen())
        with ExitStack() as stack:
            stack.callback(register_module_forward_pre_hook(enter).remove)
            stack.callback(register_module_forward_hook(leave, always_call=True).remove)
            stack.enter_context(_Looking(self.seen[-1], inside, forward))
            yield


class Held:
    """Holds every choice of theta in the values and gradients of a batch.

    Args:
        moved: Whose pieces move.
        seen: At theta, of each batch. Of several none is kept: their choices are taken anew.
        tight: Whether absolute values of exactly zero are held too.
    """

    def __init__(self, moved: MovedPieces, seen: Sequence[Seen], *, tight: bool) -> None:
        self._moved, self._tight = moved, tight
        self._several, self._seen = len(seen) > 1, seen[0]

    @contextmanager
    def __call__(self, batch: Any, forward: bool) -> Iterator[None]:
        """Hold the batch's pieces, of its value and then of its gradient.

        Raises:
            OtherPathError: from inside, if the operations are others where the pieces stand.
        """
        if forward and self._several:
            look = Looking(self._moved.problem.model)
            with self._moved.at_origin():
                self._moved.gradient(batch, look)
            self._seen = look.seen[0]
        calls = self._seen.forward if forward else self._seen.backward
        with holding(calls, tight=self._tight, without_graph=forward):
            yield


def merged(pairs: Iterable[tuple[Seen, Seen]]) -> tuple[Kink, ...]:
    """Where units of any batch or process are exactly at a kink and leave it, from what was seen at both ends."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for here, there in pairs:
        for key, (at, of) in here.leaving(there).items():
            before = counts.get(key, (0, 0))
            counts[key] = before[0] + at, before[1] + of
    if not counts:
        return ()
    whole = summed(torch.tensor(list(counts.values()))).tolist()
    return tuple(Kink(*key, at, at / of, None) for key, (at, of) in zip(counts, whole, strict=True) if at)
