"""Squared norms of the layer blocks of H, of its Gauss-Newton part G and of H - G, exactly.

One layer's columns at a time, and each of them is kept: what an interrupt leaves is all blocks of the layers that are
done, with any other layer, since blocks are symmetric.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature import block_norms, exact
from hessdiag.curvature.block_norms import OutputSpace
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_space import CERTIFIED, TANGENT_NUMBERS, NotInNeuronSpaceError, neuron_layers
from hessdiag.machine import processes
from hessdiag.problem.problem import Layer, Problem
from hessdiag.questions.blocks.squares import Squares, alike, by_layer, with_rest
from hessdiag.questions.common.outlay import Outlay
from hessdiag.questions.common.pieces import Arrays, Pieces

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]
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


def by_columns(
    operator: HessianOperator,
    gauss_newton: GaussNewtonOperator | None,
    spent: Outlay,
    report: Progress,
    pieces: Pieces,
) -> Exact:
    """From all columns of H and of G.

    Args:
        operator: The Hessian.
        gauss_newton: Its part; `None` for the Hessian alone.
        spent: Of the products.
        report: Called with (done, total, what).
        pieces: Where finished layers are kept.

    Raises:
        KeyboardInterrupt: if it comes before a layer is done.
    """
    try:
        space = exact.neuron_space(operator)
    except NotInNeuronSpaceError:
        space = None
    alike(operator, gauss_newton, pieces)
    layers, n = operator.problem.executed_layers, operator.shape[0]
    kinds, item = 1 if gauss_newton is None else 3, operator.dtype.itemsize
    of_gauss_newton = {} if gauss_newton is None else {"graph of the Gauss-Newton matrix": spent.graph / spent.vector}
    columns_held = min(PANEL, max(layer.size for layer in layers)) * (2 + 2 * kinds * 8 / item)
    if space is None:
        products, own = n, 0
    else:
        products, own = len(space.others) + 2 * len(space.layers), max(neuron.layer.size for neuron in space.layers)
    held = {"columns": own + columns_held, "rows of a pass": 4 * operator.chunk, **of_gauss_newton}
    spent.plan(products + (gauss_newton is not None) * n, held)
    both = "Hessian" if gauss_newton is None else "Hessian and Gauss-Newton matrix"
    report(0, n, f"{n:,} parameters: the whole {both}{_disk(operator.problem, gauss_newton, pieces)}")
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
                return _squares(operator, gauss_newton, layers[index], tell, H, neurons[lower:])
        return _squares(operator, gauss_newton, layers[index], tell)

    return _all_layers(operator.problem, neurons, columns, lambda index: layers[index].size, report, pieces)


def affordable(problem: Problem) -> bool:
    """Whether `by_pairs` takes seconds. By counts, not clocks: the same problem is always answered alike."""
    try:
        layers = neuron_layers(problem)
    except NotInNeuronSpaceError:
        return False
    others = problem.n_parameters - sum(neuron.layer.size for neuron in layers)
    work = block_norms.operations(problem, layers)
    return others <= OTHERS_UP_TO and problem.n_samples <= MOST_SAMPLES and work <= PAIR_WORK


def by_pairs(
    operator: HessianOperator,
    gauss_newton: GaussNewtonOperator | None,
    spent: Outlay,
    report: Progress,
    pieces: Pieces,
) -> Exact:
    """The same without forming a block: linear layers in neuron space, the columns of others by products.

    Raises:
        KeyboardInterrupt: if it comes before a layer is done.
        NotInNeuronSpaceError: with the reason, if the problem has no such space, or samples cancel in it.
    """
    problem = operator.problem
    layers = problem.executed_layers
    space = exact.neuron_space(operator)
    outputs: OutputSpace | None = None
    if gauss_newton is not None:
        outputs = block_norms.output_space(space, gauss_newton, CERTIFIED[problem.dtype])
    alike(operator, gauss_newton, pieces)
    n, pairs = problem.n_parameters, len(layers) * space.samples**2 * 8 / spent.vector
    planned = len(space.others) * (1 if gauss_newton is None else 2) + len(space.layers)
    spent.plan(planned, {"pairs of samples": pairs, "neurons": 4 * TANGENT_NUMBERS / n})
    disk = _disk(problem, gauss_newton, pieces)
    report(0, n, f"{n:,} parameters: all blocks exactly, from pairs of {problem.n_samples:,} samples{disk}")
    neurons, grams = [layers.index(neuron.layer) for neuron in space.layers], block_norms.sample_products(space)

    def from_pairs(index: int, tell: Tell) -> Arrays:
        if index not in neurons:
            return _squares(operator, gauss_newton, layers[index], tell)
        lower = neurons.index(index)
        found = block_norms.layer_blocks(space, outputs, grams, lower)
        parts, rounding = (
            _placed(numbers.cpu().numpy(), neurons[lower:], len(layers)) for numbers in (found.squares, found.rounding)
        )
        return _arrays(parts, found.trace, found.mass, rounding)

    def products(index: int) -> int:
        return 1 if index in neurons else layers[index].size

    return _all_layers(problem, neurons, from_pairs, products, report, pieces)


def _disk(problem: Problem, gauss_newton: GaussNewtonOperator | None, pieces: Pieces) -> str:
    """What is kept: of each layer its norms with all others, and their rounding."""
    layers = len(problem.executed_layers)
    return pieces.said(8 * 2 * layers**2 * (1 if gauss_newton is None else 3), layers)


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
    operator: HessianOperator,
    gauss_newton: GaussNewtonOperator | None,
    layer: Layer,
    tell: Tell,
    H: Tensor | None = None,
    rows: Sequence[int] | None = None,
) -> Arrays:
    """Squared norms of one layer's columns by the layers of their rows, (kinds, L), with trace and sum of |H_ii|.

    Args:
        operator: The Hessian.
        gauss_newton: Its part; `None` for the Hessian alone.
        layer: Whose columns.
        tell: Called with the number of columns that are done.
        H: The Hessian's columns, where they are known; else they come from products.
        rows: The layers that these have rows of; `None` for all.
    """
    layers, n = operator.problem.executed_layers, operator.shape[0]
    parts = np.zeros((1 if gauss_newton is None else 3, len(layers)))
    diagonal = []
    for columns in torch.split(torch.arange(layer.size), PANEL):
        first, last = int(columns[0]), int(columns[-1]) + 1
        known = operator.rows(layer.start + columns).T if H is None else H[:, first:last]
        kinds = [known.double()]
        diagonal.append(kinds[0][layer.start + first : layer.start + last].diagonal().cpu().numpy())
        if gauss_newton is not None:
            units = torch.zeros(n, last - first, dtype=operator.dtype, device=operator.device)
            units[layer.start + first : layer.start + last].fill_diagonal_(1.0)
            kinds += with_rest(kinds[0], gauss_newton @ units)
        for kind, block in enumerate(kinds):
            parts[kind] += by_layer(block, layers).sum(1)
        tell(last)
    entries = np.concatenate(diagonal)
    if rows is not None:
        parts = _placed(parts[:, list(rows)], rows, len(layers))
    return _arrays(parts, float(entries.sum()), float(np.abs(entries).sum()), np.zeros_like(parts))


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
