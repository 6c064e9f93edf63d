"""Squared Frobenius norms of the layer blocks of H, of its Gauss-Newton part G and of H - G, by samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.linalg import diagonals, pairs
from hessdiag.linalg.estimators import SIGNED
from hessdiag.machine import cost, processes
from hessdiag.machine.work import Work
from hessdiag.problem.problem import Layer, Problem
from hessdiag.questions.common import operators
from hessdiag.questions.common.outlay import Outlay
from hessdiag.questions.common.pieces import Arrays, Pieces
from hessdiag.statistics import sampling

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

OF_AN_OBJECT = 500  # bytes of a few small arrays beside their numbers
FOLDING = 13  # numbers held of each that is folded: itself, three kinds of it, and these in three more copies
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
        interrupted: Whether a keyboard interrupt left samples out; of what is exact, layers, which are NaN.
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


def refuse_many(problem: Problem, probes: int) -> None:
    """End before days are spent on samples that memory will not hold.

    Raises:
        ComputeError: with the largest number that fits.
    """
    cost.refuse_many(probes, 2 * _probe_bytes(problem), None, "random vectors per layer", "--probes")


def _probe_bytes(problem: Problem) -> float:
    """What is kept of one probe of every layer."""
    count, kinds = len(problem.executed_layers), 1 if problem.loss_of_output is None else 3
    seen = sum(min(layer.size, pairs.LENGTH) for layer in problem.executed_layers)
    return 8.0 * kinds * (3 * seen + count**2) + OF_AN_OBJECT * count


def plan(spent: Outlay, operator: HessianOperator, gauss_newton: GaussNewtonOperator | None, probes: int) -> None:
    """Enter in the ledger what `sampled` and `diagonal_masses` are going to do and to hold."""
    problem, double = operator.problem, 8 / operator.dtype.itemsize
    layers, kinds = problem.executed_layers, 1 if gauss_newton is None else 2
    fewest = probes * len(layers) * kinds
    rows = _most_rows(problem, probes)
    together = operators.together(operator, LARGEST_PORTION)
    numbers = 2 * kinds - 1  # of each vector: products with H, G and H - G
    held = {"vectors of a product": together * (1 + numbers * double)}
    # The order and signs of every layer; squares and products of the largest, as they are put into that order.
    largest = max(layer.size for layer in layers) / operator.shape[0]
    held["folded products"] = 9 / operator.dtype.itemsize + FOLDING * numbers * double * largest
    if gauss_newton is not None:
        held["graph of the Gauss-Newton matrix"] = spent.graph / spent.vector
    held["samples"] = 2 * probes * _probe_bytes(problem) / spent.vector
    spent.plan((fewest, fewest + rows), held)


def kept_bytes(problem: Problem, probes: int, kinds: int) -> int:
    """Bytes of what `sampled` keeps: of each vector its norms in all layers, its trace and its folded products."""
    sizes = [layer.size for layer in problem.executed_layers]
    return probes * sum(8 * (kinds * len(sizes) + 1 + 3 * kinds * min(size, pairs.LENGTH)) for size in sizes)


def _most_rows(problem: Problem, probes: int) -> int:
    """Rows that `diagonal_masses` takes at most."""
    most = max(probes, sampling.BEGINNING * len(problem.parameters))
    return sum(min(layer.size, most) for layer in problem.executed_layers)


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
    alike(operator, gauss_newton, pieces)
    rank, ranks = processes.ranks()
    rounds = range(rank, probes, ranks)
    total = len(rounds) * count

    def probe(index: int) -> tuple[int, int]:
        """Round and layer of one of this process's probes: they are too many for a list where someone wants that."""
        return rounds[index // count], index % count

    own: dict[int, tuple[Floats, float, Floats]] = {}
    folds = [pairs.Fold.of(layer.size, operator.device) for layer in layers]
    interrupted, size = False, pieces.choice("vectors together", lambda: operators.together(operator, LARGEST_PORTION))
    state = pieces.state("probes")
    own |= _taken(state.arrays, [probe(index) for index in range(state.units)], count)

    def arrays() -> dict[str, NDArray[Any]]:
        found = list(own.values())
        seen = {f"seen {m}": np.stack([sample[2] for sample in found[m::count]]) for m in range(min(count, len(found)))}
        return {"squares": np.stack([f[0] for f in found]), "traces": np.array([f[1] for f in found]), **seen}

    try:
        for start in range(len(own), total, size):
            now = [probe(index) for index in range(start, min(start + size, total))]
            vectors = _signs(operator, [layers[m] for _, m in now], [(seed, r, m) for r, m in now])
            product = (operator @ vectors).double()
            kinds = [product]
            if gauss_newton is not None:
                kinds += with_rest(product, gauss_newton @ vectors)
            squares = np.stack([by_layer(kind, layers) for kind in kinds])
            traces = (vectors.double() * product).sum(0).cpu().numpy()
            for column, (r, m) in enumerate(now):
                inside = slice(layers[m].start, layers[m].stop)
                blocks = torch.stack([kind[inside, column] for kind in kinds])
                seen = pairs.folded(folds[m], vectors[inside, column].double(), blocks)
                own[r * count + m] = (squares[:, :, column], float(traces[column]), seen)
            state.save(len(own), arrays, last=len(own) == total)
            left = (total - len(own)) * Work(len(kinds[:2]), SIGNED)
            done = (len(own) - state.units) * SIGNED  # in this run
            cost.reach(done, left, left + Work(_most_rows(operator.problem, probes)))
            report(len(own), total, "vectors")
        found = processes.merged(own, operator.device)
    except KeyboardInterrupt:
        if len(own) < 2 * count or processes.together():
            raise
        interrupted, found = True, list(own.values())
    complete, products = len(found) // count, len(found)
    found = found[: complete * count]
    parts, traces = (np.stack([sample[index] for sample in found]) for index in (0, 1))
    known = [pairs.variances(folds[m], np.stack([sample[2] for sample in found[m::count]])) for m in range(count)]
    shape = (complete, count, *parts.shape[1:])
    return Squares(
        parts.reshape(shape).swapaxes(1, 2),
        traces.reshape(complete, count),
        products,
        interrupted,
        own_variances=np.stack([squares for squares, _ in known], axis=1),
        trace_variances=np.array([traces[0] for _, traces in known]),
    )


def alike(operator: HessianOperator, gauss_newton: GaussNewtonOperator | None, pieces: Pieces) -> None:
    """As many vectors a pass as the run that was interrupted: they decide how numbers are rounded."""
    operator.chunk = pieces.choice("vectors a pass", lambda: operator.chunk)
    if gauss_newton is not None:
        gauss_newton.chunk = pieces.choice("vectors a pass of G", lambda: gauss_newton.chunk)


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
    masses, variances, products = [], [], 0
    for layer in problem.executed_layers:
        strata = [np.arange(place.start, place.stop) for place in problem.places(layer)]
        sizes = np.array([len(stratum) for stratum in strata])
        counts = sampling.allocate(sizes, max(rows, sampling.BEGINNING * len(strata)))
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


def with_rest(whole: Tensor, gauss_newton: Tensor) -> list[Tensor]:
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


def _diagonal(operator: HessianOperator, indices: Tensor, layer: Layer) -> Floats:
    """|H_ii| for some rows of one layer."""
    return diagonals.of_rows(operator.rows(indices, layer), indices - layer.start).abs().cpu().numpy()
