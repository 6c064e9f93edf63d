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
from torch.nn.attention import SDPBackend, sdpa_kernel

from hessdiag.errors import ComputeError
from hessdiag.shards.hidden import PLAIN, hidden, refuse_hidden
from hessdiag.shards.kept import Kept
from hessdiag.shards.placeholder import OutsideUnitError
from hessdiag.shards.surroundings import Surroundings, watched
from hessdiag.shards.trees import Form, flattened, put_together
from hessdiag.shards.units import Forward, Unit

Flags = tuple[bool, ...]
Row = Sequence[Tensor | None]  # cotangents of one vector


def recomputed(unit: Unit) -> Forward:
    """A unit's forward pass that keeps its inputs alone, and runs again for its derivatives."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        flat, form = flattened((args, kwargs))
        refuse_hidden(unit, flat, "is given")
        call = Call(unit, form, tuple(item if not isinstance(item, Tensor) else _HERE for item in flat))
        tensors = [item for item in flat if isinstance(item, Tensor)]
        written = sorted(unit.writes_to)
        kept = [tensor.clone() if index in written else tensor for index, tensor in enumerate(tensors)]
        outputs = _Unit.apply(call, *kept, *unit.pieces)  # type: ignore[no-untyped-call]
        if written != sorted(unit.writes_to):  # the first time: what it writes to must not be what is kept
            return forward(*args, **kwargs)
        for index, changed in zip(written, outputs[len(outputs) - len(written) :], strict=True):
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


_HERE = object()  # where a tensor is in flat arguments or results


class Call:
    """One call of a unit: what is in its arguments and its results beside tensors, and how often it was run.

    Args:
        unit: The unit.
        form: How the arguments are put together.
        static: The flat arguments, with `_HERE` for tensors.
    """

    def __init__(self, unit: Unit, form: Form, static: tuple[Any, ...]) -> None:
        self.unit, self._form, self._static = unit, form, static
        self.inputs = sum(item is _HERE for item in static)
        self._results: tuple[Form, list[Any]] | None = None
        self._found = Surroundings()
        self._sums: list[Tensor] | None = None
        self.kept = Kept(unit)
        self.linear = _of_outputs.get()  # whether only cotangents are differentiated with respect to, in the end

    def _run(self, tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors among the results, and then those of its inputs that it writes to."""
        waiting = iter(tensors)
        flat = [next(waiting) if item is _HERE else item for item in self._static]
        args, kwargs = put_together(flat, self._form)
        with self.unit.filled(weights), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            found, form = flattened(self.unit.forward(*args, **kwargs))
        refuse_hidden(self.unit, found, "returns")
        after, _ = flattened((args, kwargs))
        if len(after) != len(flat) or any(now is not before for now, before in zip(after, flat, strict=True)):
            # It was given a list or a dict of its own, and whoever waits for what it wrote there would not find it.
            name = self.unit.path or "the model"
            raise OutsideUnitError(self.unit.parameters[0], f"{name} changes a list or dict that it is given.")
        self._results = (form, [item if not isinstance(item, Tensor) else _HERE for item in found])
        results = [item for item in found if isinstance(item, Tensor)]
        return (*results, *(tensors[index] for index in sorted(self.unit.writes_to)))

    def _held(self) -> list[tuple[int, int]]:
        """The tensors in objects among its arguments, and how often each was written to."""
        objects = [item for item in self._static if item is not _HERE and not isinstance(item, PLAIN)]
        return [(id(tensor), tensor._version) for item in objects for tensor in hidden(item)]

    def first(self, inputs: Sequence[Tensor], pieces: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The results without a graph, and what its writing to its inputs does to them."""
        (weights,) = self.unit.gathered(pieces)
        own = [tensor.detach().clone() for tensor in inputs]
        before = [tensor._version for tensor in own]
        held = self._held()
        with watched(self.unit.module, pieces[0].device) as self._found:
            outputs = self._run(own, weights)
        if self._held() != held:
            raise ComputeError(
                f"{self.unit.path or 'the model'} keeps tensors in an object that it is given, which would be there "
                "when it runs again, as derivatives of sharded models need.",
                "model.config.use_cache = False, or a model that returns what it keeps",
            )
        self.unit.writes_to |= {i for i, tensor in enumerate(own) if tensor._version != before[i]}
        self._sums = [_sums(output) for output in outputs]
        return _apart(outputs, own)

    def again(self, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The results with a graph that leads to leaves.

        Raises:
            ComputeError: if they are others than the first time.
        """
        written = self.unit.writes_to
        with self._found.put(weights[0].device):
            outputs = self._run([x.clone() if i in written else x for i, x in enumerate(inputs)], weights)
        if self._sums is not None:
            sums, self._sums = self._sums, None  # once is enough: the second time is as the first
            if len(sums) != len(outputs) or not all(map(_same, sums, map(_sums, outputs), outputs)):
                raise ComputeError(
                    f"{self.unit.path or 'the model'} gives other numbers when it runs again, as derivatives of "
                    "sharded models need.",
                    "a forward pass without random numbers, and without anything that it keeps for its next run",
                )
        return outputs

    def result(self, outputs: Sequence[Tensor]) -> Any:
        """What the unit returns."""
        assert self._results is not None
        form, static = self._results
        waiting = iter(outputs)
        return put_together([next(waiting) if item is _HERE else item for item in static], form)


def _sums(output: Tensor) -> Tensor:
    """By which two runs are compared: the sum of the numbers, and of their sizes."""
    numbers = output.detach()
    if not numbers.is_floating_point():
        numbers = numbers.abs() if numbers.is_complex() else numbers.double()
    wide = torch.promote_types(numbers.dtype, torch.float32)
    return torch.stack([numbers.sum(dtype=wide), torch.linalg.vector_norm(numbers, 1, dtype=wide)])


def _same(before: Tensor, now: Tensor, output: Tensor) -> bool:
    """Whether sums differ by no more than rounding; of what is not finite nothing is known."""
    eps = torch.finfo(output.dtype).eps if _varies(output) else 0.0
    return not bool((before - now).abs()[0] > eps**0.75 * before[1])


def _varies(output: Tensor) -> bool:
    return output.is_floating_point() or output.is_complex()


def _apart(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Results that autograd can take for tensors of their own.

    A view may not be changed in place where it leaves a function. That is so only where another tensor would change
    with it: an input that is handed through, or two results of the same memory.
    """
    homes = [tensor.untyped_storage().data_ptr() for tensor in (*outputs, *inputs)]
    return tuple(
        output.view_as(output)
        if homes.count(home) > 1
        else output.new_empty(0).set_(output)  # type: ignore[call-overload]
        if output._is_view()
        else output
        for output, home in zip(outputs, homes, strict=False)
    )


class _Unit(Function):
    """A unit of its inputs and pieces."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        outputs = call.first(tensors[: call.inputs], tensors[call.inputs :])
        ctx.mark_non_differentiable(*(output for output in outputs if not _varies(output)))
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
        ctx.asked = inputs[0]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ComputeError("sharded models have no third derivatives.", "without --shard")
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
