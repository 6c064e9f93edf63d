"""Squared Frobenius norms of the layer blocks of H, of its Gauss-Newton part G and of H - G: exact, or by samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature import block_norms, parallel, sampling
from hessdiag.curvature import exact as exact_rows
from hessdiag.curvature.dense import hessian
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_space import CERTIFIED, NotInNeuronSpaceError, neuron_layers
from hessdiag.diagnostics import operators
from hessdiag.diagnostics.pieces import Arrays, Pieces
from hessdiag.linalg import pairs
from hessdiag.problem.problem import Layer, Problem

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

PANEL = 512  # columns of a dense matrix looked at together
OTHERS_UP_TO = 1_000  # parameters outside of linear layers that still get a product each beside them
MOST_SAMPLES = 4_096  # whose pairs are held
PAIR_WORK = 4e11  # floating-point operations: seconds
LARGEST_PORTION = 256  # vectors a pass, where each pass rebuilds the graphs of several batches


@dataclass(frozen=True)
class Squares:
    """Samples whose expectations are squared block norms and traces; one sample is the truth, where all is exact.

    Attributes:
        parts: [s, k, m, l] is |K_lm|_F^2 as sample s sees it from layer m, with K = H, G, H - G for k = 0, 1, 2 (or H
            alone), shape (samples, kinds, L, L). Samples of different s or m are independent. Layers are in the order
            of execution.
        traces: tr H_mm likewise, (samples, L).
        products: Hessian-vector products spent.
        interrupted: Whether a keyboard interrupt ended the sampling.
        own_variances: What one sample of the layers' own |K_mm|_F^2 varies by, from pairs of samples, (kinds, L);
            `None` where all is exact.
        trace_variances: Likewise tr H_mm, (L,).
    """

    parts: Floats
    traces: Floats
    products: int
    interrupted: bool = False
    own_variances: Floats | None = None
    trace_variances: Floats | None = None


def exact(problem: Problem, gauss_newton: GaussNewtonOperator | None, report: Progress) -> tuple[Squares, Floats]:
    """All squares from the dense Hessian and the columns of G, and the sum of |H_ii| of each layer."""
    layers, n = problem.executed_layers, problem.n_parameters
    H = hessian(problem, check=False)
    parts = np.zeros((1, 1 if gauss_newton is None else 3, len(layers), len(layers)))
    done = 0
    for index, layer in enumerate(layers):
        for columns in torch.split(torch.arange(layer.start, layer.stop), PANEL):
            start, stop = int(columns[0]), int(columns[-1]) + 1
            kinds = [H[:, start:stop].double()]
            if gauss_newton is not None:
                units = torch.zeros(n, stop - start, dtype=H.dtype, device=H.device)
                units[start:stop].fill_diagonal_(1.0)
                kinds += _with_rest(kinds[0], gauss_newton @ units)
            for kind, block in enumerate(kinds):
                parts[0, kind, index] += by_layer(block, layers).sum(1)
            done += stop - start
            report(done, n, "")
    diagonal = H.diagonal().double().cpu().numpy()
    each = [diagonal[layer.start : layer.stop] for layer in layers]
    traces, masses = (np.array([f(part).sum() for part in each]) for f in (np.asarray, np.abs))
    return Squares(parts, traces[None], n), masses


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
    operator: HessianOperator, gauss_newton: GaussNewtonOperator | None, report: Progress
) -> tuple[Squares, Floats]:
    """What `exact` returns, without forming a block: linear layers in neuron space, the rows of others by products.

    Raises:
        NotInNeuronSpaceError: with the reason, if the problem has no such space, or samples cancel in it.
    """
    problem = operator.problem
    layers, n = problem.executed_layers, problem.n_parameters
    space = exact_rows.neuron_space(operator)
    outputs = None
    if gauss_newton is not None:
        outputs = block_norms.output_space(space, gauss_newton, CERTIFIED[problem.dtype])
    report(0, n, f"{n:,} parameters: all blocks exactly, from pairs of {problem.n_samples:,} samples")
    found = block_norms.neuron_blocks(space, outputs)
    found.refuse_cancelled()
    done = n - len(space.others)
    report(done, n, "")
    places = [layers.index(neuron.layer) for neuron in space.layers]
    parts = np.zeros((1, len(found.squares), len(layers), len(layers)))
    traces, masses = np.zeros(len(layers)), np.zeros(len(layers))
    parts[0][np.ix_(range(len(found.squares)), places, places)] = found.squares.cpu().numpy()
    traces[places], masses[places] = found.traces.cpu().numpy(), found.masses.cpu().numpy()
    for index, layer in enumerate(layers):
        if index in places:
            continue
        for rows in torch.split(torch.arange(layer.start, layer.stop), operator.chunk):
            units = torch.zeros(n, len(rows), dtype=operator.dtype, device=operator.device)
            units[rows, torch.arange(len(rows))] = 1.0
            kinds = [(operator @ units).double()]
            if gauss_newton is not None:
                kinds += _with_rest(kinds[0], gauss_newton @ units)
            for kind, block in enumerate(kinds):
                parts[0, kind, index] += by_layer(block, layers).sum(1)
            diagonal = (units.double() * kinds[0]).sum(0).cpu().numpy()
            traces[index] += diagonal.sum()
            masses[index] += np.abs(diagonal).sum()
            done += len(rows)
            report(done, n, "")
        parts[0, :, places, index] = parts[0][:, index, places].T
    return Squares(parts, traces[None], len(space.others) + len(space.layers)), masses


def sampled(
    operator: HessianOperator,
    gauss_newton: GaussNewtonOperator | None,
    probes: int,
    seed: int,
    report: Progress,
    pieces: Pieces | None = None,
) -> Squares:
    """Samples from random signs on one layer at a time: E |(K v)_l|^2 = |K_lm|_F^2 and E v'Hv = tr H_mm.

    Every probe serves H and G, so that H - G is sampled by itself and not as a difference of two estimates.

    Raises:
        KeyboardInterrupt: if it comes before two probes per layer are complete.
    """
    pieces = pieces or Pieces(None, {})
    layers = operator.problem.executed_layers
    count = len(layers)
    operator.chunk = pieces.choice("vectors a pass", lambda: operator.chunk)
    if gauss_newton is not None:
        gauss_newton.chunk = pieces.choice("vectors a pass of G", lambda: gauss_newton.chunk)
    mine = [(r, m) for r in range(probes) if parallel.is_own(r) for m in range(count)]
    own: dict[int, tuple[Floats, float, Floats]] = {}
    folds = [pairs.Fold.of(layer.size, operator.device) for layer in layers]
    interrupted, size = False, pieces.choice("vectors together", lambda: _portion(operator))
    state = pieces.state("probes")
    own |= _taken(state.arrays, mine[: state.units], count)

    def arrays() -> dict[str, NDArray[Any]]:
        found = list(own.values())
        seen = {
            f"seen {m}": np.stack([f[2] for f, (_, n) in zip(found, mine, strict=False) if n == m])
            for m in {m for _, m in mine[: len(found)]}
        }
        return {"squares": np.stack([f[0] for f in found]), "traces": np.array([f[1] for f in found]), **seen}

    try:
        for start in range(len(own), len(mine), size):
            now = mine[start : start + size]
            vectors = _signs(operator, [layers[m] for _, m in now], [(seed, r, m) for r, m in now])
            product = (operator @ vectors).double()
            kinds = [product]
            if gauss_newton is not None:
                kinds += _with_rest(product, gauss_newton @ vectors)
            squares = np.stack([by_layer(kind, layers) for kind in kinds])
            traces = (vectors.double() * product).sum(0).cpu().numpy()
            for column, (r, m) in enumerate(now):
                inside = slice(layers[m].start, layers[m].stop)
                blocks = torch.stack([kind[inside, column] for kind in kinds])
                seen = pairs.folded(folds[m], vectors[inside, column].double(), blocks)
                own[r * count + m] = (squares[:, :, column], float(traces[column]), seen)
            state.save(len(own), arrays, last=len(own) == len(mine))
            report(min(start + size, len(mine)), len(mine), "products")
        found = parallel.merged(own, operator.device)
    except KeyboardInterrupt:
        if len(own) < 2 * count or parallel.ranks()[1] > 1:
            raise
        interrupted, found = True, list(own.values())
    rounds, products = len(found) // count, len(found)
    found = found[: rounds * count]
    parts, traces = (np.stack([sample[index] for sample in found]) for index in (0, 1))
    known = [pairs.variances(folds[m], np.stack([sample[2] for sample in found[m::count]])) for m in range(count)]
    shape = (rounds, count, *parts.shape[1:])
    return Squares(
        parts.reshape(shape).swapaxes(1, 2),
        traces.reshape(rounds, count),
        products,
        interrupted,
        own_variances=np.stack([squares for squares, _ in known], axis=1),
        trace_variances=np.array([traces[0] for _, traces in known]),
    )


def _taken(arrays: Arrays, mine: Sequence[tuple[int, int]], count: int) -> dict[int, tuple[Floats, float, Floats]]:
    """What a state of `sampled` holds."""
    places = [0] * count
    found: dict[int, tuple[Floats, float, Floats]] = {}
    for index, (r, m) in enumerate(mine):
        seen = arrays[f"seen {m}"][places[m]]
        places[m] += 1
        found[r * count + m] = (arrays["squares"][index], float(arrays["traces"][index]), seen)
    return found


def diagonal_masses(operator: HessianOperator, rows: int, seed: int) -> tuple[Floats, Floats, int]:
    """Sum of |H_ii| of each layer from a sample of rows, stratified by tensor, with standard errors and products spent.

    Not from the probes: magnitudes of estimated diagonal entries would be too large by their noise.
    """
    problem = operator.problem
    rng = np.random.default_rng(seed)
    stops = np.cumsum([parameter.numel() for parameter in problem.parameters])
    tensors = [
        np.arange(stop - parameter.numel(), stop) for parameter, stop in zip(problem.parameters, stops, strict=True)
    ]
    enough = sampling.BEGINNING
    masses, variances, products = [], [], 0
    for layer in problem.executed_layers:
        strata = [indices for indices in tensors if layer.start <= indices[0] < layer.stop]
        counts = sampling.allocate(strata, np.ones(problem.n_parameters), max(rows, enough * len(strata)))
        mass = variance = 0.0
        for stratum, count in zip(strata, counts, strict=True):
            drawn = torch.from_numpy(np.sort(rng.choice(stratum, count, replace=False)))
            entries = _diagonal(operator, drawn, layer)
            mass += len(stratum) * float(entries.mean())
            if count < len(stratum):
                variance += len(stratum) ** 2 * (1 / count - 1 / len(stratum)) * float(entries.var(ddof=1))
            products += int(count)
        masses.append(mass)
        variances.append(variance)
    return np.array(masses), np.sqrt(variances), products


def by_layer(columns: Tensor, layers: Sequence[Layer]) -> Floats:
    """Squared norms of the pieces of each column (N, k) that belong to each layer, (L, k)."""
    found = torch.stack([columns[layer.start : layer.stop].square().sum(0) for layer in layers])
    return found.cpu().numpy()


def _with_rest(whole: Tensor, gauss_newton: Tensor) -> list[Tensor]:
    """Products with G and with H - G."""
    part = gauss_newton.double()
    return [part, whole - part]


def _signs(operator: HessianOperator, layers: Sequence[Layer], seeds: Sequence[tuple[int, int, int]]) -> Tensor:
    """One column per layer: random signs on it and zeros elsewhere, each from its own seed."""
    vectors = torch.zeros(operator.shape[0], len(layers), dtype=operator.dtype, device=operator.device)
    for column, (layer, words) in enumerate(zip(layers, seeds, strict=True)):
        state = np.random.SeedSequence(words).generate_state(1, np.uint32)
        generator = torch.Generator().manual_seed(int(state[0]))
        signs = torch.randint(0, 2, (layer.size,), generator=generator, dtype=torch.int8) * 2 - 1
        vectors[layer.start : layer.stop, column] = signs.to(operator.device, operator.dtype)
    return vectors


def _portion(operator: HessianOperator) -> int:
    """Vectors per product: one pass, or many where each pass rebuilds the graphs of several batches."""
    if len(operator.problem.data) == 1:
        return operator.chunk
    return max(operator.chunk, min(LARGEST_PORTION, operators.vectors_that_fit(operator) // 4))


def _diagonal(operator: HessianOperator, indices: Tensor, layer: Layer) -> Floats:
    """|H_ii| for some rows of one layer."""
    block = operator.rows(indices, layer)
    places = (indices - layer.start).to(block.device)
    return block.gather(1, places[:, None])[:, 0].double().abs().cpu().numpy()
