"""The output units of layers: of each a row of the weight and an entry of the bias."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from hessdiag.problem.parts.block import Block, Found, entries, merged, starts
from hessdiag.problem.problem import Problem

Tensors = Sequence[tuple[nn.Parameter, Tensor]]

_UNITS = (nn.Linear, _ConvNd, nn.Bilinear)


def transposed(module: nn.Module) -> bool:
    """Whether a linear layer keeps its weight as (in, out): transformers' `Conv1D`, known by its form."""
    weight = module._parameters.get("weight")
    named = type(module).__name__ == "Conv1D" and not isinstance(module, _ConvNd)
    return named and weight is not None and weight.ndim == 2 and getattr(module, "nf", None) == weight.shape[1]


def neurons(problem: Problem) -> Found:
    """One block for each output unit of the linear and convolutional layers: what its weighted sum is made of.

    Args:
        problem: Whose parameters they are.

    Returns:
        Blocks in the order of registration, named `layer[unit]`.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> found = neurons(Problem(model, data=[(torch.zeros(4, 2), torch.zeros(4, 1))], loss="mse"))
    >>> [(block.name, block.indices.tolist()) for block in found.blocks[1:]]
    [('0[1]', [2, 3, 7]), ('0[2]', [4, 5, 8]), ('2[0]', [9, 10, 11, 12])]
    """
    start = starts(problem)
    owner: dict[nn.Parameter, str] = {}
    blocks: list[Block] = []
    notes: list[str] = []
    for path, module in problem.model.named_modules():
        own: list[nn.Parameter] = []
        for label, tensors in _layers(path or type(module).__name__, module):
            notes += [
                f"{label} and {owner[parameter]} share a weight: it counts once, for {owner[parameter]}"
                for parameter, _ in tensors
                if parameter in owner and parameter in start
            ]
            parts = [start[one] + rows for one, rows in tensors if one in start and one not in owner]
            blocks += [
                merged(f"{label}[{unit}]", "neuron", list(rows)) for unit, rows in enumerate(zip(*parts, strict=True))
            ]
            own += [parameter for parameter, _ in tensors]
        owner |= {parameter: path for parameter in own if parameter not in owner}
    return Found(tuple(blocks), tuple(notes))


def _layers(label: str, module: nn.Module) -> Iterator[tuple[str, Tensors]]:
    """The layers in a module, and of each of their tensors which entries belong to which unit, (units, entries)."""
    if isinstance(module, nn.MultiheadAttention):
        yield from _projections(label, module)
    elif isinstance(module, _UNITS) or transposed(module):
        weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
        rows = [] if weight is None else [(weight, _rows(module, weight))]
        yield label, rows if bias is None else [*rows, (bias, entries(bias, 0)[:, None])]


def _rows(module: Any, weight: nn.Parameter) -> Tensor:
    places = entries(weight, 0)
    if isinstance(module, _ConvTransposeNd):  # (in, out / groups, ...), the inputs of one group after another
        grouped = places.reshape(module.groups, module.in_channels // module.groups, weight.shape[1], -1)
        return grouped.transpose(1, 2).reshape(module.out_channels, -1)
    return places.T if transposed(module) else places.reshape(len(weight), -1)


def _projections(label: str, module: nn.MultiheadAttention) -> Iterator[tuple[str, Tensors]]:
    """Queries, keys and values of torch's attention; its output layer is a module of its own."""
    width, bias = module.embed_dim, module.in_proj_bias
    of_bias = None if bias is None else entries(bias, 0)[:, None]
    for number, letter in enumerate("qkv"):
        rows = slice(number * width, (number + 1) * width)
        fused, own = module._parameters["in_proj_weight"], module._parameters[f"{letter}_proj_weight"]
        weight = [(fused, entries(fused, 0)[rows])] if fused is not None else []
        weight += [(own, entries(own, 0))] if own is not None else []
        yield f"{label}.{letter}", [*weight, *([] if bias is None or of_bias is None else [(bias, of_bias[rows])])]
