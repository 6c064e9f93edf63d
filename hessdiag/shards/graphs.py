"""Graphs that pass by a unit: through what it leaves elsewhere than in its results, or finds that it is not given.

A unit is a function of its arguments. What a block keeps in an attribute, a buffer, a list or a closure is none of its
results, and derivatives through it would be silently left out. So whatever a unit computes with when it runs first is
marked, with a graph that leads on to its pieces: a graph outside that leads to a mark has passed the unit by.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import Function

from hessdiag.errors import LoadError
from hessdiag.shards.placeholder import OutsideUnitError, Placeholder, outside
from hessdiag.shards.units import Unit

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Generator, nn.Module, Enum)
DEEPEST = 4  # levels of objects in which tensors are looked for

RETURNED = "a model whose modules return what they compute; or without --shard"


def nodes(tensors: Iterable[Tensor], ends: Iterable[Any] = ()) -> Iterator[Any]:
    """All nodes of the graphs of some tensors, each once.

    Args:
        tensors: Those without a graph have none.
        ends: Nodes that are left out, with all that only they lead to.

    >>> x = torch.ones(2, requires_grad=True)
    >>> [node.name() for node in nodes([x * 2, x.detach()])]
    ['MulBackward0', 'torch::autograd::AccumulateGrad']
    """
    ahead, seen = [tensor.grad_fn for tensor in tensors], set(ends)
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        ahead += [successor for successor, _ in node.next_functions]


@dataclass(frozen=True, eq=False)
class Marked:
    """Tensors that a unit computes with, and the mark in their graph; `None` where no derivative is asked for."""

    tensors: Sequence[Tensor]
    mark: Any = None


def marked(unit: Unit, tensors: Sequence[Tensor], sources: Sequence[Tensor]) -> Marked:
    """Tensors without a graph, each with one that leads by a mark to what it was taken from.

    Args:
        unit: It will compute with them.
        tensors: They are changed.
        sources: What each was taken from.
    """
    if not torch.is_grad_enabled() or not any(source.requires_grad for source in sources):
        return Marked(tensors)
    found = _Mark.apply(unit, tuple(tensors), *sources)  # type: ignore[no-untyped-call]
    return Marked(found, next(tensor.grad_fn for tensor in found if tensor.requires_grad))


class _Mark(Function):
    """What a unit computes with."""

    @staticmethod
    def forward(ctx: Any, unit: Unit, tensors: tuple[Tensor, ...], *sources: Tensor) -> tuple[Tensor, ...]:
        ctx.marks = unit
        pairs = zip(tensors, sources, strict=True)
        ctx.mark_non_differentiable(*(tensor for tensor, source in pairs if not source.requires_grad))
        return tensors

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        raise _left(ctx.marks)


def refuse_foreign(unit: Unit, results: Sequence[Tensor], mark: Any) -> None:
    """Make sure that a unit computed with nothing that has a graph but its arguments and parameters.

    Args:
        unit: It has just run.
        results: With their graph.
        mark: Of what it was given.

    Raises:
        OutsideUnitError: if it has; the unit has to be larger.
        LoadError: if it computed with what was left behind before the model was sharded.
    """
    for node in nodes(results, [mark]):
        _refuse_earlier(node)
        stands_in = vars(getattr(node, "variable", unit)).get("stands_in")
        parameter: Placeholder | None = stands_in() if stands_in is not None else None
        if (other := getattr(node, "marks", None)) is not None:
            parameter = other.parameters[0]
        if parameter is not None:
            raise OutsideUnitError(
                parameter,
                f"{unit.path or 'the model'} computes with a tensor that it finds elsewhere than in its arguments, and "
                f"that depends on {parameter.path or 'a parameter'}.",
                unit,
                hint=RETURNED,
            )


def refuse_passed(value: Tensor) -> None:
    """Make sure that a graph leads through the results of units alone, and that no slopes of theirs are in it.

    Raises:
        OutsideUnitError: if it does not; a unit has to be larger.
    """
    for node in nodes([value]):
        _refuse_earlier(node)
        if (unit := getattr(node, "marks", None)) is not None:
            raise _left(unit)
        if (unit := getattr(node, "slopes_of", None)) is not None:
            raise third(unit)


def refuse_hidden(unit: Unit, flat: Sequence[Any], verb: str) -> None:
    """Make sure that no graph passes by the unit, in a parameter of another or in an object that is no container.

    Raises:
        OutsideUnitError: if one does; the unit has to be larger.
    """
    for item in flat:
        if isinstance(item, Placeholder):
            raise outside(item, f"an argument of {unit.path}, which is", unit)
        if not isinstance(item, (Tensor, *PLAIN)) and any(part.requires_grad for part in hidden(item)):
            raise OutsideUnitError(
                unit.parameters[0], f"{unit.path} {verb} a {type(item).__name__} that holds tensors with a graph."
            )


def hidden(item: Any, depth: int = 0) -> Iterator[Tensor]:
    """Tensors in an object, whether a tree can be made of it or not."""
    if isinstance(item, Tensor):
        yield item
    elif depth < DEEPEST and not isinstance(item, PLAIN):
        inside = item.values() if isinstance(item, Mapping) else item if isinstance(item, (list, tuple, set)) else ()
        for part in (*inside, *getattr(item, "__dict__", {}).values()):
            yield from hidden(part, depth + 1)


def third(unit: Unit) -> OutsideUnitError:
    """What is said where slopes of a unit are differentiated twice; inside a larger one they may be."""
    return OutsideUnitError(
        unit.parameters[0],
        f"the loss is computed from slopes of {unit.path or 'the model'}: sharded models have no third derivatives.",
        hint="a model that takes slopes of its modules in its own forward pass; or without --shard",
    )


def refuse_transforms(unit: Unit, tensors: Iterable[Tensor]) -> None:
    """Make sure that a unit does not run within `torch.func` or forward derivatives, of which it knows nothing.

    Raises:
        OutsideUnitError: if it does; inside a larger unit it may.
    """
    inside = torch._C._are_functorch_transforms_active()
    if inside or any(tangent is not None for _, tangent in map(forward_ad.unpack_dual, tensors)):
        raise OutsideUnitError(
            unit.parameters[0],
            f"{unit.path or 'the model'} runs within torch.func or forward derivatives, for which it is not sharded.",
            hint="a model that calls torch.func in its own forward pass; or without --shard",
        )


def _refuse_earlier(node: Any) -> None:
    """Refuse a leaf that a module had kept, with its graph, when the model was sharded."""
    if (kept := getattr(node, "variable", None)) is not None and "is_of_before" in vars(kept):
        raise LoadError(
            f"a module computes with a tensor of shape {tuple(kept.shape)} that it kept in an earlier forward pass, "
            "with a graph that leads to parameters of before.",
            "a model that has not run yet, or that keeps no weights of its own making; or without --shard",
        )


def _left(unit: Unit) -> OutsideUnitError:
    return OutsideUnitError(
        unit.parameters[0],
        f"{unit.path or 'the model'} leaves a tensor elsewhere than in what it returns, and the loss is computed from "
        "it: derivatives would pass it by.",
        hint=RETURNED,
    )
