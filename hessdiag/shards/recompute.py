"""A unit as a function that recomputes itself at both levels of differentiation, so that no graph holds its weights.

The forward pass keeps a unit's inputs and pieces alone. Its derivative is a function too, which gathers the weights,
runs the module again, pulls a cotangent back through it and lets go; so is the derivative of that. Each takes one
exchange of pieces and one of sums, for any number of vectors: under vmap, as products with several vectors call them,
one recomputation serves them all.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from hessdiag.shards.call import HERE, Call, varies
from hessdiag.shards.graphs import refuse_hidden, refuse_transforms, third
from hessdiag.shards.kept import Kept
from hessdiag.shards.trees import flattened
from hessdiag.shards.units import Forward, Unit

Flags = tuple[bool, ...]
Row = Sequence[Tensor | None]  # cotangents of one vector


def recomputed(unit: Unit) -> Forward:
    """A unit's forward pass that keeps its inputs alone, and runs again for its derivatives."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        flat, form = flattened((args, kwargs))
        refuse_hidden(unit, flat, "is given")
        static = tuple(item if not isinstance(item, Tensor) else HERE for item in flat)
        call = Call(unit, form, static, linear=_of_outputs.get())
        tensors = [item for item in flat if isinstance(item, Tensor)]
        refuse_transforms(unit, tensors)
        written = sorted(unit.writes_to)
        kept = [tensor.clone() if index in written else tensor for index, tensor in enumerate(tensors)]
        outputs = _Unit.apply(call, *kept, *unit.pieces)  # type: ignore[no-untyped-call]
        if written != sorted(unit.writes_to):  # the first time: what it writes to must not be what is kept
            return forward(*args, **kwargs)
        for index, changed in zip(written, call.written(outputs), strict=True):
            tensors[index].copy_(changed)  # as the module itself does, for whoever goes on with it
        return call.result(outputs)

    return forward


_of_outputs: ContextVar[bool] = ContextVar("of_outputs", default=False)


@contextmanager
def for_outputs() -> Iterator[None]:
    """Let graphs that are made inside be differentiated again with respect to cotangents of the outputs alone.

    That is what products with the Jacobian need: what pulls a cotangent back is linear in it. The second derivative of
    the units is then left out, which takes another pass and its exchange.
    """
    token = _of_outputs.set(True)
    try:
        yield
    finally:
        _of_outputs.reset(token)


class _Unit(Function):
    """A unit of its inputs and pieces."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        outputs = call.first(tensors[: call.inputs], tensors[call.inputs :])
        ctx.mark_non_differentiable(*(output for output in outputs if not varies(output)))
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        wants: Flags = ctx.needs_input_grad[1:]
        present = tuple(cotangent is not None for cotangent in cotangents)
        if not any(wants) or not any(present):
            return (None,) * (1 + len(wants))
        given = (cotangent for cotangent in cotangents if cotangent is not None)
        kept = [tensor.detach() for tensor in ctx.saved_tensors] if ctx.call.linear else ctx.saved_tensors
        asked = _Asked(ctx.call, wants, present, Kept(ctx.call.unit) if torch.is_grad_enabled() else None)
        found = iter(_Pullback.apply(asked, *kept, *given))  # type: ignore[no-untyped-call]
        return (None, *(next(found) if want else None for want in wants))


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a pullback is asked for.

    Attributes:
        call: The call of the unit.
        wants: Which of inputs and pieces derivatives are taken with respect to.
        present: Which results have a cotangent.
        kept: Of the derivatives, if they will be differentiated again.
    """

    call: Call
    wants: Flags
    present: Flags
    kept: Kept | None

    @property
    def width(self) -> int:
        """How many inputs and pieces there are."""
        return len(self.wants)

    @property
    def inputs(self) -> list[int]:
        """Which inputs are wanted."""
        return [i for i in range(self.call.inputs) if self.wants[i]]

    @property
    def pieces(self) -> list[int]:
        """Which pieces are wanted, counted by the unit's parameters."""
        return [i - self.call.inputs for i in range(self.call.inputs, self.width) if self.wants[i]]

    def outputs(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """The results that have a cotangent, of a graph to inputs and weights."""
        outputs = self.call.again(leaves[: self.call.inputs], leaves[self.call.inputs :])
        return [output for output, here in zip(outputs, self.present, strict=True) if here]


class _Pullback(Function):
    """Cotangents of a unit's results pulled back to its inputs and pieces, those that are wanted."""

    @staticmethod
    def forward(asked: _Asked, *tensors: Tensor) -> tuple[Tensor, ...]:
        (found,) = _pulled_back(asked, tensors[: asked.width], [tensors[asked.width :]])
        return tuple(found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.asked, ctx.slopes_of = inputs[0], inputs[0].call.unit
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise third(ctx.asked.call.unit)
        needs: Flags = ctx.needs_input_grad[1:]
        if not any(needs) or all(cotangent is None for cotangent in cotangents):
            return (None,) * (1 + len(needs))
        found = iter(_Second.apply(ctx.asked, needs, *ctx.saved_tensors, *cotangents))  # type: ignore[no-untyped-call]
        return (None, *(next(found) if need else None for need in needs))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], asked: _Asked, *tensors: Tensor) -> tuple[Any, Any]:
        rows = _rows(info.batch_size, tensors[asked.width :], in_dims[1 + asked.width :])
        return _stacked(_pulled_back(asked, tensors[: asked.width], rows))


class _Second(Function):
    """The derivative of a pullback: what cotangents of what it gives pull back to inputs, pieces and its cotangents."""

    @staticmethod
    def forward(asked: _Asked, needs: Flags, *tensors: Any) -> tuple[Tensor, ...]:
        (found,) = _pulled_back_twice(asked, needs, tensors[: len(needs)], [tensors[len(needs) :]])
        return tuple(found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], asked: _Asked, needs: Flags, *tensors: Any) -> tuple[Any, Any]:
        rows = _rows(info.batch_size, tensors[len(needs) :], in_dims[2 + len(needs) :])
        return _stacked(_pulled_back_twice(asked, needs, tensors[: len(needs)], rows))


def _rows(count: int, tensors: Row, dims: Sequence[int | None]) -> list[Row]:
    """For each vector its tensors, of tensors that hold those of all vectors in one dimension."""
    return [
        [t if t is None or dim is None else t.select(dim, index) for t, dim in zip(tensors, dims, strict=True)]
        for index in range(count)
    ]


def _stacked(rows: list[list[Tensor]]) -> tuple[Any, Any]:
    """What vmap takes: all vectors' tensors in one, and in which dimension they are."""
    columns = tuple(torch.stack(column) for column in zip(*rows, strict=True))
    return columns, (0,) * len(columns)


def _pulled_back(asked: _Asked, tensors: Sequence[Tensor], rows: Sequence[Row]) -> list[list[Tensor]]:
    """For each row of cotangents, the derivatives that are wanted; one exchange of pieces and one of sums for all."""
    unit, n = asked.call.unit, asked.call.inputs
    (weights,) = unit.gathered([piece.detach() for piece in tensors[n:]])
    found = _vjps(asked, [*tensors[:n], *weights], rows)
    del weights
    few = len(asked.inputs)
    pieces = unit.scattered([row[few:] for row in found], asked.pieces)
    return [[*row[:few], *own] for row, own in zip(found, pieces, strict=True)]


@torch.enable_grad()
def _vjps(asked: _Asked, tensors: Sequence[Tensor], rows: Sequence[Row]) -> list[list[Tensor]]:
    """The derivatives of a unit that are wanted, of whole tensors: inputs and weights."""
    leaves = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, asked.wants, strict=True)]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if asked.kept is None or len(rows) > 1:
        with asked.call.kept.again():
            outputs = asked.outputs(leaves)
        return [_derivatives(outputs, wanted, row, last=row is rows[-1]) for row in rows]
    with asked.call.kept.recorded():
        outputs = asked.outputs(leaves)
    with asked.kept.recorded() as slopes:
        slopes += _derivatives(outputs, wanted, rows[0], last=True)
    return [slopes]


def _derivatives(outputs: Sequence[Tensor], leaves: Sequence[Tensor], row: Row, *, last: bool) -> list[Tensor]:
    """The derivatives with respect to leaves of the products of outputs and cotangents, zero where there is none."""
    pairs = [
        (output, cotangent.detach().to(output.dtype))
        for output, cotangent in zip(outputs, row, strict=True)
        if cotangent is not None and output.requires_grad
    ]
    if not pairs or not leaves:
        return [torch.zeros_like(leaf) for leaf in leaves]
    reached, cotangents = zip(*pairs, strict=True)
    found = torch.autograd.grad(reached, leaves, cotangents, retain_graph=not last, allow_unused=True)
    return [torch.zeros_like(leaf) if part is None else part for part, leaf in zip(found, leaves, strict=True)]


def _pulled_back_twice(
    asked: _Asked, needs: Flags, tensors: Sequence[Tensor], rows: Sequence[Row]
) -> list[list[Tensor]]:
    """For each row of cotangents of a pullback's results, the derivatives that are needed; exchanges as above."""
    unit, n, width, few = asked.call.unit, asked.call.inputs, asked.width, len(asked.inputs)
    given = [tensor.detach() for tensor in tensors]
    local = [dict(zip(asked.pieces, row[few:], strict=True)) for row in rows]
    weights, *along = unit.gathered(given[n:width], *([row.get(i) for i in range(width - n)] for row in local))
    whole = [
        [*row[:few], *(wholes[i] if own[i] is not None else None for i in asked.pieces)]
        for row, own, wholes in zip(rows, local, along, strict=True)
    ]
    found = _second(asked, needs, [*given[:n], *weights, *given[width:]], whole)
    del weights, along, whole
    needed = [i - n for i in range(n, width) if needs[i]]
    start = sum(needs[:n])
    stop = start + len(needed)
    pieces = unit.scattered([row[start:stop] for row in found], needed)
    return [[*row[:start], *own, *row[stop:]] for row, own in zip(found, pieces, strict=True)]


@torch.enable_grad()
def _second(asked: _Asked, needs: Flags, tensors: Sequence[Tensor], rows: Sequence[Row]) -> list[list[Tensor]]:
    """The derivatives of a pullback that are needed, of whole tensors: inputs, weights and cotangents."""
    flags = (*map(any, zip(asked.wants, needs, strict=False)), *(True for _ in tensors[asked.width :]))
    leaves = [tensor.detach().requires_grad_(flag) for tensor, flag in zip(tensors, flags, strict=True)]
    with asked.call.kept.again():
        outputs = asked.outputs(leaves[: asked.width])
    pairs = [pair for pair in zip(outputs, leaves[asked.width :], strict=True) if pair[0].requires_grad]
    wanted = [leaf for leaf, want in zip(leaves, asked.wants, strict=False) if want]
    needed = [leaf for leaf, need in zip(leaves, needs, strict=True) if need]
    if not pairs:
        return [[torch.zeros_like(leaf) for leaf in needed] for _ in rows]
    reached, cotangents = zip(*pairs, strict=True)
    with asked.kept.again() if asked.kept is not None else nullcontext():
        slopes = torch.autograd.grad(reached, wanted, cotangents, create_graph=True, allow_unused=True)
    own = [leaf.detach() if slope is None else slope for slope, leaf in zip(slopes, wanted, strict=True)]
    return [_derivatives(own, needed, row, last=row is rows[-1]) for row in rows]
