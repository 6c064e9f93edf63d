"""The signal in every layer of the user's own network, with its own weights."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hessdiag.errors import LoadError
from hessdiag.nets.reinitialize import WeightLayer
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.problem import Problem
from hessdiag.questions.forward.model_norms import BatchNorm, called, evaluation
from hessdiag.questions.forward.own_result import OwnLayer, OwnSignal
from hessdiag.questions.forward.signals import Signal, tensor_of

CHANNELS_FIRST = nn.modules.conv._ConvNd


def own_signal(problem: Problem) -> OwnSignal:
    """One pass of all batches through the model as it is: how large the signal is, and how much samples differ.

    BatchNorm layers normalize by the batch where they came in training mode; dropout is off unless the problem is one
    of training mode.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> _ = nn.init.constant_(model[0].bias, -9.0)
    >>> own = own_signal(Problem(model, data=[(torch.ones(4, 2), torch.zeros(4, 1))], loss="mse"))
    >>> [(layer.name, layer.input_zero_units) for layer in own.layers]
    [('0', 0.0), ('2', 1.0)]
    """
    layers = {
        name or type(module).__name__: module for name, module in problem.model.named_modules() if _weighs(module)
    }
    norms = [module for module in problem.model.modules() if isinstance(module, BatchNorm)]
    with evaluation(problem), _watched(problem, layers) as seen:
        training = {id(norm) for norm in norms if norm.training}
        for batch in problem.data:
            seen.begin(batches.samples(batch))
            called(problem, {}, batch)
    output = seen.signals.get(("", "out"))
    return OwnSignal(
        samples=problem.n_samples,
        layers=tuple(_layer(name, layers[name], seen.signals) for name in seen.order),
        output_rms=None if output is None else output.rms,
        output_variation=None if output is None else output.variation,
        batch_statistics=len(training),
        unseen_norms=sum(id(norm) not in training and _unseen(norm) for norm in norms),
    )


def _weighs(module: nn.Module) -> bool:
    """Whether a module multiplies by matrices of its own, or looks rows of them up."""
    matrices = any(parameter.ndim > 1 for parameter in module._parameters.values() if parameter is not None)
    leaf = not any(True for _ in module.children()) or isinstance(module, nn.MultiheadAttention)
    parametrized = isinstance(module, WeightLayer) and isinstance(getattr(module, "weight", None), Tensor)
    return (matrices and leaf) or parametrized


def _unseen(norm: Any) -> bool:
    """Whether running statistics are those of a layer that has never seen data."""
    if norm.running_mean is None or norm.running_var is None:
        return False
    return not bool(norm.running_mean.any()) and bool((norm.running_var == 1).all())


class _Seen:
    """Signals by layer and side, in the order of the layers' first calls."""

    def __init__(self) -> None:
        self.signals: dict[tuple[str, str], Signal] = {}
        self.order: list[str] = []
        self._samples, self._calls = 0, Counter[tuple[str, str]]()

    def begin(self, samples: int) -> None:
        """The next batch."""
        self._samples = samples
        self._calls.clear()

    def add(self, name: str, side: str, value: Any, axis: int) -> None:
        """What a layer took or gave."""
        tensor, key = tensor_of(value), (name, side)
        if tensor is None or not tensor.ndim:
            return
        signal = self.signals.setdefault(key, Signal())
        signal.add(tensor, self._samples, self._calls[key])
        if name and tensor.ndim > 1:
            signal.add_units(tensor, axis)
        self._calls[key] += 1


@contextmanager
def _watched(problem: Problem, layers: dict[str, nn.Module]) -> Iterator[_Seen]:
    seen = _Seen()

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
        def watch(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            if name not in seen.order:
                seen.order.append(name)
            taken = args[0] if args else next(iter(named.values()), None)
            seen.add(name, "in", taken, _axis(module, taken))
            seen.add(name, "out", output, _axis(module, output))

        return watch

    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        try:
            tensor = batches.output_tensor(output)
        except LoadError:
            return
        if tensor.ndim:
            seen.add("", "out", tensor, -1)

    handles = [layer.register_forward_hook(hook(name), with_kwargs=True) for name, layer in layers.items()]
    handles.append(problem.model.register_forward_hook(end))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _axis(module: nn.Module, value: Any) -> int:
    """The dimension of units: channels of what convolutions take and give, the last one of others."""
    tensor = tensor_of(value)
    if isinstance(module, CHANNELS_FIRST) and tensor is not None:
        spatial = len(module.kernel_size)
        return tensor.ndim - spatial - 1
    return -1


def _layer(name: str, module: nn.Module, signals: dict[tuple[str, str], Signal]) -> OwnLayer:
    taken, given = signals.get((name, "in")), signals.get((name, "out"), Signal())
    bias = getattr(module, "bias", None)
    matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    variation = given.variation
    return OwnLayer(
        name=name,
        units=0 if given.zero is None else len(given.zero),
        input_units=None if taken is None or taken.zero is None else len(taken.zero),
        input_rms=None if taken is None else taken.rms,
        input_variation=None if taken is None else taken.variation,
        input_zero_units=None if taken is None else taken.zero_units,
        rms=given.rms,
        variation=variation,
        highest=given.highest if given.count else None,
        alike=given.alike and given.zero is not None and bool(variation),
        zero_weights=bool(matrices) and not any(bool(matrix.any()) for matrix in matrices),
        bias_mean=float(bias.detach().double().mean()) if isinstance(bias, Tensor) and bias.numel() else None,
    )
