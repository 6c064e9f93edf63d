"""In which order a model's layers are executed, and how deep each lies: seen in one evaluation, not in registration."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

_PRODUCTS = re.compile(r"linear|conv|mm|mul_?mat|matmul|mv|^dot$|einsum|tensordot|embedding|lstm|gru|rnn|attention")


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
class Trace(TorchFunctionMode):
    """Follows parameters and data through every function of torch that one evaluation calls.

    A tensor that came out of something that is not seen (an autograd function of the user's, an assignment) is known by
    its graph. Without one it is a constant, or, in a product with a parameter, data.
    """

    signals: MutableMapping[Tensor, tuple[_Signal, Any]]  # beside each, the node of the graph that it was recorded at
    nodes: dict[Any, _Signal] = field(default_factory=dict)
    met: list[int] = field(default_factory=list)  # groups whose parameters met data, in order
    used: list[int] = field(default_factory=list)  # groups that were used at all
    levels: dict[int, int] = field(default_factory=dict)
    before: dict[int, frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        signals = [(tensor, self.signal(tensor)) for tensor in _tensors((args, list(kwargs.values())))]
        result = func(*args, **kwargs)
        outputs = list(_tensors(result))
        if signals and outputs:
            signal = self._passed(getattr(func, "__name__", ""), signals)
            if signal is not None:
                for tensor in outputs:
                    self.record(tensor, signal)
        return result

    def record(self, tensor: Tensor, signal: _Signal) -> None:
        """Keep where a tensor comes from."""
        self.signals[tensor] = (signal, tensor.grad_fn)
        if tensor.grad_fn is not None:
            self.nodes[tensor.grad_fn] = signal

    def signal(self, tensor: Tensor) -> _Signal | None:
        """Where a tensor comes from, if that is known."""
        entry = self.signals.get(tensor)
        if entry is not None and (tensor.grad_fn is None or tensor.grad_fn is entry[1]):
            return entry[0]
        return None if tensor.grad_fn is None else self._behind(tensor.grad_fn)

    def _behind(self, node: Any) -> _Signal | None:
        """What the graph of a tensor that was not seen to be made leads back to."""
        ahead, seen, known = [node], set(), []
        while ahead:
            node = ahead.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = self.signals.get(node.variable) if hasattr(node, "variable") else None
            found = self.nodes.get(node) if leaf is None else leaf[0]
            if found is None:
                ahead += [successor for successor, _ in node.next_functions]
            else:
                known.append(found)
        level = max((signal.level for signal in known if signal.level is not None), default=None)
        return _joined(known, level) if known else None

    def _passed(self, name: str, signals: Sequence[tuple[Tensor, _Signal | None]]) -> _Signal | None:
        """Where the result of a function comes from; `None` if that is not known."""
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
        through = _joined(data, level).through
        for tensor, signal in signals if product else ():  # attention takes two layers in one call, in order
            own = signal.parameters if signal is not None and tensor.ndim > 1 else frozenset()
            reached = max((self.levels.get(group, level + 1) for group in own), default=level)
            if reached <= level:  # used again: its depth is that of its first use
                continue
            for group in own - self.levels.keys():
                self.levels[group], self.before[group] = reached, through
            level, through = reached, own
        return _Signal(level=level, through=through)

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


def _joined(signals: Sequence[_Signal], level: int | None) -> _Signal:
    """What comes of several tensors together: the longest way of the data in them, or their parameters."""
    if level is None:
        return _Signal(frozenset().union(*(signal.parameters for signal in signals)))
    return _Signal(level=level, through=frozenset().union(*(s.through for s in signals if s.level == level)))


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
    pairs = list(parameters)
    trace = tracing(pairs, constants, data)
    with trace:
        value = evaluate()
    return trace.order(1 + max(group for group, _ in pairs), value)


def tracing(parameters: Iterable[tuple[int, Tensor]], constants: Iterable[Tensor], data: Iterable[Tensor]) -> Trace:
    """What `observed` enters to watch, for an evaluation that something else is watched in as well."""
    trace = Trace(WeakTensorKeyDictionary())
    for tensor in data:
        trace.record(tensor, _Signal(level=0))
    for tensor in constants:
        trace.record(tensor, _Signal())
    for group, tensor in parameters:
        trace.record(tensor, _Signal(frozenset({group})))
    return trace


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
