"""Logits that are computed only where someone looks at their numbers: cross-entropy does without them.

What a head puts out is a tensor that knows where it comes from. It can be shifted, flattened and cast, as language
models do with it, and is then still known to be the head's output; `F.cross_entropy` of it goes through the vocabulary
in chunks. Whatever else is done with it finds the numbers there, with the derivatives that they would have had.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd import Function

from hessdiag.errors import ComputeError
from hessdiag.shards.vocabulary import logits
from hessdiag.shards.vocabulary.cross_entropy import cross_entropy
from hessdiag.shards.vocabulary.matrix import Matrix
from hessdiag.shards.vocabulary.targets import Targets

_aten = torch.ops.aten
_RAW = {Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.data_ptr, Tensor.untyped_storage}
_WATCHES = {Tensor.register_hook, Tensor.retain_grad}


class Source:
    """A linear layer at hidden states: what logits are computed from.

    Attributes:
        x: Hidden states (tokens, width), with their graph.
        piece: What this process has of the weight.
        bias: The whole bias, if there is one.
        matrix: How the weight lies in pieces.
        index: Which of the hidden states; all of them, where it is `None`.
        dtype: Of the logits.
        value: The logits (tokens, rows), once someone has asked for them.
        ways: What was done, for whoever wants to know: "chunks" or "logits".
        watched: Whether someone waits for the logits' own gradient.
    """

    def __init__(
        self,
        x: Tensor,
        piece: Tensor,
        bias: Tensor | None,
        matrix: Matrix,
        ways: set[str],
        dtype: torch.dtype,
        index: Tensor | None = None,
    ) -> None:
        self.x, self.piece, self.bias, self.matrix = x, piece, bias, matrix
        self.index, self.dtype, self.ways = index, dtype, ways
        self.value: Tensor | None = None
        self.watched = False
        self._version = x._version

    def like(self, *, index: Tensor | None = None, dtype: torch.dtype | None = None) -> "Source":
        """The same head at some of the tokens, or cast."""
        if index is None:
            index = self.index
        elif self.index is not None:
            index = self.index[index]
        other = Source(self.x, self.piece, self.bias, self.matrix, self.ways, dtype or self.dtype, index)
        other._version = self._version
        return other

    def states(self) -> Tensor:
        """The hidden states, of the tokens that are meant."""
        if self.x._version != self._version:
            raise ComputeError(
                "hidden states were changed in place after the head was applied to them.",
                "a copy of them: h = h + 1 instead of h += 1",
            )
        return self.x if self.index is None else self.x.index_select(0, self.index)

    def numbers(self) -> Tensor:
        """The logits, without a graph: to whom they are given has one."""
        if self.value is None:
            self.ways.add("logits")
            with torch.no_grad():
                x, bias = self.states().detach(), None if self.bias is None else self.bias.detach()
                self.value = logits.outputs(x, self.piece.detach(), bias, self.matrix).to(self.dtype)
        return self.value


class Logits(Tensor):
    """A view of the logits of a head, of any shape.

    Attributes:
        source: What they are computed from.
        apart: Whether they were detached: then nothing may reach the hidden states past them.
    """

    source: Source
    apart: bool

    @staticmethod
    def view_of(
        source: Source, shape: Sequence[int], stride: Sequence[int], offset: int = 0, *, apart: bool = False
    ) -> "Logits":
        """The numbers that lie so in the memory that (tokens, rows) logits would have."""
        options: Any = {"strides": stride, "storage_offset": offset, "dtype": source.dtype, "device": source.x.device}
        made: Logits = Tensor._make_wrapper_subclass(Logits, shape, **options)
        made.source, made.apart = source, apart
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take the cross-entropy in chunks, and leave the rest to torch."""
        kwargs = kwargs or {}
        if not all(kind in (Logits, Tensor, nn.Parameter) for kind in types):
            return NotImplemented  # a parameter in pieces, which knows better
        with torch._C.DisableTorchFunctionSubclass():
            if func is F.cross_entropy and (loss := _chunked(*args, **kwargs)) is not None:
                return loss
            if func in _WATCHES:
                args[0].source.watched = True
            if func in _RAW:
                args = (args[0].detach().numbers(), *args[1:])
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Views stay views; all else is done with the numbers."""
        kwargs = kwargs or {}
        if func.is_view or func is _aten._unsafe_view.default:
            apart = args[0].apart or func is _aten.detach.default
            seen = partial(args[0]._seen, apart=apart)
            return torch.utils._pytree.tree_map(seen, func(args[0]._shadow(), *args[1:], **kwargs))
        if (later := _copied(func, *args, **kwargs)) is not None:
            return later
        plain = torch.utils._pytree.tree_map_only(Logits, Logits.numbers, (args, kwargs))
        found = func(*plain[0], **plain[1])
        return args[0] if func._schema.is_mutable and isinstance(args[0], Logits) else found

    def numbers(self) -> Tensor:
        """What it stands for, without a graph."""
        return self.source.numbers().as_strided(self.shape, self.stride(), self.storage_offset())

    def _shadow(self) -> Tensor:
        """A tensor with no memory that lies as this one does."""
        rows = len(self.source.x) if self.source.index is None else len(self.source.index)
        memory = torch.empty(rows * self.source.matrix.rows, dtype=self.dtype, device="meta")
        return memory.as_strided(self.shape, self.stride(), self.storage_offset())

    def _seen(self, shadow: Tensor, apart: bool) -> "Logits":
        return Logits.view_of(self.source, shadow.shape, shadow.stride(), int(shadow.storage_offset()), apart=apart)

    def classes(self) -> int | None:
        """The dimension that runs over all classes; `None` if there is none such."""
        rows = self.source.matrix.rows
        pairs = list(zip(self.shape, self.stride(), strict=True))
        found = [index for index, pair in enumerate(pairs) if pair == (rows, 1)]
        others = [stride for size, stride in pairs if size > 1 and stride != 1]
        whole = self.storage_offset() % rows == 0 and all(stride % rows == 0 for stride in others)
        return found[0] if len(found) == 1 and whole else None

    def tokens(self, classes: int) -> Tensor:
        """Which token it is at each place of the other dimensions."""
        rows, device = self.source.matrix.rows, self.device
        index = torch.tensor(self.storage_offset() // rows, device=device)
        for dimension, (size, stride) in enumerate(zip(self.shape, self.stride(), strict=True)):
            if dimension != classes:
                index = index[..., None] + torch.arange(size, device=device) * (stride // rows)
        return index


class _Later(Function):
    """The logits, not computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, piece: Tensor, bias: Tensor | None, source: Source) -> Tensor:
        ctx.save_for_backward(x, piece)
        ctx.matrix = source.matrix
        return Logits.view_of(source, (len(x), source.matrix.rows), (source.matrix.rows, 1))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        x, piece = ctx.saved_tensors
        return *logits.slopes(ctx.needs_input_grad, slope, x, piece, ctx.matrix), None


def logits_later(x: Tensor, piece: Tensor, bias: Tensor | None, matrix: Matrix, ways: set[str]) -> Tensor:
    """`F.linear` of a weight in pieces, computed where its numbers are wanted; differentiable twice.

    Args:
        x: Hidden states (..., width).
        piece: What this process has of the weight.
        bias: The whole bias, if there is one.
        matrix: How the weight lies in pieces; of more than one row.
        ways: Here is written what was done: "chunks" or "logits".

    Returns:
        Logits (..., rows).
    """
    flat = x.reshape(-1, matrix.width)
    source = Source(flat, piece, bias, matrix, ways, flat.dtype)
    found: Tensor = _Later.apply(flat, piece, bias, source)  # type: ignore[no-untyped-call]
    return found.view(*x.shape[:-1], matrix.rows)


def _copied(func: Any, given: Any, *args: Any, **kwargs: Any) -> Logits | None:
    """A copy of logits that nobody has looked at, where it can wait too; `None` where it cannot."""
    if not isinstance(given, Logits) or given.source.value is not None or (classes := given.classes()) is None:
        return None
    if func is _aten._to_copy.default and not args and set(kwargs) <= {"dtype"}:
        source = given.source.like(dtype=kwargs["dtype"])
        return Logits.view_of(source, given.shape, given.stride(), int(given.storage_offset()), apart=given.apart)
    if func is _aten.clone.default and classes == given.ndim - 1:
        shape = given.shape
        source = given.source.like(index=given.tokens(classes).flatten())
        return Logits.view_of(source, shape, torch.empty(shape, device="meta").stride(), apart=given.apart)
    return None


def _chunked(
    given: Any,
    target: Any,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor | None:
    """`F.cross_entropy` with no logits; `None` where it takes something else than all logits of tokens."""
    if not isinstance(given, Logits) or given.apart or given.source.value is not None or given.source.watched:
        return None
    classes, source = given.classes(), given.source
    if classes != min(1, given.ndim - 1) or size_average is not None or reduce is not None:
        return None
    index = given.tokens(classes)
    labelled = isinstance(target, Tensor) and not isinstance(target, Logits) and not target.is_floating_point()
    if not labelled or target.shape != index.shape or reduction not in ("mean", "sum", "none"):
        return None
    rows = source.matrix.rows
    dtype = torch.promote_types(torch.promote_types(source.x.dtype, source.dtype), torch.float32)
    counted = target.flatten() != ignore_index
    labels = target.flatten().where(counted, 0)
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < rows:
        raise IndexError(f"labels run from {int(labels.min()):,} to {int(labels.max()):,}; there are {rows:,} classes")
    share = counted.to(dtype) if weight is None else weight.to(dtype)[labels] * counted
    everywhere = counted.to(dtype) * (label_smoothing / rows) if label_smoothing else None
    targets = Targets(labels, share * (1 - label_smoothing), everywhere, None if weight is None else weight.to(dtype))
    source.ways.add("chunks")
    states = source.like(index=index.flatten()).states()
    losses = cross_entropy(states, source.piece, source.bias, targets, source.matrix, dtype).to(source.dtype)
    if reduction == "none":
        return losses.view(target.shape)
    return losses.sum() / share.sum().to(source.dtype) if reduction == "mean" else losses.sum()
