"""How gradient and Hessian norms change with depth, over many random fully connected networks."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from hessdiag.curvature.measurement import ensemble
from hessdiag.errors import ComputeError
from hessdiag.machine.cost import refuse_many
from hessdiag.machine.memory import free_bytes
from hessdiag.machine.sizes import gib
from hessdiag.nets.activations import activation as named
from hessdiag.nets.ensemble import Ensemble
from hessdiag.nets.initializers import Distribution, default_init
from hessdiag.problem.device import device_named
from hessdiag.questions.common.ensembles.plan import (
    Plan,
    Run,
    built_in,
    drawn_from,
    refuse_below,
    until_interrupted,
)
from hessdiag.questions.common.ensembles.square_networks import predict
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Provenance, Subject
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.vanishing.norms import (
    SquaredNorms,
    affordable_networks,
    check_against_products,
    hessian_work,
    kept,
    layer_norms,
    measure,
    summarized,
)
from hessdiag.questions.vanishing.rates import agreement, rates
from hessdiag.questions.vanishing.result import DepthNorms, LayerNorms, Vanishing
from hessdiag.questions.vanishing.theory import exact
from hessdiag.questions.vanishing.verdict import judged

OF_A_LAYER = 1_000  # bytes of a tensor, or of what is said of a layer, beside its numbers
WEIGHT_COPIES = 4  # weights, gradient, a vector and its product
SMALL_WIDTH = 64
SAMPLES = 16  # default batch
SEEDS = 200  # default number of networks for gradients
LARGEST_Z = 5.0  # standard errors between exact norms and their check by random products


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which networks are measured.

    Attributes:
        depths: Weight matrices, ascending.
        width: As it was asked for.
        init: Their initialization.
        distribution: Drawn from instead of its own.
        activation: Its name.
        seeds: Networks at every depth.
        batch: Samples.
        seed: Of all randomness.
        device: As it was asked for.
    """

    depths: tuple[int, ...]
    width: int | Literal["same"]
    init: str
    distribution: Distribution | None
    activation: str
    seeds: int
    batch: int
    seed: int
    device: str

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Depth and width of each."""
        return [(depth, depth if self.width == "same" else self.width) for depth in self.depths]


@dataclass(frozen=True)
class Depth:
    """What was found at one depth."""

    norms: DepthNorms
    layers: tuple[LayerNorms, ...]
    check: float | None


@recorded
@ensemble(less="--hessian-seeds 4, or --batch 8")
def vanishing(
    *,
    depth: int | Sequence[int] = 32,
    width: int | Literal["same"] = 32,
    init: str | None = None,
    activation: str = "relu",
    seeds: int = SEEDS,
    hessian_seeds: int | None = None,
    batch: int = SAMPLES,
    seed: int = 0,
    device: str = "auto",
    distribution: Distribution | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Vanishing:
    """Measure gradient and Hessian norms over a grid of depths (Orvieto et al., Vanishing Curvature, Figures 1 and 4).

    Networks are bias-free, all layers `width` wide, the loss is (1 / 2 batch) sum |z - y|^2. Inputs are uniform on the
    sphere of radius sqrt(width); targets come from a random one-hidden-layer network of the same width, scaled to that
    sphere too.
    Everything is computed in float64, many networks at once.

    Args:
        depth: Largest number of weight matrices; the grid is the powers of two up to it, and itself. Or all depths.
        width: Of all layers; "same" makes it equal to the depth at every point of the grid.
        init: A key of `hessdiag.nets.INITS`. Default: `he_uniform` for (leaky) ReLU, `xavier_uniform` otherwise.
        activation: A key of `hessdiag.nets.ACTIVATIONS`.
        seeds: Networks at every depth.
        hessian_seeds: Networks whose Hessian norms are computed. Default: as many as take some seconds.
        batch: Samples.
        seed: Of all randomness.
        device: "auto", "cpu", "cuda", ...
        distribution: Draw from this distribution at the initialization's variance.
        resume: A folder for finished pieces. A run with the same settings takes up what it holds.
        progress: Called with (done, total, what).

    Raises:
        SpecError: for a depth, width, number of seeds or batch below 1, a name that is unknown, or a folder that holds
            pieces of other settings.

    >>> measured = vanishing(depth=4, width=4, seeds=50, hessian_seeds=10, batch=2)
    >>> [entry.depth for entry in measured.depths], measured.status
    ([2, 4], 'ok')
    """
    grid = Grid(
        depths=tuple(depth_grid(depth)),
        width=width,
        init=init or default_init(activation),
        distribution=distribution,
        activation=activation,
        seeds=seeds,
        batch=batch,
        seed=seed,
        device=device,
    )
    _refuse(grid, hessian_seeds)
    networks = min(seeds, hessian_seeds or affordable_networks(grid.sizes, batch))
    plan = _plan(grid, networks)
    run = plan.begin(resume, progress)
    found, interrupted = until_interrupted(_measured(grid, networks, plan.device, run))
    return _assembled(grid, plan.device, run, found, interrupted)


def _refuse(grid: Grid, hessian_seeds: int | None) -> None:
    """Refuse what cannot be measured, or is not known by its name.

    Raises:
        SpecError: naming the flag.
    """
    refuse_below(1, 32, depth=min(grid.depths, default=0), width=grid.width, batch=grid.batch)
    refuse_below(2, 32, seeds=grid.seeds, hessian_seeds=hessian_seeds)
    named(grid.activation)
    drawn_from(grid.init, grid.distribution)


def _plan(grid: Grid, networks: int) -> Plan:
    """What it takes, with Hessian norms of so many networks.

    Raises:
        ComputeError: naming what does fit.
    """
    sizes, seeds, batch = grid.sizes, grid.seeds, grid.batch
    operations = sum(networks * hessian_work(L, d, batch) + 6.0 * seeds * batch * L * d * d for L, d in sizes)
    place = device_named(grid.device, operations)
    deepest, widest = sizes[-1]
    _fits(sizes[-1], place)
    refuse_many(batch, 8 * widest * (3 * deepest + 6), place, "samples", "--batch")
    refuse_many(seeds, 8 * (2 * deepest + 24), place, "networks", "--seeds")
    depths = ", ".join(map(str, grid.depths))
    disk = [kept(L, d, batch, seeds, networks) for L, d in sizes]
    return Plan(
        what=f"{seeds:,} networks at depths {depths}; Hessian norms of {networks:,}",
        steps=sum(_steps(grid, networks)),
        settings={
            "command": "vanishing", "depths": grid.depths, "width": grid.width, "init": grid.init,
            "activation": grid.activation, "seeds": seeds, "hessian_seeds": networks, "batch": batch,
            "seed": grid.seed, "distribution": grid.distribution,
        },
        device=place,
        kept=(sum(numbers for numbers, _ in disk), sum(files for _, files in disk)),
    )  # fmt: skip


def _steps(grid: Grid, networks: int) -> list[int]:
    """Of the progress, at each depth."""
    return [round(1 + networks * hessian_work(L, d, grid.batch) / 1e6) for L, d in grid.sizes]


def _measured(grid: Grid, networks: int, place: torch.device, run: Run) -> Iterator[Depth]:
    """Depth by depth; the first one's exact norms are held against random products."""
    check = None
    for index, ((L, d), steps) in enumerate(zip(grid.sizes, _steps(grid, networks), strict=True)):
        drawn = Ensemble(L, d, grid.init, grid.batch, grid.seed, place, grid.distribution)
        if not index:
            check = check_against_products(drawn, named(grid.activation))
        squares = _squares(grid, drawn, networks, steps / networks, run)
        known = exact(drawn, grid.activation)
        yield Depth(summarized(squares, drawn, known), layer_norms(squares, known), check)


def _squares(grid: Grid, drawn: Ensemble, networks: int, steps: float, run: Run) -> SquaredNorms:
    """Norms of all networks of a depth, each of whose Hessians is so many steps of the progress."""

    def advance(count: int) -> None:
        run.meter.advance(count * steps)

    with _threads(drawn.width):
        return measure(drawn, named(grid.activation), grid.seeds, networks, advance, run.pieces)


def _assembled(grid: Grid, place: torch.device, run: Run, found: Sequence[Depth], interrupted: bool) -> Vanishing:
    depths = tuple(entry.norms for entry in found)
    theory = predict(grid.init, grid.activation, grid.sizes[len(found) - 1][1], grid.distribution)
    checks = {"hessian_norm_z": found[0].check}
    return judged(
        Vanishing(
            status="interrupted" if interrupted else "ok",
            problem=built_in(grid.device, place, grid.seed),
            theory=theory,
            checks=checks,
            thresholds=dict.fromkeys(checks, LARGEST_Z),
            provenance=Provenance(resumed_pieces=run.pieces.taken),
            width=grid.width,
            init=grid.init,
            distribution=drawn_from(grid.init, grid.distribution),
            activation=grid.activation,
            seeds=grid.seeds,
            batch=grid.batch,
            depths=depths,
            layers=found[-1].layers,
            rates={} if grid.width == "same" else rates(depths, theory),
            agreement=agreement(depths),
            asked=grid.depths if interrupted else None,
        )
    )


def unmeasured(
    problem: Subject,
    *,
    width: int | Literal["same"] | None = None,
    init: str | None = None,
    distribution: Distribution | None = None,
    activation: str | None = None,
    seeds: int,
    batch: int,
) -> Vanishing:
    """The result of a run that was interrupted before its first depth was done."""
    return judged(
        Vanishing(
            status="interrupted",
            problem=problem,
            width=width,
            init=init,
            distribution=distribution,
            activation=activation,
            seeds=seeds,
            batch=batch,
            depths=(),
            layers=(),
            rates={},
            agreement=(),
        )
    )


@contextmanager
def _threads(width: int) -> Iterator[None]:
    """One thread for small matrices: more gain little there, and wait for each other where other work runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if width <= SMALL_WIDTH else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fits(deepest: tuple[int, int], place: torch.device) -> None:
    """Refuse networks of which not even one fits, before anything is drawn.

    Raises:
        ComputeError: naming the depth that does fit.
    """
    L, d = deepest
    free = free_bytes(place)

    def needed(depth: int, width: int) -> int:
        return WEIGHT_COPIES * depth * (8 * width**2 + OF_A_LAYER)

    if needed(L, d) > free:
        fitting = free // needed(1, d)
        narrow = math.isqrt(max(free // (WEIGHT_COPIES * L) - OF_A_LAYER, 0) // 8)
        cures = [f"--depth {fitting} at this width"] * (fitting > 0)
        cures += [f"--width {narrow} at this depth"] * (narrow > 0)
        raise ComputeError(
            f"one network of depth {L:,} and width {d:,} takes {gib(needed(L, d))} with its gradient and products; "
            f"{gib(free)} are free.",
            " or ".join(cures),
        )


def depth_grid(depth: int | Sequence[int]) -> list[int]:
    """Powers of two from 2 up to the depth, and the depth itself; several depths are the grid themselves.

    >>> depth_grid(100), depth_grid([152, 50, 101])
    ([2, 4, 8, 16, 32, 64, 100], [50, 101, 152])
    """
    if not isinstance(depth, int):
        return sorted(set(depth))
    return sorted({2**power for power in range(1, depth.bit_length()) if 2**power < depth} | {depth})
