"""In which order a model's layers are executed, and how deep each lies: seen in one evaluation, not in registration."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

_PRODUCTS = re.compile(r"linear|conv|mm|mul_?mat|matmul|mv|^dot$|einsum|tensordot|embedding|lstm|gru|rnn|attention")
_IN_PLACE = re.compile(r"[a-z0-9]_$|^__i[a-z]+__$|^__setitem__$")


@dataclass(frozen=True)
class Order:
    """The order of execution of some groups of parameters.

    Attributes:
        sequence: Numbers of the groups, first used first; those that were never used come last.
        depths: Of each group, by its own number, how many matrix products with parameters the data has passed once it
            has passed this one, counted from 1; `None` for groups that are not on the longest way from the data to the
            loss: norms, scalars of the loss, shortcuts and short branches.
    """

    sequence: tuple[int, ...]
    depths: tuple[int | None, ...]


def by_registration(groups: int) -> Order:
    """The order where none can be observed."""
    return Order(tuple(range(groups)), (None,) * groups)


@dataclass(frozen=True)
class _Signal:
    """What is known of where a tensor comes from.

    Attributes:
        parameters: Groups whose parameters it is made of, as long as no data is.
        level: Matrix products with parameters that the data in it has passed, along the longest way; `None` if there is
            no data in it.
        through: The groups of the last of these products.
    """

    parameters: frozenset[int] = frozenset()
    level: int | None = None
    through: frozenset[int] = frozenset()


@dataclass
class _Trace(TorchFunctionMode):
    """Follows parameters and data through every function of torch that one evaluation calls.

    A tensor without a record came out of something that is not seen (an autograd function of the user's), or is made
    anew. With a graph it counts as data that has passed all that was passed so far; without one, as a constant, or,
    in a product with a parameter, as data.
    """

    signals: MutableMapping[Tensor, _Signal]
    met: list[int] = field(default_factory=list)  # groups whose parameters met data, in order
    used: list[int] = field(default_factory=list)  # groups that were used at all
    levels: dict[int, int] = field(default_factory=dict)
    before: dict[int, frozenset[int]] = field(default_factory=dict)
    deepest: _Signal = _Signal(level=0)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, list(kwargs.values()))))
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        outputs = list(_tensors(result))
        if _IN_PLACE.search(name) and given:
            outputs.append(given[0])
        if given and outputs:
            signal = self._passed(name, given)
            if signal is not None:
                self.signals.update((tensor, signal) for tensor in outputs)
        return result

    def signal(self, tensor: Tensor) -> _Signal | None:
        """Where a tensor comes from, if that is known."""
        found = self.signals.get(tensor)
        if found is None and tensor.grad_fn is not None:
            return self.deepest
        return found

    def _passed(self, name: str, given: Sequence[Tensor]) -> _Signal | None:
        """Where the result of a function comes from; `None` if that is not known."""
        signals = [(tensor, self.signal(tensor)) for tensor in given]
        known = [signal for _, signal in signals if signal is not None]
        groups = [group for signal in known for group in sorted(signal.parameters)]
        product = _PRODUCTS.search(name) is not None
        data = [signal for signal in known if signal.level is not None]
        unknown = len(known) < len(signals)
        if product and groups and not data and unknown:
            data = [_Signal(level=0)]
        self.used += [group for group in groups if group not in self.used]
        if not data:
            return None if unknown and not groups else _Signal(frozenset(groups))
        self.met += [group for group in groups if group not in self.met]
        level = max(signal.level or 0 for signal in data)
        through = frozenset().union(*(signal.through for signal in data if signal.level == level))
        for tensor, signal in signals if product else ():  # attention takes two layers in one call, in order
            own = signal.parameters if signal is not None and tensor.ndim > 1 else frozenset()
            reached = max((self.levels.get(group, level + 1) for group in own), default=level)
            if reached <= level:  # used again: its depth is that of its first use
                continue
            for group in own - self.levels.keys():
                self.levels[group], self.before[group] = reached, through
            level, through = reached, own
        signal = _Signal(level=level, through=through)
        if level > (self.deepest.level or 0):
            self.deepest = signal
        return signal

    def order(self, groups: int, value: Tensor) -> Order:
        """What was seen, with the layers on the longest way to `value`."""
        first = list(dict.fromkeys([*self.met, *self.used]))
        rest = [group for group in range(groups) if group not in first]
        end = self.signal(value)
        depths: dict[int, int] = {}
        ahead = set(end.through) if end is not None else set()
        while ahead:
            depths |= {group: self.levels[group] for group in ahead}
            ahead = {group for last in ahead for group in self.before[last]} - depths.keys()
        return Order((*first, *rest), tuple(depths.get(group) for group in range(groups)))


def observed(
    parameters: Iterable[tuple[int, Tensor]],
    constants: Iterable[Tensor],
    data: Iterable[Tensor],
    evaluate: Callable[[], Tensor],
) -> Order:
    """Watch one evaluation.

    Args:
        parameters: Group and tensor of each parameter.
        constants: The model's buffers, which are no data.
        data: Tensors of the batch.
        evaluate: Computes the loss from all of them.

    Returns:
        The order of the groups.

    >>> import torch
    >>> a, b = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    >>> x = torch.ones(3, 2)
    >>> observed([(0, a), (1, b)], [], [x], lambda: (torch.tanh(x @ b) @ a).sum())
    Order(sequence=(1, 0), depths=(2, 1))
    """
    trace = _Trace(WeakTensorKeyDictionary())
    pairs = list(parameters)
    for tensor in data:
        trace.signals[tensor] = _Signal(level=0)
    for tensor in constants:
        trace.signals[tensor] = _Signal()
    for group, tensor in pairs:
        trace.signals[tensor] = _Signal(frozenset({group}))
    with trace:
        value = evaluate()
    return trace.order(1 + max(group for group, _ in pairs), value)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
