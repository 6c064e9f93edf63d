"""Squared norms of the layer blocks of H, of its Gauss-Newton part G and of H - G, exactly.

One layer's columns at a time, and each of them is kept: what an interrupt leaves is all blocks of the layers that are
done, with any other layer, since blocks are symmetric.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature import block_norms, exact
from hessdiag.curvature.block_norms import OutputSpace
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError, neuron_layers
from hessdiag.curvature.neuron_space import CERTIFIED, TANGENT_NUMBERS, NeuronSpace
from hessdiag.machine import processes
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.block_squares import Squares, by_layer
from hessdiag.questions.common.runs.outlay import Outlay
from hessdiag.questions.common.runs.pieces import Arrays, Pieces
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.common.splitting import Splitting

Floats = NDArray[np.float64]
Tell = Callable[[int], None]  # columns of a layer that are done

PANEL = 512  # columns looked at together
OTHERS_UP_TO = 1_000  # parameters outside of linear layers that still get a product each beside pairs of samples
MOST_SAMPLES = 4_096  # whose pairs are held
PAIR_WORK = 4e11  # floating-point operations: seconds


@dataclass(frozen=True)
class Exact:
    """What is exact of all layers, or of those that an interrupt left; NaN elsewhere.

    Attributes:
        squares: One sample, which is the truth.
        masses: Sum of |H_ii| in each layer, (L,).
    """

    squares: Squares
    masses: Floats


def by_columns(matrices: Splitting, spent: Outlay, report: Progress, pieces: Pieces) -> Exact:
    """From all columns of H and of G.

    Args:
        matrices: What is measured.
        spent: Of the products.
        report: Called with (done, total, what).
        pieces: Where finished layers are kept.

    Raises:
        KeyboardInterrupt: if it comes before a layer is done.
    """
    operator, problem = matrices.hessian, matrices.problem
    space: NeuronSpace | None = None
    with suppress(NotInNeuronSpaceError):
        space = exact.neuron_space(operator)
    _plan_columns(matrices, space, spent)
    layers, n = problem.executed_layers, problem.n_parameters
    report(0, n, f"{n:,} parameters: the whole {matrices.said}{_disk(matrices, pieces)}")
    neurons = [] if space is None else [layers.index(neuron.layer) for neuron in space.layers]

    def columns(index: int, tell: Tell) -> Arrays:
        nonlocal space
        if space is not None and index in neurons:
            lower = neurons.index(index)
            try:
                H = exact.layer_columns(operator, space, lower)
            except NotInNeuronSpaceError:
                space = None
            else:
                return _squares(matrices, layers[index], tell, H, neurons[lower:])
        return _squares(matrices, layers[index], tell)

    return _all_layers(problem, neurons, columns, lambda index: layers[index].size, report, pieces)


def _plan_columns(matrices: Splitting, space: NeuronSpace | None, spent: Outlay) -> None:
    """Enter in the ledger what `by_columns` is going to do and to hold."""
    operator, layers = matrices.hessian, matrices.problem.executed_layers
    columns = min(PANEL, max(layer.size for layer in layers)) * (2 + 2 * matrices.kinds * 8 / operator.dtype.itemsize)
    n = operator.shape[0]
    products = n
    if space is not None:
        products = len(space.others) + 2 * len(space.layers)
        columns += max(neuron.layer.size for neuron in space.layers)
    held = {"columns": columns, "rows of a pass": 4 * operator.chunk, **matrices.graph(spent)}
    spent.plan(products + (matrices.gauss_newton is not None) * n, held)


def affordable(problem: Problem) -> bool:
    """Whether `by_pairs` takes seconds. By counts, not clocks: the same problem is always answered alike."""
    try:
        layers = neuron_layers(problem)
    except NotInNeuronSpaceError:
        return False
    others = problem.n_parameters - sum(neuron.layer.size for neuron in layers)
    work = block_norms.operations(problem, layers)
    return others <= OTHERS_UP_TO and problem.n_samples <= MOST_SAMPLES and work <= PAIR_WORK


def by_pairs(matrices: Splitting, spent: Outlay, report: Progress, pieces: Pieces) -> Exact:
    """The same without forming a block: linear layers in neuron space, the columns of others by products.

    Raises:
        KeyboardInterrupt: if it comes before a layer is done.
        NotInNeuronSpaceError: with the reason, if the problem has no such space, or samples cancel in it.
    """
    problem = matrices.problem
    layers, n = problem.executed_layers, problem.n_parameters
    space = exact.neuron_space(matrices.hessian)
    outputs: OutputSpace | None = None
    if matrices.gauss_newton is not None:
        outputs = block_norms.output_space(space, matrices.gauss_newton, CERTIFIED[problem.dtype])
    pairs = len(layers) * space.samples**2 * 8 / spent.vector
    planned = len(space.others) * matrices.products + len(space.layers)
    spent.plan(planned, {"pairs of samples": pairs, "neurons": 4 * TANGENT_NUMBERS / n})
    disk = _disk(matrices, pieces)
    report(0, n, f"{n:,} parameters: all blocks exactly, from pairs of {problem.n_samples:,} samples{disk}")
    neurons, grams = [layers.index(neuron.layer) for neuron in space.layers], block_norms.sample_products(space)

    def from_pairs(index: int, tell: Tell) -> Arrays:
        if index not in neurons:
            return _squares(matrices, layers[index], tell)
        lower = neurons.index(index)
        found = block_norms.layer_blocks(space, outputs, grams, lower)
        parts, rounding = (
            _placed(numbers.cpu().numpy(), neurons[lower:], len(layers)) for numbers in (found.squares, found.rounding)
        )
        return _arrays(parts, found.trace, found.mass, rounding)

    def products(index: int) -> int:
        return 1 if index in neurons else layers[index].size

    return _all_layers(problem, neurons, from_pairs, products, report, pieces)


def _disk(matrices: Splitting, pieces: Pieces) -> str:
    """What is kept: of each layer its norms with all others, and their rounding."""
    layers = len(matrices.problem.executed_layers)
    return pieces.said(8 * 2 * layers**2 * matrices.kinds, layers)


def _all_layers(
    problem: Problem,
    neurons: Sequence[int],
    compute: Callable[[int, Tell], Arrays],
    products: Callable[[int], int],
    report: Progress,
    pieces: Pieces,
) -> Exact:
    """Every layer as a piece: first the others, whose blocks with neuron layers come from their own columns alone."""
    layers, n = problem.executed_layers, problem.n_parameters
    found: dict[int, Arrays] = {}
    done, interrupted = 0, False

    def tell(columns: int) -> None:
        report(done + columns, n, "columns")

    try:
        for index in [*(other for other in range(len(layers)) if other not in neurons), *neurons]:
            found[index] = pieces.get(f"layer-{index}", lambda index=index: compute(index, tell))  # type: ignore[misc]
            done += layers[index].size
            report(done, n, "columns")
    except KeyboardInterrupt:
        if not found or processes.together():
            raise
        interrupted = len(found) < len(layers)
    squares, rounding = (_symmetric(found, name, len(layers)) for name in ("parts", "rounding"))
    block_norms.refuse_cancelled(*(torch.from_numpy(np.nan_to_num(numbers)) for numbers in (squares, rounding)))
    traces, masses = np.full((2, len(layers)), np.nan)
    for index, arrays in found.items():
        traces[index], masses[index] = arrays["trace"].item(), arrays["mass"].item()
    return Exact(Squares(squares[None], traces[None], sum(map(products, found)), interrupted), masses)


def _squares(
    matrices: Splitting, layer: Layer, tell: Tell, H: Tensor | None = None, rows: Sequence[int] | None = None
) -> Arrays:
    """Squared norms of one layer's columns by the layers of their rows, (kinds, L), with trace and sum of |H_ii|.

    Args:
        matrices: What is measured.
        layer: Whose columns.
        tell: Called with the number of columns that are done.
        H: The Hessian's columns, where they are known; else they come from products.
        rows: The layers that these have rows of; `None` for all.
    """
    operator, layers = matrices.hessian, matrices.problem.executed_layers
    parts = np.zeros((matrices.kinds, len(layers)))
    diagonal = []
    for columns in torch.split(torch.arange(layer.size), PANEL):
        first, last = int(columns[0]), int(columns[-1]) + 1
        known = operator.rows(layer.start + columns).T if H is None else H[:, first:last]
        inside = slice(layer.start + first, layer.start + last)
        kinds = matrices.parts(known.double(), partial(_units, operator, inside))
        diagonal.append(kinds[0][inside].diagonal().cpu().numpy())
        for kind, block in enumerate(kinds):
            parts[kind] += by_layer(block, layers).sum(1)
        tell(last)
    entries = np.concatenate(diagonal)
    if rows is not None:
        parts = _placed(parts[:, list(rows)], rows, len(layers))
    return _arrays(parts, float(entries.sum()), float(np.abs(entries).sum()), np.zeros_like(parts))


def _units(operator: HessianOperator, inside: slice) -> Tensor:
    """Columns of the identity."""
    units = torch.zeros(operator.shape[0], inside.stop - inside.start, dtype=operator.dtype, device=operator.device)
    units[inside].fill_diagonal_(1.0)
    return units


def _arrays(parts: Floats, trace: float, mass: float, rounding: Floats) -> Arrays:
    return {"parts": parts, "trace": np.array(trace), "mass": np.array(mass), "rounding": rounding}


def _placed(numbers: Floats, places: Sequence[int], count: int) -> Floats:
    """Columns (kinds, k) at their places among all layers, (kinds, L), and NaN elsewhere."""
    found = np.full((len(numbers), count), np.nan)
    found[:, list(places)] = numbers
    return found


def _symmetric(found: dict[int, Arrays], name: str, count: int) -> Floats:
    """The matrices (kinds, L, L) of what is known of each layer, or of the other one of a pair."""
    kinds = len(next(iter(found.values()))[name])
    whole = np.full((kinds, count, count), np.nan)
    for index, arrays in found.items():
        whole[:, index] = arrays[name]
    return np.where(np.isnan(whole), whole.swapaxes(1, 2), whole)
