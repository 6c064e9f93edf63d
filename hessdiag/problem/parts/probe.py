"""Which channels of queries, keys and values make which head: found by derivatives in one evaluation, not by names.

What the layers for queries, keys and values put out is replaced by random numbers, and what the next linear layer takes
of them is differentiated. Which of these derivatives are zero is all that is used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hessdiag.errors import HessdiagError
from hessdiag.problem.parts.attention import Attention
from hessdiag.problem.parts.products import product
from hessdiag.problem.problem import Problem

_SCALE = 0.3  # of the random numbers: attention to many tokens at once, in any of the usual scalings
_TRIES = 8  # tokens, of which one must see another

UNSEEN = "its layers were not seen in a forward pass on the first batch"
ALONE = "every token of the first batch sees itself alone: sequences of two tokens or more would tell"
NARROW = "neighbouring inputs of its output layer belong to two heads, which are interleaved or of one dimension"
UNUSED = "some of what its layers make reaches no head"
MIXED = "its heads are not slices of what the output layer takes, as where a norm goes over all of them"


@dataclass(frozen=True, eq=False)
class Slices:
    """What one head consists of.

    Attributes:
        heads: The query heads that it serves.
        channels: Of each projection that has some, by number, which channels.
    """

    heads: tuple[int, ...]
    channels: Mapping[int, Tensor]


@dataclass(frozen=True, eq=False)
class Layout:
    """How the heads of one attention lie.

    Attributes:
        queries: Of each head its channels.
        keys: The same of keys, of which several heads may share one.
        values: The same of values.
        output: Weight of the layer that takes the heads.
        axis: That of the layer's inputs in its weight.
        columns: Of each head which of these inputs.
    """

    queries: tuple[Slices, ...]
    keys: tuple[Slices, ...]
    values: tuple[Slices, ...]
    output: nn.Parameter
    axis: int
    columns: tuple[Tensor, ...]


class _UnknownError(Exception):
    """No heads can be told, for the reason that it says."""


def layouts(problem: Problem, some: Sequence[Attention]) -> list[Layout | str]:
    """The layout of each attention, or why it cannot be told. One evaluation of the first batch.

    Args:
        problem: Whose model they are in.
        some: Attention of any kind but torch's own.

    Returns:
        One for each of them.

    Raises:
        ComputeError: if model, batch and loss do not fit.
    """
    watch = _Watch([_Pending(one) for one in some])
    try:
        with _idle(norm for one in some for norm in one.norms), torch.enable_grad(), watch:
            problem.as_written(train_mode=False).evaluate(problem.data[0])
    except (HessdiagError, RuntimeError):  # what random numbers do to the loss does not matter
        if all(one.layout == UNSEEN for one in watch.pending):
            problem.evaluate(problem.data[0])  # which says what is wrong without them
    return [one.layout for one in watch.pending]


@contextmanager
def _idle(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Let layers put out what they are given: a norm over all heads would let each depend on the others' queries."""

    def given(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        same = bool(inputs) and isinstance(output, Tensor) and getattr(inputs[0], "shape", None) == output.shape
        return inputs[0] if same else output

    with ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_hook(given).remove)
        yield


@dataclass
class _Pending:
    """One attention on the way."""

    attention: Attention
    made: dict[int, Tensor] = field(default_factory=dict)  # what stands for the output of each projection
    layout: Layout | str = UNSEEN
    done: bool = False

    @property
    def ready(self) -> bool:
        return not self.done and len(self.made) == len(self.attention.projections)


class _Watch(TorchFunctionMode):
    """Replaces the output of projections, and looks at what the next layer takes of it."""

    def __init__(self, pending: list[_Pending]) -> None:
        super().__init__()
        self.pending = pending
        self.generator = torch.Generator().manual_seed(0)
        self.owners: dict[nn.Parameter, list[tuple[_Pending, int]]] = {}  # several, where attentions share a weight
        for one in pending:
            for number, projection in enumerate(one.attention.projections):
                self.owners.setdefault(projection.weight, []).append((one, number))

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        call = product(func, args, kwargs or {})
        if call is None or call.weight.ndim != 2:
            return result
        if call.weight in self.owners:
            return self._replaced(call.weight, result)
        for one in self.pending:
            if one.ready and _depends(call.data, list(one.made.values())):
                found = _layout([one.made[number] for number in range(len(one.made))], call.data, self.generator)
                if isinstance(found, str):
                    one.layout = found
                else:
                    one.layout = _believed(one, Layout(*found[:3], call.weight, call.inputs, found[3]))
                one.made, one.done = {}, True
        return result

    def _replaced(self, weight: nn.Parameter, result: Tensor) -> Tensor:
        waiting = ((one, number) for one, number in self.owners[weight] if number not in one.made and not one.done)
        one, number = next(waiting, (None, 0))
        if one is None:  # used again
            return result
        noise = torch.randn(result.shape, generator=self.generator, dtype=torch.float64) * _SCALE
        one.made[number] = noise.to(result).requires_grad_()
        return one.made[number]


def _believed(one: _Pending, layout: Layout) -> Layout | str:
    """The layout, unless the module says that it has another number of heads."""
    said = one.attention.declared
    if said in (None, len(layout.columns)):
        return layout
    return f"it says that it has {said} of them, and derivatives show {len(layout.columns)}"


def _depends(data: Any, leaves: Sequence[Tensor]) -> bool:
    """Whether a graph leads from the data to one of the leaves."""
    if not isinstance(data, Tensor) or data.grad_fn is None:
        return False
    found = torch.autograd.grad(data.sum(), leaves, allow_unused=True, retain_graph=True)
    return any(gradient is not None for gradient in found)


def _layout(
    leaves: Sequence[Tensor], taken: Tensor, generator: torch.Generator
) -> tuple[tuple[Slices, ...], tuple[Slices, ...], tuple[Slices, ...], tuple[Tensor, ...]] | str:
    """The heads of an attention, from what stands for the output of its projections and what is taken of them.

    A query is seen by its own token alone, where a key or a value is seen by others. A column of the output layer sees
    one channel of the values, and all queries and keys of its head.
    """

    def derivative(cotangent: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(taken, leaves, cotangent.to(taken), retain_graph=True, materialize_grads=True)
        return [gradient.flatten(0, -2) for gradient in found]

    def reached(columns: Tensor) -> Tensor:
        """Channels of all projections that some inputs of the output layer depend on."""
        cotangent = torch.zeros(taken.shape, dtype=torch.float64)
        cotangent[..., columns] = torch.randn(*taken.shape[:-1], len(columns), generator=generator, dtype=torch.float64)
        return torch.cat([(gradient != 0).any(0).cpu() for gradient in derivative(cotangent)])

    try:
        queries = _queries(taken, derivative, generator)
        columns = _columns(taken, leaves, generator)
        width = _head_width(columns, lambda column: reached(column[None]) & queries)
        if width == 1:
            return NARROW
        heads = torch.split(columns, width)
        of_head = [reached(head) for head in heads]
        even, odd = (reached(torch.cat([head[start::2] for head in heads])) for start in (0, 1))
        values = (even ^ odd) & ~queries
        keys = ~queries & ~values
        lengths = [leaf.shape[-1] for leaf in leaves]
        q, k, v = (_slices([head & which for head in of_head], lengths) for which in (queries, keys, values))
    except _UnknownError as error:
        return str(error)
    everything = torch.stack(of_head).any(0)
    return (q, k, v, tuple(heads)) if bool(everything.all()) else UNUSED


def _queries(taken: Tensor, derivative: Callable[[Tensor], list[Tensor]], generator: torch.Generator) -> Tensor:
    """Which channels of all projections are queries: of no token but its own does one see them."""
    rows = taken.numel() // taken.shape[-1]
    for row in torch.linspace(rows - 1, 0, min(rows, _TRIES)).round().long().tolist():
        cotangent = torch.zeros(rows, taken.shape[-1], dtype=torch.float64)
        cotangent[row] = torch.randn(taken.shape[-1], generator=generator, dtype=torch.float64)
        tokens = torch.cat([(one != 0).sum(0).cpu() for one in derivative(cotangent.reshape(taken.shape))])
        if bool((tokens > 1).any()):
            return tokens == 1
    raise _UnknownError(ALONE)


def _columns(taken: Tensor, leaves: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Which inputs of the output layer depend on the projections at all: a derivative along random directions."""
    cotangent = torch.zeros_like(taken, requires_grad=True)
    back = torch.autograd.grad(taken, leaves, cotangent, create_graph=True, materialize_grads=True)
    along = [torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one) for one in back]
    pairs = [(one, direction) for one, direction in zip(back, along, strict=True) if one.requires_grad]
    (forth,) = torch.autograd.grad([one for one, _ in pairs], cotangent, [direction for _, direction in pairs])
    return (forth.flatten(0, -2) != 0).any(0).nonzero().flatten().cpu()


def _head_width(columns: Tensor, queries_of: Callable[[Tensor], Tensor]) -> int:
    """How many columns a head has: the nearest column, of those that may begin the next one, with other queries."""
    first = queries_of(columns[0])
    if not bool(first.any()):
        raise _UnknownError(MIXED)
    total = len(columns)
    for width in range(1, total):
        if total % width == 0 and not bool((queries_of(columns[width]) & first).any()):
            return width
    return total


def _slices(of_head: Sequence[Tensor], lengths: Sequence[int]) -> tuple[Slices, ...]:
    """The channels of some kind, head by head; heads that have the same ones share them."""
    groups: list[tuple[Tensor, list[int]]] = []
    for head, channels in enumerate(of_head):
        same = next((heads for known, heads in groups if torch.equal(known, channels)), None)
        if same is not None:
            same.append(head)
            continue
        if any(bool((known & channels).any()) for known, _ in groups):
            raise _UnknownError(MIXED)
        groups.append((channels, [head]))
    return tuple(
        Slices(
            tuple(heads),
            {
                number: part.nonzero().flatten()
                for number, part in enumerate(torch.split(channels, list(lengths)))
                if bool(part.any())
            },
        )
        for channels, heads in groups
    )
