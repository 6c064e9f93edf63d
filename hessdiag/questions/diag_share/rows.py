"""Rows of a Hessian for its diagonal share: all or a sample, kept as they come; and what there is when it stops."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.curvature import exact
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.curvature.neuron_space import NeuronSpace
from hessdiag.curvature.row_stream import RowStream
from hessdiag.linalg import diagonals
from hessdiag.machine import processes
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.questions.common import operators
from hessdiag.questions.common.row_sizes import SKETCHES, row_scales
from hessdiag.questions.common.runs.pieces import Arrays, Pieces
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.statistics import sampling

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

SKETCH_SHARE = 0.01  # of all products that a guess may take, where all rows are computed anyway
LARGEST_PORTION = 1024  # rows together, where each pass rebuilds the graphs of several batches


@dataclass(frozen=True)
class Rows:
    """What is kept of each computed row.

    Attributes:
        indices: Parameters, (rows,).
        diagonal: H_ii, (rows,).
        sums: Absolute sums by column layer, (rows, L).
        units: What was drawn at random, by a parameter of it: for the rows of a linear layer whole neurons. `None`
            where each row was drawn by itself.
    """

    indices: Indices
    diagonal: Floats
    sums: Floats
    units: Indices | None = None

    @property
    def whole(self) -> bool:
        """Whether sums are those of the rows; of whole neurons they only add up to those of all rows."""
        return self.units is None


@dataclass(frozen=True)
class Computed:
    """Rows, and what they stand for.

    Attributes:
        rows: Those that were computed.
        strata: Rows that are alike, or drawn units, by parameters; those of all that is not zero.
        engine: How they were computed.
        products: Hessian-vector products spent.
        interrupted: Whether a keyboard interrupt left some out.
        zero_rows: Fraction of all rows that are in no stratum, for they vanish.
        merged: Names of parameter tensors whose rows were taken together, as there were too few for each.
        draw: How those of a stratum were drawn; `None` where nothing was.
    """

    rows: Rows
    strata: list[Indices]
    engine: str
    products: int = 0
    interrupted: bool = False
    zero_rows: float = 0.0
    merged: tuple[tuple[str, ...], ...] = ()
    draw: sampling.Draw | None = None


def nothing(problem: Problem, engine: str) -> Computed:
    """What an interrupt leaves that comes before the first row."""
    return Computed(_no_rows(problem), groups(problem), engine, interrupted=True)


def neuron_space(operator: HessianOperator) -> tuple[NeuronSpace | None, str | None]:
    """The certified neuron space, or the reason why there is none."""
    try:
        return exact.neuron_space(operator), None
    except NotInNeuronSpaceError as reason:
        return None, str(reason)


def groups(problem: Problem) -> list[Indices]:
    """Row numbers of each parameter tensor: weights and biases of one layer have rows of different sizes."""
    return [np.arange(place.start, place.stop) for place in problem.places()]


def _disk(problem: Problem, rows: int, pieces: Pieces) -> str:
    """What is kept: of each row its diagonal entry and a sum for every layer, and two guesses of every row's size."""
    return pieces.said(8 * rows * (1 + len(problem.layer_slices)) + 16 * problem.n_parameters, anew=True)


def by_neurons(operator: HessianOperator, space: NeuronSpace, seed: int, pieces: Pieces, report: Progress) -> Computed:
    """All rows by way of neuron space; after an interrupt, those of the neurons that are done."""
    problem, n = operator.problem, operator.shape[0]
    others = space.others.numpy()
    tensors = [group for group in groups(problem) if np.isin(group[0], others)]
    least = sum(min(len(group), sampling.BEGINNING) for group in tensors)
    guesses = _guesses(operator, seed, pieces)
    units = [np.arange(neuron.outputs) * neuron.inputs + neuron.layer.start for neuron in space.layers]
    draw = neuron_draw(guesses, space, units, tensors, np.random.default_rng(seed))
    order = draw.order(tensors, sampling.BEGINNING)
    shuffled = space.reordered([torch.from_numpy(np.argsort(draw.tickets[own], kind="stable")) for own in units])
    stream = RowStream(operator, shuffled, torch.from_numpy(order), least)
    state = pieces.state("neurons")
    engine = _engine(state.arrays)
    if state.units:
        stream.resume(state.units, state.arrays)
        state.arrays = {}  # as large as the stream, which has it now

    def arrays() -> Arrays:
        return {**stream.arrays(), "engine": np.array(engine or operator.engine)}

    interrupted = False
    report(0, n, f"{n:,} parameters: all {n:,} Hessian rows, {operator.chunk} a pass{_disk(problem, n, pieces)}")
    try:
        while stream.done < len(stream.steps):
            stream.advance()
            state.save(stream.done, arrays, last=stream.done == len(stream.steps))
            report(round(n * stream.fraction), n, "rows")
    except KeyboardInterrupt:
        if processes.together():
            raise
        interrupted = True
    whole = f"neuron space (linear layers), {engine or operator.engine} (others)"
    products = stream.products + len(space.layers) + SKETCHES
    if stream.done == len(stream.steps):
        diagonal, sums = (part.numpy() for part in stream.finished())
        return Computed(Rows(np.arange(n), diagonal, sums), groups(problem), whole, products, interrupted)
    found = stream.sample()
    rows = Rows(found.indices, found.diagonal, found.sums, found.units)
    return Computed(rows, _alive([*units, *tensors], draw), whole, products, interrupted, draw=draw)


def neuron_draw(
    guesses: Floats, space: NeuronSpace, units: list[Indices], tensors: list[Indices], rng: np.random.Generator
) -> sampling.Draw:
    """Draw neurons, by their first parameter, and the rows that belong to none, by what they are guessed to hold."""
    held = guesses.copy()
    for neuron, own in zip(space.layers, units, strict=True):
        weights, biases = neuron.weights(0, neuron.outputs), neuron.biases(0, neuron.outputs)
        held[:, own] = guesses[:, weights].reshape(2, neuron.outputs, neuron.inputs).sum(2)
        if neuron.has_bias:
            held[:, own] += guesses[:, biases]
    return sampling.Draw.by_guess(held, [*units, *tensors], rng)


def _alive(strata: list[Indices], draw: sampling.Draw) -> list[Indices]:
    """Strata without what is guessed to vanish; rows of zeros are known then."""
    alive = [stratum[draw.sizes[stratum] > 0] for stratum in strata]
    return [stratum for stratum in alive if len(stratum)]


def by_products(operator: HessianOperator, seed: int, pieces: Pieces, report: Progress, why: str | None) -> Computed:
    """All rows by a product each, in an order whose every beginning is a sample.

    Args:
        operator: The Hessian.
        seed: Of the order.
        pieces: Where rows are kept.
        report: As for `diag_share`.
        why: What speaks against neuron space.
    """
    problem, n = operator.problem, operator.shape[0]
    strata = groups(problem)
    guessed = is_guessed(n)
    guesses = _guesses(operator, seed, pieces) if guessed else np.ones((2, n))
    draw = sampling.Draw.by_guess(guesses, strata, np.random.default_rng(seed))
    order = draw.order(strata, sampling.BEGINNING)
    rows, engine, interrupted = _compute(operator, order, pieces, report, f"all {n:,}")
    if not interrupted:
        ascending = np.argsort(rows.indices)
        rows = Rows(rows.indices[ascending], rows.diagonal[ascending], rows.sums[ascending])
    engine = engine if why is None else f"{engine}; not in neuron space: {why}"
    products = len(rows.indices) + SKETCHES * guessed
    zero = float((draw.sizes == 0).mean()) if interrupted else 0.0
    return Computed(rows, _alive(strata, draw), engine, products, interrupted, zero, draw=draw)


def sampled(operator: HessianOperator, wanted: int, seed: int, pieces: Pieces, report: Progress) -> Computed:
    """A sample of so many rows, in strata by parameter tensor, where rows that are guessed to be large come early."""
    problem = operator.problem
    rng, tensors = np.random.default_rng(seed), groups(problem)
    guesses = _guesses(operator, seed, pieces)
    draw = sampling.Draw.by_guess(guesses, tensors, rng)
    stops = [layer.stop for layer in problem.layer_slices]
    owners = [int(np.searchsorted(stops, tensor[0], side="right")) for tensor in tensors]
    joined = sampling.joined_groups(tensors, owners, draw.sizes, wanted)
    strata = _alive([np.concatenate([tensors[i] for i in part]) for part in joined], draw)
    order = draw.order(strata, sampling.LEAST_DRAWN)[:wanted]
    zeros = np.flatnonzero(draw.sizes == 0)  # only where no others are left
    order = np.concatenate([order, zeros[: wanted - len(order)]])
    rows, engine, interrupted = _compute(operator, order, pieces, report, f"{wanted:,} of {operator.shape[0]:,}")
    names = [name for name, _ in problem.named_parameters]
    merged = tuple(tuple(names[index] for index in part) for part in joined if len(part) > 1)
    zero = float((draw.sizes == 0).mean())
    return Computed(rows, strata, engine, SKETCHES + len(rows.indices), interrupted, zero, merged, draw)


def is_guessed(rows: int) -> bool:
    """Whether a run of all rows, each by a product, first guesses their sizes: where that is hardly more work."""
    return SKETCH_SHARE * rows >= SKETCHES


def _guesses(operator: HessianOperator, seed: int, pieces: Pieces) -> Floats:
    """Of all rows' sizes: those of the first run and of the first process, for the order hangs on their last bits."""
    found = pieces.arrays("row sizes", lambda: {"guesses": row_scales(operator, seed)})["guesses"]
    rank, size = processes.ranks()
    return found if size == 1 else processes.merged({0: found} if rank == 0 else {}, operator.device)[0]


def _no_rows(problem: Problem) -> Rows:
    return Rows(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, len(problem.layer_slices))))


def _compute(
    operator: HessianOperator, order: Indices, pieces: Pieces, report: Progress, what: str
) -> tuple[Rows, str, bool]:
    """Rows in order, keeping their sums only, with the engine; an interrupt from the keyboard ends early."""
    layers = operator.problem.layer_slices
    of_this = operators.together(operator, LARGEST_PORTION)
    portion = processes.least(of_this, operator.device)  # of the same passes each process has some
    size = pieces.choice("rows together", lambda: portion)
    state = pieces.state("rows")
    engine = _engine(state.arrays)
    passes = list(torch.split(torch.from_numpy(order), size)) if len(order) else []
    mine = [index for index in range(len(passes)) if processes.is_own(index)]
    parts = _taken(state.arrays, [len(passes[index]) for index in mine[: state.units]])
    disk = _disk(operator.problem, len(order), pieces)
    report(0, len(order), f"{operator.shape[0]:,} parameters: {what} Hessian rows, {operator.chunk} a pass{disk}")

    def arrays() -> Arrays:
        joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
        return {"diagonal": joined[0], "sums": joined[1], "engine": np.array(engine or operator.engine)}

    interrupted = False
    try:
        for index in mine[len(parts) :]:
            parts.append(_row_sums(operator.rows(passes[index]), passes[index], layers))
            state.save(len(parts), arrays)
            done = min((index + 1) * size, len(order))
            report(done, len(order), "rows")
        own = dict(zip(mine, parts, strict=True))
        found = processes.merged(own, operator.device)
    except KeyboardInterrupt:
        if processes.together():
            raise
        interrupted, found = True, list(parts)
    if parts and (interrupted or len(parts) > state.units):
        state.save(len(parts), arrays, last=True)
    rows = _no_rows(operator.problem)
    if found:
        diagonals, sums = (np.concatenate(part) for part in zip(*found, strict=True))
        rows = Rows(order[: len(diagonals)], diagonals, sums)
    return rows, engine or operator.engine, interrupted


def _taken(arrays: Arrays, sizes: list[int]) -> list[tuple[Floats, Floats]]:
    """What a state holds, pass by pass."""
    if not sizes:
        return []
    stops = np.cumsum(sizes)[:-1]
    return list(zip(np.split(arrays["diagonal"], stops), np.split(arrays["sums"], stops), strict=True))


def _engine(arrays: Arrays) -> str | None:
    """How the first run computed its products: one that has a few left to do may do them otherwise."""
    return str(arrays["engine"]) if "engine" in arrays else None


def _row_sums(block: torch.Tensor, indices: torch.Tensor, layers: tuple[Layer, ...]) -> tuple[Floats, Floats]:
    """Of some rows: the diagonal entries, and absolute sums by column layer."""
    diagonal = diagonals.of_rows(block, indices).cpu().numpy()
    block = block.abs_()
    by_layer = [block[:, layer.start : layer.stop].sum(1, dtype=torch.float64) for layer in layers]
    return diagonal, torch.stack(by_layer, dim=1).cpu().numpy()
