"""Squared Frobenius norms of the layer blocks of H, of its Gauss-Newton part G and of H - G, by samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.linalg import pairs
from hessdiag.linalg.estimators import SIGNED
from hessdiag.linalg.spread import Spread, is_alone
from hessdiag.machine import cost, processes
from hessdiag.machine.work import Work
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.questions.common import operators
from hessdiag.questions.common.runs.forecast import NOTHING
from hessdiag.questions.common.runs.outlay import Outlay
from hessdiag.questions.common.runs.pieces import Arrays, Pieces
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.splitting import Splitting

Floats = NDArray[np.float64]
Within = tuple[slice, Spread]  # where a layer lies in what is held of a vector, and how it is spread

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


@dataclass(frozen=True)
class _Sample:
    """What one vector v on layer m shows.

    Attributes:
        squares: |(K v)_l|^2, (kinds, L).
        trace: v'Hv.
        folded: Of (K v)_m, for the variances; see `hessdiag.linalg.pairs`.
    """

    squares: Floats
    trace: float
    folded: Floats


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


def plan(spent: Outlay, matrices: Splitting, probes: int, rows: int) -> None:
    """Enter in the ledger what `sampled` is going to do and to hold.

    Args:
        spent: Of the products.
        matrices: What is measured.
        probes: Random vectors per layer.
        rows: Products of H that come after it, at most.
    """
    problem, operator = matrices.problem, matrices.hessian
    layers, double = problem.executed_layers, 8 / operator.dtype.itemsize
    fewest = probes * len(layers) * matrices.products
    together = operators.together(operator, LARGEST_PORTION)
    held = {"vectors of a product": together * (1 + matrices.kinds * double)}
    # The order and signs of every layer; squares and products of the largest, as they are put into that order.
    largest = max(layer.size for layer in layers) / operator.shape[0]
    held["folded products"] = 9 / operator.dtype.itemsize + FOLDING * matrices.kinds * double * largest
    held |= matrices.graph(spent)
    held["samples"] = 2 * probes * _probe_bytes(problem) / spent.vector
    spent.plan((fewest, fewest + rows), held)


def kept_bytes(matrices: Splitting, probes: int) -> int:
    """Bytes of what `sampled` keeps: of each vector its norms in all layers, its trace and its folded products."""
    kinds, sizes = matrices.kinds, [layer.size for layer in matrices.problem.executed_layers]
    return probes * sum(8 * (kinds * len(sizes) + 1 + 3 * kinds * min(size, pairs.LENGTH)) for size in sizes)


def sampled(
    matrices: Splitting,
    probes: int,
    seed: int,
    report: Progress = silent,
    pieces: Pieces | None = None,
    then: Work = NOTHING,
) -> Squares:
    """Samples from random signs on one layer at a time: E |(K v)_l|^2 = |K_lm|_F^2 and E v'Hv = tr H_mm.

    Every probe serves H and G, so that H - G is sampled by itself and not as a difference of two estimates. Processes
    share the probes; of a sharded problem all take each of them, and add up what their pieces show.

    Args:
        matrices: What is measured.
        probes: Random vectors per layer.
        seed: Of them.
        report: Called with (done, total, what).
        pieces: Where samples are kept.
        then: What may come after it, for the time that is left.

    Raises:
        KeyboardInterrupt: if it comes before two probes per layer are complete.
    """
    pieces = pieces or Pieces(None, {})
    operator, layers = matrices.hessian, matrices.problem.executed_layers
    count = len(layers)
    rank, size = processes.ranks() if is_alone(operator.spread) else (0, 1)
    rounds = range(rank, probes, size)
    total = len(rounds) * count

    def probe(index: int) -> tuple[int, int]:
        """Round and layer of one of this process's probes: they are too many for a list where someone wants that."""
        return rounds[index // count], index % count

    within = [operator.spread.within(layer.start, layer.stop) for layer in layers]
    folds = [pairs.fold_of(part, operator.device) for _, part in within]
    interrupted, width = False, pieces.choice("vectors together", lambda: operators.together(operator, LARGEST_PORTION))
    state = pieces.state("probes")
    own = _taken(state.arrays, state.units, count)
    try:
        for start in range(len(own), total, width):
            now = [probe(index) for index in range(start, min(start + width, total))]
            own.extend(_samples(matrices, within, folds, now, seed))
            state.save(len(own), lambda: _arrays(own, count), last=len(own) == total)
            left = (total - len(own)) * Work(matrices.products, SIGNED)
            cost.reach((len(own) - state.units) * SIGNED, left, left + then)  # of this run
            report(len(own), total, "vectors")
        numbers = [r * count + m for r, m in map(probe, range(total))]
        found = own if size == 1 else processes.merged(dict(zip(numbers, own, strict=True)), operator.device)
    except KeyboardInterrupt:
        if len(own) < 2 * count or processes.together():
            raise
        interrupted, found = True, own
    return _joined(found, folds, interrupted)


def _samples(
    matrices: Splitting,
    within: Sequence[Within],
    folds: Sequence[pairs.Folding],
    probes: Sequence[tuple[int, int]],
    seed: int,
) -> list[_Sample]:
    """What some probes show, each given by its round and its layer: one sum over processes that hold pieces."""
    operator = matrices.hessian
    vectors = _signs(operator, [within[m] for _, m in probes], [(seed, r, m) for r, m in probes])
    product = (operator @ vectors).double()
    kinds = matrices.parts(product, lambda: vectors)
    squares = torch.stack([_squares(kind, [inside for inside, _ in within]) for kind in kinds])
    traces = (vectors.double() * product).sum(0)
    folded = []
    for column, (_, m) in enumerate(probes):
        inside = within[m][0]
        blocks = torch.stack([kind[inside, column] for kind in kinds])
        folded.append(pairs.folded_here(folds[m], vectors[inside, column].double(), blocks))
    squares, traces, *folded = _summed([squares, traces, *folded], operator.spread)
    return [
        _Sample(squares[:, :, column].numpy(), float(traces[column]), short.numpy())
        for column, short in enumerate(folded)
    ]


def _summed(tensors: Sequence[Tensor], spread: Spread) -> list[Tensor]:
    """Each summed over processes, by one exchange; on the CPU."""
    together = spread.summed(torch.cat([tensor.flatten() for tensor in tensors])).cpu()
    parts = torch.split(together, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _joined(found: Sequence[_Sample], folds: Sequence[pairs.Folding], interrupted: bool) -> Squares:
    """Whole rounds of samples; the products of a round that is not whole were spent all the same."""
    count = len(folds)
    complete = len(found) // count
    whole = found[: complete * count]
    parts = np.stack([sample.squares for sample in whole])
    known = [pairs.variances(folds[m], np.stack([sample.folded for sample in whole[m::count]])) for m in range(count)]
    return Squares(
        parts.reshape(complete, count, *parts.shape[1:]).swapaxes(1, 2),
        np.array([sample.trace for sample in whole]).reshape(complete, count),
        len(found),
        interrupted,
        own_variances=np.stack([squares for squares, _ in known], axis=1),
        trace_variances=np.array([traces[0] for _, traces in known]),
    )


def _arrays(samples: Sequence[_Sample], count: int) -> Arrays:
    """The form in which samples are kept in a file: folded products are of one length for each layer only."""
    seen = {
        f"seen {m}": np.stack([sample.folded for sample in samples[m::count]]) for m in range(min(count, len(samples)))
    }
    squares, traces = np.stack([sample.squares for sample in samples]), np.array([sample.trace for sample in samples])
    return {"squares": squares, "traces": traces, **seen}


def _taken(arrays: Arrays, units: int, count: int) -> list[_Sample]:
    """So many samples from what `_arrays` made of them."""
    return [
        _Sample(
            arrays["squares"][index], float(arrays["traces"][index]), arrays[f"seen {index % count}"][index // count]
        )
        for index in range(units)
    ]


def by_layer(columns: Tensor, layers: Sequence[Layer]) -> Floats:
    """Squared norms of the pieces of each column (N, k) that belong to each layer, (L, k)."""
    return _squares(columns, [slice(layer.start, layer.stop) for layer in layers]).cpu().numpy()


def _squares(columns: Tensor, places: Sequence[slice]) -> Tensor:
    return torch.stack([columns[place].square().sum(0) for place in places])


def _signs(operator: HessianOperator, within: Sequence[Within], seeds: Sequence[tuple[int, int, int]]) -> Tensor:
    """One column per layer: random signs on it and zeros elsewhere, each from its own seed; what is held here of it."""
    vectors = torch.zeros(operator.spread.own, len(within), dtype=operator.dtype, device=operator.device)
    for column, ((inside, part), words) in enumerate(zip(within, seeds, strict=True)):
        state = np.random.SeedSequence(words).generate_state(1, np.uint32)
        generator = torch.Generator().manual_seed(int(state[0]))
        signs = part.kept(partial(_drawn, generator))
        vectors[inside, column] = signs.to(operator.device, operator.dtype)
    return vectors


def _drawn(generator: torch.Generator, count: int) -> Tensor:
    return torch.randint(0, 2, (count,), generator=generator, dtype=torch.int8) * 2 - 1
