"""The classes: rows of the layer that makes the logits, found by derivatives in one evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.parts.block import Found, aliases, entries, merged, starts
from hessdiag.problem.parts.products import Product, product
from hessdiag.problem.problem import Problem

_ELSE = "--by neuron, or a pattern of the last layer's name"
_LOSSES: dict[str, int | None] = {  # of torch's, and where in what they take the classes are
    "cross_entropy": 1,
    "nll_loss": 1,
    "binary_cross_entropy_with_logits": None,
    "binary_cross_entropy": None,
}


@dataclass(frozen=True, eq=False)
class _Logits:
    """What stands for classes: a tensor, and the dimension in which they are; `None` for that of the channels."""

    tensor: Tensor
    dimension: int | None


def classes(problem: Problem) -> Found:
    """One block for each class: its row of the layer that makes the logits, with its bias.

    The logits are what a loss of torch's takes as such, or the output, where targets of a squared error are one-hot.
    The layer is the last one that they depend on, provided that each of its outputs reaches the logit of its own class
    alone, which is looked at by derivatives.

    Args:
        problem: Whose parameters they are.

    Returns:
        Blocks named `class 0`, `class 1`, ... A note says which layer they are of, and what else has its weight.

    Raises:
        SpecError: if there are no classes, no such layer, or its parameters are not measured.

    >>> model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
    >>> found = classes(Problem(model, data=[(torch.ones(5, 2), torch.tensor([0, 1, 2, 0, 1]))], loss="ce"))
    >>> [(block.name, block.indices.tolist()) for block in found.blocks][1], found.notes
    (('class 1', [16, 17, 18, 19, 25]), ('a class is its row of 2.weight',))
    """
    layer, count = _last_layer(problem)
    start, weight = starts(problem), layer.weight
    rows = entries(weight, 0).movedim(layer.outputs, 0).flatten(1)
    tensors = [(weight, rows), *((bias, entries(bias, 0)[:, None]) for bias in _biases(problem, layer))]
    parts = [start[tensor] + places[:count] for tensor, places in tensors if tensor in start]
    modules = dict(problem.model.named_modules(remove_duplicate=False))
    tables = {path for path, module in modules.items() if isinstance(module, nn.Embedding)}
    label, *others = sorted(aliases(problem)[weight], key=lambda name: name.rpartition(".")[0] in tables)
    if not parts:
        raise SpecError(f"--by class: {label} is not measured: it is frozen, or left out.", "--layers '*'")
    shared = f", which is also {', '.join(others)} and counts once" if others else ""
    blocks = [merged(f"class {number}", "class", list(own)) for number, own in enumerate(zip(*parts, strict=True))]
    return Found(tuple(blocks), (f"a class is its row of {label}{shared}",))


def _biases(problem: Problem, layer: Product) -> list[nn.Parameter]:
    """The biases of the modules that own a weight."""
    found = [
        module._parameters.get("bias")
        for module in problem.model.modules()
        if any(parameter is layer.weight for parameter in module._parameters.values())
    ]
    return [bias for bias in found if bias is not None and bias.shape == (layer.weight.shape[layer.outputs],)]


def _last_layer(problem: Problem) -> tuple[Product, int]:
    """The product that makes the logits, and how many classes there are."""
    watch = _Watch()
    outputs: list[Any] = []
    handle = problem.model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with torch.enable_grad(), watch:
            problem.as_written(train_mode=False).evaluate(problem.data[0])
    finally:
        handle.remove()
    logits = watch.found or _one_hot(problem.data[0], outputs)
    if logits is None:
        what = "no loss of torch's takes logits of classes, and targets are not one-hot"
        raise SpecError(f"--by class: there are no classes: {what}.", _ELSE)
    known, tensor = aliases(problem), logits.tensor
    for call, result in reversed(watch.calls):
        if call.weight not in known or not _leads(tensor, result):  # the loss's own, or beside the logits
            continue
        dimension = logits.dimension
        if dimension is None:
            dimension = call.channels if tensor.shape == result.shape else -1
        count = tensor.shape[dimension]
        if count < 2:
            raise SpecError("--by class: there are no classes: the output is one number.", _ELSE)
        for which in {0, count // 2, count - 1}:
            if _channels(tensor.select(dimension, which), result, call.channels) != [which]:
                raise SpecError("--by class: the outputs of the last layer are no logits of single classes.", _ELSE)
        return call, count
    raise SpecError("--by class: the logits come from no linear or convolutional layer that is known.", _ELSE)


def _one_hot(batch: Any, outputs: Sequence[Any]) -> _Logits | None:
    """The output, where the target is of its shape and says one class of each row."""
    try:
        target, output = batches.split(batch)[1], batches.output_tensor(outputs[-1])
    except (LoadError, IndexError):
        return None
    if not isinstance(target, Tensor) or target.shape != output.shape or target.ndim < 2:
        return None
    ones = (target == 1).sum(-1)
    return _Logits(output, -1) if bool((ones == 1).all()) and int((target != 0).sum()) == ones.numel() else None


def _leads(tensor: Tensor, result: Tensor) -> bool:
    """Whether a tensor is made of a product's result."""
    if not (tensor.requires_grad and result.requires_grad):
        return False
    found = torch.autograd.grad(tensor.sum(), result, retain_graph=True, allow_unused=True)
    return found[0] is not None


def _channels(logit: Tensor, result: Tensor, dimension: int) -> list[int]:
    """The channels of a product's result that the logits of one class depend on."""
    cotangent = torch.rand(logit.shape, generator=torch.Generator().manual_seed(0)).to(logit)
    found = torch.autograd.grad(logit, result, cotangent, retain_graph=True)[0].movedim(dimension, 0)
    reached: list[int] = (found.reshape(len(found), -1) != 0).any(1).nonzero().flatten().tolist()
    return reached


class _Watch(TorchFunctionMode):
    """Keeps every product with a parameter, and what a loss takes as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Product, Tensor]] = []
        self.logits: _Logits | None = None
        self.logarithm: tuple[Tensor, _Logits] | None = None  # a softmax's result, and of what it is one

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        call = product(func, args, kwargs)
        given: Any = args[0] if args else kwargs.get("input")
        if call is not None:
            self.calls.append((call, result))
        elif name == "log_softmax":
            dimension = args[1] if len(args) > 1 else kwargs.get("dim")
            if isinstance(dimension, int):
                self.logarithm = result, _Logits(given, dimension)
        elif name in _LOSSES:
            self.logits = self._of_loss(given, _LOSSES[name])
        return result

    @property
    def found(self) -> _Logits | None:
        """What the last loss took; without one, what the last logarithm of a softmax is of."""
        return self.logits or (self.logarithm[1] if self.logarithm else None)

    def _of_loss(self, given: Tensor, dimension: int | None) -> _Logits:
        """What a loss takes; where that are log-probabilities, what they are made of."""
        if self.logarithm is not None:
            result, logits = self.logarithm
            if result.shape == given.shape and result.data_ptr() == given.data_ptr():
                return logits
        return _Logits(given, dimension if dimension is None else min(dimension, given.ndim - 1))
