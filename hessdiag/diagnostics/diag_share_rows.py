"""Rows of a Hessian for its diagonal share: all or a sample, kept as they come; and what there is when it stops."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature import exact, neuron_sample, parallel, sampling
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.memory import free_bytes
from hessdiag.curvature.neuron_space import NeuronSpace, NotInNeuronSpaceError
from hessdiag.curvature.row_stream import RowStream
from hessdiag.diagnostics.pieces import Arrays, Pieces
from hessdiag.linalg.lanczos import LONG
from hessdiag.problem.problem import Layer, Problem

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Progress = Callable[[int, int, str], None]

SKETCHES = 8  # Cauchy probes for the first guess of the rows' sizes
DOUBT, DOUBT_MERGED = 5.0, 10.0  # measured: intervals of 10 to 100 rows of small networks cover
DOUBT_INTERRUPTED = 2.0  # likewise, of what interrupted runs of all rows leave
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
        doubt: As for `sampling.ratio`.
        merged: Names of parameter tensors whose rows were taken together, as there were too few for each.
        by_size: Whether the strata are of rows that a guess takes for alike.
    """

    rows: Rows
    strata: list[Indices]
    engine: str
    products: int = 0
    interrupted: bool = False
    zero_rows: float = 0.0
    doubt: float = 1.0
    merged: tuple[tuple[str, ...], ...] = ()
    by_size: bool = False


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
    """What is kept: of each row its diagonal entry and a sum for every layer."""
    return pieces.said(8 * rows * (1 + len(problem.layer_slices)), anew=True)


def by_neurons(operator: HessianOperator, space: NeuronSpace, seed: int, pieces: Pieces, report: Progress) -> Computed:
    """All rows by way of neuron space; after an interrupt, those of the neurons that are done."""
    problem, n = operator.problem, operator.shape[0]
    others = space.others.numpy()
    tensors = [group for group in groups(problem) if np.isin(group[0], others)]
    least = sum(min(len(group), sampling.BEGINNING) for group in tensors)
    order = sampling.spread_order(tensors, np.random.default_rng(seed), sampling.BEGINNING)
    alike = [neuron_sample.strata(delta.norm(dim=1)) for delta in space.cotangents]
    generator = torch.Generator().manual_seed(seed)
    shuffled = space.reordered([neuron_sample.order(parts, generator) for parts in alike])
    stream = RowStream(operator, shuffled, torch.from_numpy(order), least)
    state = pieces.state("neurons")
    engine = _engine(state.arrays)
    if state.units:
        stream.resume(state.units, state.arrays)
        state.arrays = {}  # as large as the stream, which has it now
    interrupted = False
    report(0, n, f"{n:,} parameters: all {n:,} Hessian rows, {operator.chunk} a pass{_disk(problem, n, pieces)}")
    try:
        while stream.done < len(stream.steps):
            stream.advance()
            kept = engine or operator.engine
            state.save(
                stream.done,
                lambda kept=kept: {**stream.arrays(), "engine": np.array(kept)},  # type: ignore[misc]
                last=stream.done == len(stream.steps),
            )
            report(round(n * stream.fraction), n, "rows")
    except KeyboardInterrupt:
        if parallel.ranks()[1] > 1:
            raise
        interrupted = True
    whole = f"neuron space (linear layers), {engine or operator.engine} (others)"
    products = stream.products + len(space.layers)
    if stream.done == len(stream.steps):
        diagonal, sums = (part.numpy() for part in stream.finished())
        return Computed(Rows(np.arange(n), diagonal, sums), groups(problem), whole, products, interrupted)
    found = stream.sample()
    rows = Rows(found.indices, found.diagonal, found.sums, found.units)
    strata = [*_neurons(space, alike), *tensors]
    return Computed(rows, strata, whole, products, interrupted, doubt=DOUBT_INTERRUPTED)


def _neurons(space: NeuronSpace, alike: list[list[Tensor]]) -> list[Indices]:
    """The first parameter of each neuron, by what is drawn at its own speed: the heavy ones of a layer come early."""
    return [
        part.numpy().astype(np.int64) * neuron.inputs + neuron.layer.start
        for neuron, parts in zip(space.layers, alike, strict=True)
        for part in parts
    ]


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
    order = sampling.spread_order(strata, np.random.default_rng(seed), sampling.BEGINNING)
    rows, engine, interrupted = _compute(operator, order, pieces, report, f"all {n:,}")
    if not interrupted:
        ascending = np.argsort(rows.indices)
        rows = Rows(rows.indices[ascending], rows.diagonal[ascending], rows.sums[ascending])
    engine = engine if why is None else f"{engine}; not in neuron space: {why}"
    return Computed(rows, strata, engine, len(rows.indices), interrupted, doubt=DOUBT_INTERRUPTED)


def sampled(operator: HessianOperator, wanted: int, seed: int, pieces: Pieces, report: Progress) -> Computed:
    """A sample of so many rows, in strata by parameter tensor and by a first guess of their sizes."""
    problem = operator.problem
    rng, tensors = np.random.default_rng(seed), groups(problem)
    scale = row_scales(operator, seed)
    stops = [layer.stop for layer in problem.layer_slices]
    owners = [int(np.searchsorted(stops, tensor[0], side="right")) for tensor in tensors]
    joined = sampling.joined_groups(tensors, owners, scale, wanted)
    strata = sampling.strata_by_scale([np.concatenate([tensors[i] for i in part]) for part in joined], scale, wanted)
    order = _sample(strata, scale, wanted, rng)
    rows, engine, interrupted = _compute(operator, order, pieces, report, f"{wanted:,} of {operator.shape[0]:,}")
    names = [name for name, _ in problem.named_parameters]
    merged = tuple(tuple(names[index] for index in part) for part in joined if len(part) > 1)
    zero = float((scale == 0).mean())
    doubt = DOUBT_MERGED if merged else DOUBT
    return Computed(rows, strata, engine, SKETCHES + len(rows.indices), interrupted, zero, doubt, merged, by_size=True)


def row_scales(operator: HessianOperator, seed: int) -> Floats:
    """A guess of every row's absolute sum, zero for zero rows only: H times a Cauchy vector is Cauchy of that scale."""
    if operator.shape[0] > LONG:
        return _long_row_scales(operator, seed)
    uniform = torch.rand(
        operator.shape[0], SKETCHES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    cauchy = torch.tan(math.pi * (uniform - 0.5)).to(operator.device, operator.dtype)
    sketch = (operator @ cauchy).double().abs().cpu().numpy()
    with np.errstate(divide="ignore"):
        return np.where(sketch.max(1) > 0, np.exp(np.log(np.maximum(sketch, np.finfo(float).tiny)).mean(1)), 0.0)


def _long_row_scales(operator: HessianOperator, seed: int) -> Floats:
    """The same, one vector at a time."""
    generator = torch.Generator().manual_seed(seed)
    tiny = torch.finfo(torch.float64).tiny
    logs = torch.zeros(operator.shape[0], dtype=torch.float64, device=operator.device)
    alive = torch.zeros(operator.shape[0], dtype=torch.bool, device=operator.device)
    for _ in range(SKETCHES):
        cauchy = torch.empty(operator.shape[0], dtype=operator.dtype, device=operator.device)
        for part in torch.split(cauchy, LONG):
            part.copy_(torch.tan(math.pi * (torch.rand(len(part), generator=generator, dtype=torch.float64) - 0.5)))
        sketch = (operator @ cauchy).abs_()
        alive |= sketch > 0
        for total, part in zip(torch.split(logs, LONG), torch.split(sketch, LONG), strict=True):
            total += part.double().clamp_(min=tiny).log_()
    found: Floats = logs.div_(SKETCHES).exp_().mul_(alive).cpu().numpy()
    return found


def _sample(strata: list[Indices], scale: Floats, rows: int, rng: np.random.Generator) -> Indices:
    """Rows in an order whose every beginning is a sample; rows of zeros only where no others are left."""
    counts: Sequence[int] | Indices = sampling.allocate(strata, scale, rows) if strata else []
    drawn = [rng.choice(stratum, count, replace=False) for stratum, count in zip(strata, counts, strict=True)]
    order = sampling.spread_order(drawn, rng)
    zeros = np.flatnonzero(scale == 0)
    rest = min(rows - len(order), len(zeros))
    return np.concatenate([order, rng.choice(zeros, rest, replace=False)]) if rest else order


def _no_rows(problem: Problem) -> Rows:
    return Rows(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, len(problem.layer_slices))))


def _compute(
    operator: HessianOperator, order: Indices, pieces: Pieces, report: Progress, what: str
) -> tuple[Rows, str, bool]:
    """Rows in order, keeping their sums only, with the engine; an interrupt from the keyboard ends early."""
    layers = operator.problem.layer_slices
    portion = parallel.least(_portion(operator), operator.device)  # of the same passes each process has some
    size = pieces.choice("rows together", lambda: portion)
    state = pieces.state("rows")
    engine = _engine(state.arrays)
    passes = list(torch.split(torch.from_numpy(order), size)) if len(order) else []
    mine = [index for index in range(len(passes)) if parallel.is_own(index)]
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
        found = parallel.merged(own, operator.device)
    except KeyboardInterrupt:
        if parallel.ranks()[1] > 1:
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
    diagonal = block.gather(1, indices.to(block.device)[:, None])[:, 0].double().cpu().numpy()
    block = block.abs_()
    by_layer = [block[:, layer.start : layer.stop].sum(1, dtype=torch.float64) for layer in layers]
    return diagonal, torch.stack(by_layer, dim=1).cpu().numpy()


def _portion(operator: HessianOperator) -> int:
    """Rows together: one pass, or many where each portion rebuilds the graphs of several batches."""
    if len(operator.problem.data) == 1:
        return operator.chunk
    row_bytes = operator.shape[1] * operator.dtype.itemsize
    return max(operator.chunk, min(LARGEST_PORTION, free_bytes(operator.device) // 16 // row_bytes))
