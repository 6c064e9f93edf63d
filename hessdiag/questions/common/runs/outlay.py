"""What a measurement will hold, before it holds it: the largest basis that fits, or the flag that makes one fit."""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.errors import ComputeError
from hessdiag.linalg.eigensolver import BLOCK, LARGEST_BASIS, smallest_basis
from hessdiag.linalg.tridiagonal import LONG, traffic
from hessdiag.machine import cost, memory, processes
from hessdiag.machine.sizes import gib
from hessdiag.machine.work import Work
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.common.runs.spreading import PASSING_PIECES, UNIT, Spreading, spreading_of
from hessdiag.shards.kept import ROOM

# Measured on language models of 10 to 124 million parameters (docs/performance.md).
CHECK_BYTES = 93  # of the check of the point, for each parameter
GRAPH = 2.5  # what double backward keeps, in activations of a forward pass
MOST_FOR_ENDS = 0.75  # of the room: beyond, fewer extreme pairs are taken out of a density
PASSING = 3  # vectors of one product: its parts, their join, their sum
KEPT = 16  # what units of a sharded model keep of their products, in inputs of a transformer block
CHECK_PIECES = 5  # vectors of the check of a sharded model's products


@dataclass(frozen=True)
class Outlay:
    """What products of a matrix hold, whatever is done with them.

    Attributes:
        device: Where.
        vector: Bytes of one vector.
        graph: Bytes of the graph that is kept, with the gradient.
        check: Bytes of the check of the point, which is over before vectors are held.
        samples: In the batches.
        spread: What of it would be spread over processes, and what would not.
    """

    device: torch.device
    vector: int
    graph: int
    check: int
    samples: int
    spread: Spreading

    @property
    def passing(self) -> int:
        """Bytes that come and go with each product."""
        return int((PASSING_PIECES if self.spread.sharded else PASSING) * self.vector)

    def elsewhere(self, vectors: float) -> str:
        """How so many vectors could be held by more processes, as the end of a hint; nothing where no number does."""
        count = self.spread.processes(vectors, cost.SPARE * (memory.free_bytes(self.device) + self.spread.here))
        if count is None or count <= self.spread.size * self.spread.sharded:
            return ""
        if count == 1:
            return ", or --shard"
        return f", or --shard with {count:,} processes (torchrun), each with as much memory"

    @property
    def room(self) -> int:
        """Vectors that fit beside the products, of all processes the fewest."""
        free = cost.SPARE * memory.free_bytes(self.device) - self.graph - self.passing
        fitting = max(int(free // self.vector), 0)
        return processes.least(fitting, self.device)

    def plan(
        self,
        products: int | tuple[int, int],
        vectors: Mapping[str, float],
        *,
        passes: tuple[float, float] = (0.0, 0.0),
        search: bool = False,
    ) -> None:
        """Enter in the ledger what is planned.

        Args:
            products: How many; the fewest and the most where that is not known.
            vectors: How many are held, by what for.
            passes: The fewest and the most that arithmetic beside the products reads or writes.
            search: Whether the most is only where a search gives up.
        """
        held = {name: count * self.vector for name, count in vectors.items()}
        work = self.graph + self.passing + sum(held.values())
        if self.check > work:
            parts: dict[str, float] = {"check of the point": self.check}
        else:
            parts = {"graph and gradient": self.graph, "one product": self.passing, **held}
        pace = memory.pace(self.vector, self.device) if passes[1] else 0.0
        size = self.spread.size if self.spread.sharded else 1
        cost.plan(products, parts, self.device, vectors=passes, pace=pace, search=search, processes=size)


def outlay(matrix: CurvatureOperator[Any]) -> Outlay:
    """What products of a matrix hold.

    Raises:
        ComputeError: if memory does not hold the graph and the check of the point.
    """
    if matrix.shape[0] > LONG:
        memory.give_back()
    problem, n, item = matrix.problem, matrix.shape[0], matrix.dtype.itemsize
    saved = matrix.saved_bytes or 0
    spread = spreading_of(matrix)
    if spread.sharded:
        return _of_pieces(matrix, spread, saved)
    # On a GPU weights are not among what is saved; see `CurvatureOperator.saved_bytes`.
    counted = problem.parameters if matrix.device.type == "cpu" else ()
    weights = sum(parameter.numel() * parameter.itemsize for parameter in counted)
    activations = max(saved - weights, 0)
    scales = 0 if matrix.scale is None else 2  # the metric, and its root
    found = Outlay(
        device=matrix.device,
        vector=n * item,
        graph=(1 + scales) * n * item + int(GRAPH * activations),
        check=CHECK_BYTES * n + int(2 * GRAPH * activations),
        samples=problem.n_samples,
        spread=spread,
    )
    needed, free = max(found.check, found.graph + found.passing), memory.free_bytes(matrix.device)
    if needed > cost.SPARE * free:
        most = "; fewer samples with --batch-size" if activations > n * item and found.samples > 1 else ""
        raise ComputeError(
            f"the check of the point and one product of {n:,} parameters need {gib(needed)}, "
            f"and {gib(free)} of memory are free.",
            f"--layers 'GLOB' for up to {int(n * cost.SPARE * free / needed):,} parameters{most}{found.elsewhere(4)}",
        )
    return found


def _of_pieces(matrix: CurvatureOperator[Any], spread: Spreading, saved: int) -> Outlay:
    """The same of a sharded problem, in each process.

    Raises:
        ComputeError: if memory does not hold one product.
    """
    problem, vector = matrix.problem, matrix.spread.own * matrix.dtype.itemsize
    activations = max(saved - spread.here, 0)
    unit = int(UNIT * spread.unit)
    graph = unit + int(GRAPH * activations) + int(min(KEPT * activations, ROOM * vector))
    found = Outlay(matrix.device, vector, graph, graph + CHECK_PIECES * vector, problem.n_samples, spread)
    needed, free = max(found.check, found.graph + found.passing), memory.free_bytes(matrix.device)
    if needed > cost.SPARE * free:
        most = ", or fewer samples with --batch-size" if activations > vector else ""
        whole = f", {gib(unit)} of it for the largest part of the model" if unit else ""  # not of what is streamed
        raise ComputeError(
            f"one product of {matrix.shape[0]:,} parameters in pieces needs {gib(needed)} in each of {spread.size:,} "
            f"processes{whole}, and {gib(free)} of memory are free.",
            f"--layers 'GLOB' for some of the layers{most}{found.elsewhere(4)}",
        )
    return found


@dataclass(frozen=True)
class Basis:
    """How many vectors a Krylov space may hold.

    Attributes:
        size: Vectors of the basis.
        images: Whether as many images are held beside it.
        held: Vectors at the peak, by what for.
    """

    size: int
    images: bool
    held: Mapping[str, float]

    def work(self, products: int) -> Work:
        """So many products, and what comes to them, about: a basis that grows, of which a restart keeps a third."""
        return Work(products, products * traffic(min(2 * self.size // 3, products // 2)))

    def again(self, pieces: Pieces) -> "Basis":
        """The same, or as the run chose whose pieces are there: free memory may have changed."""
        size = pieces.choice("vectors of the basis", lambda: self.size)
        return replace(self, size=size, images=bool(pieces.choice("images are held", lambda: int(self.images))))


def basis(spent: Outlay, n: int, lowest: int, highest: int, asked: int | None, block: int = BLOCK) -> Basis:
    """The basis that was asked for, or else the largest that is worth its memory.

    With its images in up to a quarter of what is free; else without, in up to a half; and in all of it where the
    smallest that works needs it.

    Args:
        spent: Of the products.
        n: Length of vectors.
        lowest: Pairs wanted at the lower end.
        highest: Pairs wanted at the upper end.
        asked: The size that was asked for; `None` to choose.
        block: Vectors per product.

    Raises:
        ComputeError: if memory does not hold what was asked for, or the smallest that works.
    """
    lowest, highest = min(lowest, n), min(highest, n)
    beside, least = _beside(lowest, highest, n, block), min(smallest_basis(lowest, highest), n)
    wanted = min(asked or LARGEST_BASIS, n)
    room = spent.room

    def held(size: int, images: bool) -> Basis:
        vectors = {"basis": size, "images of the basis": size * images, "blocks and pairs": beside}
        return Basis(size, images, {name: count for name, count in vectors.items() if count})

    quarter = int(room // 4)
    if 2 * max(wanted, least) <= quarter:
        return held(wanted, True)
    most = room - beside
    if asked is not None:
        if asked <= most:
            return held(wanted, 2 * wanted <= most // 2)
        cure = f"--max-basis {most}" if most >= least else _fewer(room, lowest, highest, n, block)
        raise ComputeError(
            f"{asked:,} vectors of {n:,} parameters need {gib((asked + beside) * spent.vector)}, and "
            f"{gib(max(room, 0) * spent.vector)} of memory are free for them.",
            cure + spent.elsewhere(asked + beside),
        )
    if most < least:
        raise ComputeError(
            f"{lowest:,} + {highest:,} eigenpairs of {n:,} parameters take {least:,} vectors or more, "
            f"{gib((least + beside) * spent.vector)}, and {gib(max(room, 0) * spent.vector)} are free.",
            _fewer(room, lowest, highest, n, block) + spent.elsewhere(least + beside),
        )
    if quarter // 2 >= LARGEST_BASIS // 4 and quarter // 2 >= least:  # restarts of such a basis cost little
        return held(min(wanted, quarter // 2), True)
    return held(min(wanted, max(most // 2, least)), False)


def _beside(lowest: int, highest: int, n: int, block: int) -> int:
    """Vectors beside the basis: the next block, orthogonalized; at the end the wanted pairs with image and residual."""
    return max(lowest, highest, block) + max(3 * block, min(lowest + highest, n) + 3)


def _fewer(room: int, lowest: int, highest: int, n: int, block: int) -> str:
    """How to get by with fewer vectors: the most pairs that fit."""

    def fits(most: int) -> bool:
        low, high = min(lowest, most), min(highest, most)
        return min(smallest_basis(low, high), n) + _beside(low, high, n, block) <= room

    most = bisect.bisect_left(range(1, max(lowest, highest)), True, key=lambda pairs: not fits(pairs))
    low, high = (min(lowest, most), min(highest, most)) if most else (0, 1)
    if most or min(smallest_basis(0, 1), n) + _beside(0, 1, n, block) <= room:
        return f"--lowest {low} --highest {high}, or --layers 'GLOB' for some of the layers"
    return "--layers 'GLOB' for some of the layers"


@dataclass(frozen=True)
class Quadrature:
    """How the vectors of stochastic Lanczos quadrature are held.

    Attributes:
        pairs: Extreme eigenpairs of each end that are taken out of the density.
        ends: The space for them, which is over before.
        at_once: Probes in lockstep.
        held: Vectors at the peak, by what for.
    """

    pairs: int
    ends: Basis
    at_once: int
    held: Mapping[str, float]

    def again(self, pieces: Pieces) -> "Quadrature":
        """The same, or as the run chose whose pieces are there."""
        return replace(
            self,
            pairs=pieces.choice("extreme pairs", lambda: self.pairs),
            ends=self.ends.again(pieces),
            at_once=pieces.choice("probes at once", lambda: self.at_once),
        )


def quadrature(spent: Outlay, n: int, pairs: int, probes: int, steps: int) -> Quadrature:
    """As many probes in lockstep as a quarter of what is free holds, or a single one; fewer ends where that helps.

    Args:
        spent: Of the products.
        n: Length of vectors.
        pairs: Extreme eigenpairs wanted at each end.
        probes: Random vectors.
        steps: Lanczos steps from each.

    Raises:
        ComputeError: if memory does not hold the basis of a single probe, or the smallest that finds the ends.
    """
    while pairs > 1 and smallest_basis(pairs, pairs) + 3 * pairs + 3 > spent.room * MOST_FOR_ENDS:
        pairs = max(pairs - 2, 1)
    ends = basis(spent, n, pairs, pairs, None)
    beside = 2 * pairs + probes + 4  # the extreme eigenvectors, all probes, and what comes and goes in a step
    most = spent.room - beside
    # Each probe stands for four products of the trace: signs as bytes, a sketch, one product and its parts in float64.
    each, others = 4 * (n / spent.vector + 3 / 8), 2 * pairs + 6
    traced = max(int((spent.room - others) / each), 2)
    if steps + 1 > most and probes > 1 and steps + 1 <= most + probes - 1:
        needed = (probes + steps + 1) * spent.vector
        raise ComputeError(
            f"{probes:,} random vectors of {n:,} parameters need {gib(needed)} with one's Lanczos vectors, and "
            f"{gib(max(spent.room, 0) * spent.vector)} of memory are free for them.",
            f"--probes {min(most + probes - steps - 1, traced)}, or --layers 'GLOB' for some of the layers"
            f"{spent.elsewhere(steps + 1 + beside)}",
        )
    if steps + 1 > most:
        raise ComputeError(
            f"{steps:,} Lanczos vectors of {n:,} parameters need {gib((steps + 1 + beside) * spent.vector)}, and "
            f"{gib(max(spent.room, 0) * spent.vector)} of memory are free for them.",
            f"--steps {max(most - 1, 2)}, or --layers 'GLOB' for some of the layers"
            f"{spent.elsewhere(steps + 1 + beside)}",
        )
    at_once = max(1, min(probes, spent.room // 4 // (steps + 1)))
    lanczos = {"Lanczos vectors": at_once * (steps + 1), "probes and pairs": beside}
    trace = {"signs": 4 * probes * n / spent.vector, "sketch and sums": 4 * probes * 3 / 8 + others}
    if sum(trace.values()) > spent.room:  # it comes last, when all else is paid
        raise ComputeError(
            f"the trace from {4 * probes:,} products with vectors of {n:,} parameters needs "
            f"{gib(sum(trace.values()) * spent.vector)}, and {gib(max(spent.room, 0) * spent.vector)} of "
            "memory are free.",
            f"--probes {traced}, or --layers 'GLOB' for some of the layers",
        )
    held = max(ends.held, lanczos, trace, key=lambda phase: sum(phase.values()))
    return Quadrature(pairs, ends, at_once, held)
