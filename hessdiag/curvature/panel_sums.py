"""Absolute sums of neuron space's panels, and the diagonal, where a panel's traffic takes longer than its arithmetic.

A panel is written once and read twice; its absolute values are nowhere. Weights and biases of a neuron are columns of
one product, which zeros fill up to whole lines of memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.curvature.neuron_space import Factor, NeuronSpace

LINE = 8  # numbers to whose multiples the columns of a product are filled up


@dataclass(frozen=True)
class PanelSums:
    """Of H[rows, weights and biases of some neurons], in absolute values.

    Attributes:
        factor: Which entries.
        rows: Sums over the columns, (rows,).
        columns: Sums over the rows, (neurons, inputs and bias); `None` where the entries are not mirrored.
        diagonal: Entries of H's diagonal among them, and their places; `None` where there are none.
    """

    factor: Factor
    rows: Tensor
    columns: Tensor | None
    diagonal: tuple[slice, Tensor] | None


def panel_sums(space: NeuronSpace, lower: int, first: int, last: int) -> Iterator[PanelSums]:
    """Of all panels of neurons `first` to `last` of a layer, as `NeuronSpace.panels_of` has them."""
    ones = space.ones[lower]
    width = ones.shape[1]
    filled = torch.nn.functional.pad(ones, (0, -width % LINE))
    for factor in space.factors_of(lower, first, last):
        right = factor.right
        block = space.buffer(1, *right.shape[:2], filled.shape[1])
        torch.mm(right.flatten(0, 1), filled, out=block.flatten(0, 1))
        columns = torch.linalg.vector_norm(block, 1, dim=1)[:, :width] if factor.mirrored else None
        rows = torch.linalg.vector_norm(block, 1, dim=(0, 2))
        yield PanelSums(factor, rows, columns, _diagonal(space, lower, factor))


def _diagonal(space: NeuronSpace, lower: int, factor: Factor) -> tuple[slice, Tensor] | None:
    """H_ii of the factor's rows, where they are rows of its neurons."""
    own, h = space.layers[lower], space.inputs[lower]
    (start, stop), rows = factor.neurons, factor.rows
    count = rows.stop - rows.start
    biases = own.biases(start, stop)
    if biases.start <= rows.start < biases.stop and own.has_bias:
        offset = rows.start - biases.start
        return rows, factor.right[offset : offset + count].diagonal(dim1=0, dim2=1).sum(0)
    weights = own.weights(start, stop)
    if not weights.start <= rows.start < weights.stop:
        return None
    offset, left = divmod(rows.start - weights.start, own.inputs)
    width = min(count, own.inputs)
    neurons = count // width
    right = factor.right[offset : offset + neurons].view(neurons, neurons, width, -1)
    picked = right.diagonal(dim1=0, dim2=1)  # (inputs, samples, neurons)
    return rows, torch.linalg.vecdot(picked, h[left : left + width, :, None], dim=1).T.flatten()
