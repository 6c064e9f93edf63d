"""Exact statistics of every row of the Hessian, streamed: the Hessian itself is never held.

Linear layers go through neuron space, all other parameters through batched products; a product with a random vector
certifies the first. Where neuron space cannot serve, every row comes from a product, and the reason is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from hessdiag.curvature.differences import reason
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError, spans
from hessdiag.curvature.neuron_space import CERTIFIED, NeuronSpace
from hessdiag.curvature.row_stream import RowStream
from hessdiag.errors import ComputeError
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.machine import processes
from hessdiag.machine.pages import large_pages
from hessdiag.problem.layers import Layer

Advance = Callable[[int], None]
Finished = Callable[[Tensor, Tensor], None]  # row numbers (k,), and these rows (k, N)
T = TypeVar("T")


@dataclass(frozen=True)
class RowStatistics:
    """Of every row of H.

    Attributes:
        diagonal: H_ii, (N,), float64.
        sums: Absolute sums over the columns of each layer, (N, L), float64.
        products: Hessian-vector products spent.
        certificate: Relative distance of neuron space from ordinary products; NaN if interrupted.
        missing: Rows that an interrupt left out, or of which it left entries out.
    """

    diagonal: Tensor
    sums: Tensor
    products: int
    certificate: float
    missing: Tensor


def neuron_space(operator: HessianOperator) -> NeuronSpace:
    """The certified neuron space of an operator's problem.

    Raises:
        NotInNeuronSpaceError: with the reason, if it has none or it disagrees with ordinary products.
    """
    return _certified(operator, lambda space: (space, space.certificate(operator)))


def _certified(operator: HessianOperator, compute: Callable[[NeuronSpace], tuple[T, float]]) -> T:
    """What `compute` makes of the neuron space, if its distance from ordinary products is small enough."""
    operator.settle()
    if operator.missing is not None:
        raise NotInNeuronSpaceError("the model cannot be differentiated twice here")
    if operator.problem.dtype not in CERTIFIED:
        raise NotInNeuronSpaceError(f"{operator.problem.dtype} is too coarse to certify")
    try:
        found, distance = compute(NeuronSpace(operator.problem, operator.scale))
    except (RuntimeError, ComputeError, MemoryError) as error:
        raise NotInNeuronSpaceError(reason(error)) from error
    if operator.missing is not None:  # as the products have shown only now
        raise NotInNeuronSpaceError("the model cannot be differentiated twice")
    _refuse(distance, operator.problem.dtype)
    return found


def _refuse(distance: float, dtype: torch.dtype) -> None:
    if not distance <= CERTIFIED[dtype]:
        raise NotInNeuronSpaceError(f"some layer mixes samples: products differ by {distance:.1e}")


def row_statistics(
    operator: HessianOperator, space: NeuronSpace, advance: Advance = lambda rows: None
) -> RowStatistics:
    """Diagonal and absolute sums of every row, in memory linear in the number of parameters.

    Args:
        operator: The Hessian.
        space: Its certified neuron space.
        advance: Called with the number of rows that were finished. A keyboard interrupt keeps the rows that are whole.

    Raises:
        KeyboardInterrupt: where none is.
    """
    stream = RowStream(operator, space, space.others)
    # One layer after the other, the lowest first: then a step's rows are whole when it is done.
    stream.steps.sort(key=lambda step: (step.layer is not None, step.layer or 0, step.start))
    try:
        while stream.done < len(stream.steps):
            advance(stream.advance())
    except KeyboardInterrupt:
        whole = stream.whole()
        if not bool(whole.any()) or processes.together():
            raise
        diagonal, sums = stream.finished()
        missing = torch.nonzero(~whole)[:, 0]
        return RowStatistics(diagonal, sums, stream.products + len(space.layers), float("nan"), missing)
    diagonal, sums = stream.finished()
    certificate = space.certificate(operator, seed=1)
    products = len(space.others) + 2 * len(space.layers)
    return RowStatistics(diagonal, sums, products, certificate, space.others[:0])


def dense(
    operator: HessianOperator, finished: Finished = lambda numbers, rows: None, out: Tensor | None = None
) -> Tensor:
    """The Hessian itself, (N, N), through neuron space; certified as a whole.

    Args:
        operator: The Hessian.
        finished: Called with rows as they become whole, which are not certified then.
        out: Where it comes, (N, N), if not in fresh memory: every number is written, also where it is refused.

    Raises:
        NotInNeuronSpaceError: with the reason, if there is no neuron space or H disagrees with an ordinary product.
    """

    def compute(space: NeuronSpace) -> tuple[Tensor, float]:
        n = operator.shape[0]
        H = large_pages(torch.empty(n, n, dtype=operator.dtype, device=operator.device)) if out is None else out
        _fill(operator, space, H, finished)
        return H, _distance(operator, H)

    return _certified(operator, compute)


def layer_columns(operator: HessianOperator, space: NeuronSpace, index: int) -> Tensor:
    """The Hessian's columns of one neuron layer, (N, size), certified as a whole.

    Rows of neuron layers below, and of all that is no neuron layer, stay zero: symmetry has them elsewhere.

    Raises:
        NotInNeuronSpaceError: if they disagree with an ordinary product.
    """
    own = space.layers[index]
    start, size = own.layer.start, own.layer.size
    columns = torch.zeros(operator.shape[0], size, dtype=operator.dtype, device=operator.device)
    for first, last in spans(0, own.outputs, space.neurons_per_pass(index)):
        for panel in space.panels_of(index, first, last):
            shape = panel.block.shape[1:]
            place = slice(panel.columns.start - start, panel.columns.stop - start)
            columns[panel.rows, place].view(-1, *shape).copy_(panel.block)
            if panel.mirrored and start <= panel.rows.start < start + size:
                place = slice(panel.rows.start - start, panel.rows.stop - start)
                columns[panel.columns, place].view(*shape, -1).copy_(panel.block.permute(1, 2, 0))
    v = torch.randn(size, generator=torch.Generator().manual_seed(index), dtype=torch.float64).to(columns)
    whole = torch.zeros(operator.shape[0], dtype=operator.dtype, device=operator.device)
    whole[start : start + size] = v
    distance = _apart(columns @ v, operator @ whole, [neuron.layer for neuron in space.layers[index:]])
    _refuse(distance, operator.problem.dtype)
    return columns


def _fill(operator: HessianOperator, space: NeuronSpace, H: Tensor, finished: Finished) -> None:
    """All other rows first, then one layer after the other: rows of neurons are whole as soon as they were taken."""
    for rows, block in operator.blocks(space.others):
        H[rows] = block
        H[:, rows] = block.T
        finished(rows, block)
    for lower, neuron in enumerate(space.layers):
        for first, last in spans(0, neuron.outputs, space.neurons_per_pass(lower)):
            for panel in space.panels_of(lower, first, last, H):
                if panel.mirrored:
                    H[panel.rows, panel.columns] = H[panel.columns, panel.rows].T
            for place in (neuron.weights(first, last), *([neuron.biases(first, last)] if neuron.has_bias else [])):
                finished(torch.arange(place.start, place.stop), H[place])


def _distance(operator: HessianOperator, H: Tensor) -> float:
    """Largest relative distance of H v from an ordinary product with a random v, in the rows of any layer."""
    v = torch.randn(len(H), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(H)
    return _apart(H @ v, operator @ v, operator.problem.layer_slices)


def _apart(found: Tensor, expected: Tensor, layers: Sequence[Layer]) -> float:
    """Largest relative distance of two products in the rows of any of the layers."""
    noise = torch.finfo(found.dtype).eps ** 0.5 * safe_norm(expected)
    distances = [
        safe_norm((found - expected)[layer.start : layer.stop])
        / (max(safe_norm(expected[layer.start : layer.stop]), noise) or 1)
        for layer in layers
    ]
    return float(torch.tensor(distances).max())  # unlike that of Python, it keeps a NaN
