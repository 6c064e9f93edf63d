"""The linear layers that neuron space serves, and a forward pass that is opened at their pre-activations."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hessdiag.curvature.pullback import batched_grad
from hessdiag.errors import first_line
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem

T = TypeVar("T")


class NotInNeuronSpaceError(Exception):
    """Why a problem has to be left to the general engine."""


@dataclass(frozen=True)
class NeuronLayer:
    """A linear layer that sees one vector per sample, and its place in the parameter vector."""

    module: nn.Linear
    layer: Layer

    @property
    def outputs(self) -> int:
        """Neurons."""
        return self.module.out_features

    @property
    def inputs(self) -> int:
        """Inputs per neuron, the bias not counted."""
        return self.module.in_features

    @property
    def has_bias(self) -> bool:
        """Whether the bias is differentiated too."""
        return self.layer.size > self.outputs * self.inputs

    def weights(self, first: int, last: int) -> slice:
        """Places of the weights of neurons `first` to `last`."""
        return slice(self.layer.start + first * self.inputs, self.layer.start + last * self.inputs)

    def biases(self, first: int, last: int) -> slice:
        """Places of the biases of neurons `first` to `last`."""
        start = self.layer.start + self.outputs * self.inputs
        return slice(start + first, start + last)


def neuron_layers(problem: Problem) -> list[NeuronLayer]:
    """The linear layers of a problem that neuron space can serve, as far as their form tells.

    Raises:
        NotInNeuronSpaceError: if there is none.
    """
    if len({parameter.dtype for parameter in problem.parameters}) > 1:
        raise NotInNeuronSpaceError("the parameters have several dtypes")
    owners: dict[Tensor, int] = {}
    for module in problem.model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[parameter] = owners.get(parameter, 0) + 1
    trained: set[Tensor] = set(problem.parameters)
    modules = dict(problem.model.named_modules(remove_duplicate=False))
    found = []
    for layer in problem.layer_slices:
        module = modules[layer.path]
        if type(module) is not nn.Linear or module.weight not in trained or owners[module.weight] > 1:
            continue
        expected = module.weight.numel() + (
            module.bias.numel() if module.bias is not None and module.bias in trained else 0
        )
        if layer.size == expected and (module.bias is None or owners[module.bias] == 1):
            found.append(NeuronLayer(module, layer))
    if not found:
        raise NotInNeuronSpaceError("the model has no linear layer of its own")
    return found


def shifted(
    layers: Sequence[NeuronLayer], batch: Any, evaluate: Callable[[], T]
) -> tuple[T, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What `evaluate` returns, with the inputs of every neuron layer and a zero that was added to its pre-activations.

    Raises:
        NotInNeuronSpaceError: if a layer is not reached, is used twice, or sees more than one vector per sample.
    """
    captured: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def inject(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if module in captured:
            raise NotInNeuronSpaceError("a linear layer is used more than once")
        if len(args) != 1 or args[0].ndim != 2 or len(args[0]) != batches.samples(batch):
            raise NotInNeuronSpaceError("a linear layer does not see one vector per sample")
        shift = torch.zeros_like(output, requires_grad=True)
        captured[module] = (args[0], shift)
        return output + shift

    with ExitStack() as stack:
        for neuron in layers:
            stack.callback(neuron.module.register_forward_hook(inject).remove)
        value = evaluate()
    if len(captured) < len(layers):
        raise NotInNeuronSpaceError("the loss does not reach every linear layer")
    inputs, shifts = zip(*(captured[neuron.module] for neuron in layers), strict=True)
    return value, inputs, shifts


def batched_or_refuse(
    outputs: Sequence[Tensor | None], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor | None]:
    """As `batched_grad`, where outputs may be constant; `None` for each input on which none depends.

    Raises:
        NotInNeuronSpaceError: if an operation cannot be batched.
    """
    pairs = [
        (output, cotangent)
        for output, cotangent in zip(outputs, cotangents, strict=True)
        if output is not None and output.requires_grad
    ]
    if not pairs:
        return [None] * len(inputs)
    try:
        return batched_grad([output for output, _ in pairs], inputs, [cotangent for _, cotangent in pairs])
    except RuntimeError as error:
        if ran_out(error):
            raise
        raise NotInNeuronSpaceError(f"an operation cannot be batched: {first_line(error)}") from error


def spans(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive parts of a range, of this size or 1.

    >>> list(spans(2, 7, 3))
    [(2, 5), (5, 7)]
    """
    for low in range(start, stop, max(size, 1)):
        yield low, min(low + max(size, 1), stop)
