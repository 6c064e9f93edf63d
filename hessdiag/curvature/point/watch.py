"""One forward pass watched for its piecewise operations, and later ones with the choices of that pass held fixed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from hessdiag.curvature.point.choices import RULES
from hessdiag.curvature.point.pieces import Margin, Piece, Rule

DIGITS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)  # coarsest first


class OtherPathError(Exception):
    """A forward pass that calls other operations than the one whose choices are held."""


@dataclass(frozen=True)
class Call:
    """One call of a piecewise operation.

    Attributes:
        module: Path of the module that it ran in; empty for the model itself.
        operation: Its name.
        piece: What was taken.
    """

    module: str
    operation: str
    piece: Piece

    @property
    def margins(self) -> tuple[Margin, ...]:
        """Of its units."""
        return self.piece.margins


@dataclass
class Recorded:
    """What was seen of a pass.

    Attributes:
        calls: Piecewise ones, in their order.
        dtype: The coarsest of anything that is differentiated.
    """

    calls: list[Call]
    dtype: torch.dtype = torch.float64

    def without_graph(self) -> "Recorded":
        """With the numbers of the margins alone, which hold no activations."""
        calls = []
        for call in self.calls:
            margins = tuple(Margin(margin.values.detach(), margin.side) for margin in call.margins)
            calls.append(replace(call, piece=replace(call.piece, margins=margins)))
        return Recorded(calls, self.dtype)


class _Recording(TorchFunctionMode):
    def __init__(self, where: Callable[[], str]) -> None:
        super().__init__()
        self.found = Recorded([])
        self._where = where

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, rule = rule_of(func, args)
        if rule is not None:
            try:  # on copies: what is written over, here or later, and parameters that move, would change the margins
                copies = [arg.clone() if isinstance(arg, Tensor) else arg for arg in args]
                piece = rule(*copies, **kwargs)
            except (RuntimeError, TypeError, ValueError, IndexError):  # a form of the call that the rule does not know
                piece = None
            if piece is not None:
                self.found.calls.append(Call(self._where(), name, piece))
        output = func(*args, **kwargs)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.requires_grad and leaf.dtype in DIGITS:
                self.found.dtype = min(self.found.dtype, leaf.dtype, key=DIGITS.index)
        return output


class _Holding(TorchFunctionMode):
    def __init__(self, calls: Sequence[Call], tight: bool, without_graph: bool) -> None:
        super().__init__()
        self._calls, self._tight, self._next = calls, tight, 0
        self._without_graph = without_graph

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, rule = rule_of(func, args, without_graph=self._without_graph)
        if rule is None:
            return func(*args, **kwargs)
        if self._next >= len(self._calls) or self._calls[self._next].operation != name:
            raise OtherPathError
        call = self._calls[self._next]
        self._next += 1
        held = call.piece.tight if self._tight else None
        found = (held or call.piece.held)(*args, **kwargs)
        return args[0].copy_(found) if _writes(func, kwargs) else found


def _writes(func: Any, kwargs: Any) -> bool:
    """Whether a call changes its first argument in place."""
    name = func.__name__
    return bool(kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


def rule_of(func: Any, args: Any, *, without_graph: bool = False) -> tuple[str, Rule | None]:
    """The name of a call, and its rule if it is piecewise and its derivative is asked for, or may be later."""
    written = getattr(func, "__name__", "")
    return written.strip("_"), RULES.get(written) if tracked(args, without_graph=without_graph) else None


def tracked(args: Iterable[Any], *, without_graph: bool = False) -> bool:
    """Whether anything is differentiated, or could be if there were a graph."""
    numbers = (arg for arg in args if isinstance(arg, Tensor) and arg.is_floating_point())
    return any(arg.requires_grad or without_graph for arg in numbers)


@contextmanager
def recording(model: nn.Module) -> Iterator[Recorded]:
    """Note every piecewise operation on what is differentiated, and the coarsest dtype that it passes through."""
    names = {module: name for name, module in model.named_modules()}
    inside: list[str] = []

    def enter(module: nn.Module, args: Any) -> None:
        inside.append(names.get(module, inside[-1] if inside else ""))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        inside.pop()

    mode = _Recording(lambda: inside[-1] if inside else "")
    with ExitStack() as stack:
        stack.callback(register_module_forward_pre_hook(enter).remove)
        stack.callback(register_module_forward_hook(leave, always_call=True).remove)
        stack.enter_context(mode)
        yield mode.found


@contextmanager
def holding(calls: Sequence[Call], *, tight: bool = False, without_graph: bool = False) -> Iterator[None]:
    """Give every piecewise operation the choices of a recorded pass, in the order of its calls.

    Args:
        calls: Of that pass.
        tight: Hold absolute values of exactly zero too.
        without_graph: Whether the pass runs without one, and calls of any numbers were recorded.

    Raises:
        OtherPathError: from inside, if the operations are others.
    """
    with _Holding(calls, tight, without_graph):
        yield
