"""Tables and heads as parameters: `F.embedding` and `F.linear` of them are computed without the whole weight."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hessdiag.errors import SpecError
from hessdiag.machine.ranks import ranks
from hessdiag.shards.placeholder import Placeholder, running
from hessdiag.shards.units import Forward, Unit
from hessdiag.shards.vocabulary.logits import linear
from hessdiag.shards.vocabulary.logits_later import logits_later
from hessdiag.shards.vocabulary.lookup import look_up
from hessdiag.shards.vocabulary.matrix import Matrix
from hessdiag.shards.vocabulary.whole import whole

LEAST = 2**20  # numbers of a weight from which on it is streamed: below, to gather it at once costs nothing
CLASSES = 4  # outputs per input from which on a linear layer is taken for a head, that a loss may do without


class Streamed(Placeholder):
    """The weight or bias of an embedding or a linear layer that is never whole.

    Wherever it is used, not only in its module, `F.embedding` and `F.linear` work; everything else is refused. So are
    they in a unit that recomputes itself and does not own it: what it computes would have no graph to this one.

    Attributes:
        ways: What was done with a head's output: "chunks" for a loss that did without logits, "logits" for these;
            "asked" where they were asked for, see `all_logits`.
    """

    ways: set[str]

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Look up, multiply, or answer and refuse as other parameters do."""
        free = running.get() is None and isinstance(_argument(args, kwargs, 1, "weight"), Streamed)
        if free and func is F.embedding:
            return _embedding(*args, **(kwargs or {}))
        if free and func is F.linear:
            bias = _argument(args, kwargs, 2, "bias")
            if bias is None or isinstance(bias, Streamed) or not isinstance(bias, Placeholder):
                return _linear(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Placeholder":
        return _turned(super().__deepcopy__(memo), self.ways)


def streamed(unit: Unit) -> Forward | None:
    """The kind of unit that needs no gathering: its own forward pass, if its weight is streamed."""
    if not stream(unit.module):
        return None
    unit.is_whole = False
    return unit.forward


def stream(unit: nn.Module) -> bool:
    """Let the weight of an embedding or a linear layer be streamed, if it is large and nothing else is done with it.

    Args:
        unit: A module with placeholders for parameters, that would be gathered on its own.

    Returns:
        Whether it is: then it needs no gathering.

    >>> stream(nn.Linear(3, 2))
    False
    """
    own = dict(unit.named_parameters())
    if not own.keys() <= {"weight", "bias"} or not all(isinstance(item, Placeholder) for item in own.values()):
        return False
    known = isinstance(unit, nn.Embedding) or type(unit).forward is nn.Linear.forward
    weight = own.get("weight")
    if not known or weight is None or weight.ndim != 2 or weight.numel() < LEAST:
        return False
    for parameter in own.values():
        if not isinstance(parameter, Streamed):
            _turned(parameter, set())
    return True


def ways(model: nn.Module, *, asked: bool = False) -> str | None:
    """What was done with the outputs of heads, in words; `None` where none was used yet.

    Args:
        model: With streamed heads, or any.
        asked: Whether to tell of those that were called in `all_logits`, and else of the others.
    """
    found = {way for item in model.parameters() if isinstance(item, Streamed) for way in item.ways}
    return WORDS.get(frozenset(found & {"asked"} if asked else found - {"asked"}))


_all: ContextVar[bool] = ContextVar("all_logits", default=False)


@contextmanager
def all_logits() -> Iterator[None]:
    """Let heads that are called inside give logits that are there, as what is differentiated in them needs."""
    token = _all.set(True)
    try:
        yield
    finally:
        _all.reset(token)


WORDS = {
    frozenset({"chunks"}): "cross-entropy of the head in chunks of the vocabulary",
    frozenset({"logits"}): "logits of the head whole, since the loss is not cross-entropy of them alone",
    frozenset({"asked"}): "logits of the head whole, for this matrix is taken through them",
    frozenset({"chunks", "logits"}): "cross-entropy of the head in chunks, and its logits whole, which the model uses",
}


def _turned(parameter: Any, ways: set[str]) -> Placeholder:
    parameter.__class__ = Streamed
    parameter.ways = ways
    found: Streamed = parameter
    return found


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any] | None, position: int, name: str) -> Any:
    return args[position] if len(args) > position else (kwargs or {}).get(name)


def _embedding(
    input: Tensor,
    weight: Streamed,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`F.embedding`; gradients are dense."""
    for name, given in (("max_norm", max_norm is not None), ("scale_grad_by_freq", scale_grad_by_freq)):
        if given:
            raise SpecError(
                f"{weight.path or 'an embedding'} has {name}, which its gradient is not the derivative of.",
                f"the embedding without {name}; or without --shard",
            )
    return look_up(input, weight.piece, _matrix(weight), padding_idx)


def _linear(input: Tensor, weight: Streamed, bias: Tensor | None = None) -> Tensor:
    """`F.linear`; of what may be a head, the outputs are computed later."""
    matrix = _matrix(weight)
    if isinstance(bias, Streamed):
        bias = whole(bias.piece, matrix.rows)
    if matrix.rows > CLASSES * matrix.width:
        if not _all.get():
            return logits_later(input, weight.piece, bias, matrix, weight.ways)
        weight.ways.add("asked")
    return linear(input, weight.piece, bias, matrix)


def _matrix(weight: Streamed) -> Matrix:
    return Matrix(weight.shape[0], weight.shape[1], *ranks())
