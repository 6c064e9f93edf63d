"""What was seen of each layer in one pass, with its weights and gradients, as numbers."""

import math
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem.order import Order
from hessdiag.questions.check.readings import LayerReading
from hessdiag.questions.check.watching.owned import Owned
from hessdiag.questions.check.watching.passing import Passing
from hessdiag.questions.check.watching.rows import copies, part
from hessdiag.questions.check.watching.seen import Seen
from hessdiag.questions.check.watching.signals import Signal, even_part, known, root_mean_square

Gradients = Mapping[int, Tensor | None]  # by identity of the parameters that are trained; `None` where none arrived

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_LOOKED_UP = (nn.Embedding, nn.EmbeddingBag)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def read(passing: Passing, gradients: Gradients, order: Order) -> tuple[LayerReading, ...]:
    """A reading of each layer, in the order of execution; last those never used whose parameters no other one uses."""
    joined = {other for seen in passing.seen for other in seen.joined}
    used = {id(item) for index in passing.order for item in passing.layers[index].parameters.values()}
    rest = [
        index
        for index, layer in enumerate(passing.layers)
        if index not in passing.order and not used >= {id(item) for item in layer.parameters.values()}
    ]
    return tuple(_reading(passing, index, gradients, order) for index in (*passing.order, *rest) if index not in joined)


def _reading(passing: Passing, index: int, gradients: Gradients, order: Order) -> LayerReading:
    layer, seen = passing.layers[index], passing.seen[index]
    biases = [item for other in seen.joined for item in passing.layers[other].parameters.values()]
    biases += [item for name, item in layer.parameters.items() if "bias" in name]
    parameters = [*layer.parameters.values(), *biases]
    parameters = list({id(item): item for item in parameters}.values())
    arrived = [found for item in parameters if (found := gradients.get(id(item))) is not None]
    trainable = any(id(item) in gradients for item in parameters)
    entries = sum(item.numel() for item in parameters if id(item) in gradients)
    matrices = _matrices(layer)
    weight_rms = _joint(matrices or parameters)
    fan_in = _fan_in(layer, seen, matrices)
    identical = None if fan_in is None else copies(layer.module, matrices, biases, seen.turned)
    slope = gradients.get(id(matrices[0])) if identical and len(matrices) == 1 else None
    taken, put, left = (_signal(one) for one in (seen.input, seen.output, seen.signal))
    samples = passing.samples
    return LayerReading(
        layer=layer.layer,
        kind=layer.kind,
        parameters=sum(item.numel() for item in parameters),
        trainable=trainable,
        reached=bool(arrived) if trainable else seen.calls > 0,
        calls=max(seen.calls, int(bool(arrived))),
        depth=order.depths[index] if index < len(order.depths) else None,
        activation=seen.activation,
        normalized=seen.normed and not seen.exposed,
        fan_in=fan_in,
        units=seen.units,
        rows=seen.rows,
        input_rms=known(taken.rms),
        input_variation=known(taken.variation),
        output_rms=known(put.rms),
        output_mean=known(put.mean),
        output_variation=known(put.variation),
        signal_rms=known(left.rms),
        signal_variation=known(left.variation),
        cosine=known(left.cosine),
        dead_fraction=_number(seen.dead, 0.0 if seen.output is not None else None),
        saturated_fraction=_number(seen.saturated, 0.0 if seen.output is not None else None),
        identical_fraction=identical,
        copies_part=slope is not None and part(layer.module, matrices[0], biases, seen.turned, slope),
        weight_rms=weight_rms,
        weight_gain=None if fan_in is None or weight_rms is None else weight_rms * fan_in**0.5,
        bias_mean=_mean(biases),
        bias_rms=_joint(biases),
        gradient_rms=_gradient_rms(arrived, entries),
        gradient_zero_fraction=_zero_fraction(arrived, entries),
        output_gradient_rms=_number(seen.output_gradient, None, samples),
        input_gradient_rms=_number(seen.input_gradient, None, samples),
    )


def _signal(values: Tensor | None) -> Signal:
    """The numbers of one tensor; none of one that was not seen."""
    return Signal(*[math.nan] * 5 if values is None else values.tolist())


def _number(value: Tensor | None, otherwise: float | None, times: float = 1.0) -> float | None:
    return otherwise if value is None else known(float(value) * times)


def _matrices(layer: Owned) -> list[Tensor]:
    """What of a layer multiplies: its weight as it is used, or all its matrices."""
    with torch.no_grad():
        weight = None if layer.alone else getattr(layer.module, "weight", None)
        if isinstance(weight, Tensor):
            return [weight] if weight.ndim > 1 else []
        return [item for name, item in layer.parameters.items() if item.ndim > 1 and "bias" not in name]


def _fan_in(layer: Owned, seen: Seen, matrices: Sequence[Tensor]) -> int | None:
    """Inputs of one unit; of transposed convolutions, on average."""
    module: Any = layer.module
    if not matrices or seen.looked_up or (not layer.alone and isinstance(module, _LOOKED_UP)):
        return None
    if layer.alone:
        if seen.output is None and seen.input is None:
            return None
    elif isinstance(module, _RECURRENT):
        return int(module.input_size + module.hidden_size)
    elif isinstance(module, nn.MultiheadAttention):
        return int(module.embed_dim)
    elif isinstance(module, _TRANSPOSED):
        shape = matrices[0].shape
        return max(1, round(shape[0] // module.groups * prod(shape[2:]) / prod(module.stride)))
    shape = matrices[0].shape
    return shape[0] if seen.turned else prod(shape[1:])


def _joint(parts: Sequence[Tensor]) -> float | None:
    """Root mean square of all entries of several tensors."""
    entries = sum(part.numel() for part in parts)
    if not entries:
        return None
    sizes = [float(root_mean_square(part)) * (part.numel() / entries) ** 0.5 for part in parts]
    largest = max(sizes)
    return known(largest * sum((size / largest) ** 2 for size in sizes) ** 0.5 if largest > 0 else largest)


def _mean(parts: Sequence[Tensor]) -> float | None:
    entries = sum(part.numel() for part in parts)
    return known(sum(float(part.detach().double().sum()) for part in parts) / entries) if entries else None


def _gradient_rms(arrived: Sequence[Tensor], entries: int) -> float | None:
    """Of all entries that are trained; where no gradient arrived it is zero."""
    size = _joint(arrived)
    return None if size is None else size * (sum(part.numel() for part in arrived) / entries) ** 0.5


def _zero_fraction(arrived: Sequence[Tensor], entries: int) -> float | None:
    if not arrived:
        return None
    return 1 - sum(_nonzero(part) for part in arrived) / entries


def _nonzero(part: Tensor) -> float:
    values = part if part.layout is torch.strided else part.coalesce().values()
    looked = even_part(values)
    return int(torch.count_nonzero(looked)) * values.numel() / max(len(looked), 1)
