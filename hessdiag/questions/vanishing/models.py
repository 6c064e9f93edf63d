"""How gradient and Hessian norms change with depth in networks of any kind, built anew at every depth and seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import ensemble
from hessdiag.errors import ComputeError, SpecError
from hessdiag.machine.cost import refuse_many
from hessdiag.nets.initializers import Distribution
from hessdiag.nets.reinitialize import reinitialize
from hessdiag.problem.describe import describe
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.ensembles.plan import Plan, Run, drawn_from, refuse_below
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import ModelSubject, Provenance
from hessdiag.questions.common.runs.pieces import Arrays
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.vanishing.joined import joined
from hessdiag.questions.vanishing.measure import depth_grid
from hessdiag.questions.vanishing.network import Network, measure
from hessdiag.questions.vanishing.rates import rates
from hessdiag.questions.vanishing.result import DepthNorms, Failure, LayerNorms, Vanishing
from hessdiag.questions.vanishing.survey import FEWEST_HESSIAN_SEEDS, Survey, affordable_networks, cost, survey
from hessdiag.questions.vanishing.verdict import judged

Build = Callable[[int, int], Problem]

MANY_LAYERS = 1_000  # networks of so many take seconds to build
OF_A_NETWORK, OF_A_LAYER = 2_000, 400  # bytes of what is kept of one, and for each of its layers
SEEDS = 10  # default number of networks at every depth
OF_NETWORKS = ("model", "data", "samples", "loss", "loss_definition", "reduction", "dtype", "train_mode", "files")
OF_DEPTHS = ("weights_sha256", "data_sha256")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which networks are measured.

    Attributes:
        build: Gives one, of (depth, seed).
        depths: As `build` takes them, ascending.
        init: What their weights are drawn anew by; `None` where they stay as they are built.
        distribution: Drawn from instead of the initialization's own.
        seeds: Networks at every depth.
        seed: Of all randomness.
    """

    build: Build
    depths: tuple[int, ...]
    init: str | None
    distribution: Distribution | None
    seeds: int
    seed: int

    def network(self, depth: int, index: int) -> Problem:
        """One of them."""
        words = np.random.SeedSequence([self.seed, depth, index]).generate_state(2, np.uint32)
        problem = self.build(depth, int(words[0]))
        if self.init is not None:
            generator = torch.Generator().manual_seed(int(words[1]))
            reinitialize(problem.model, self.init, generator, self.distribution)
        return problem


@dataclass(frozen=True)
class Surveys:
    """What the first network of each depth is like.

    Attributes:
        known: Of the depths at which it can be built.
        failed: The others.
        described: In words, by depth; of the deepest alone where nothing is kept, for it takes a hash of all weights.
        device: Where they are.
    """

    known: Sequence[Survey]
    failed: Sequence[Failure]
    described: Mapping[int, Mapping[str, Any]]
    device: torch.device


@dataclass
class Found:
    """What was measured so far.

    Attributes:
        depths: Norms at each depth.
        layers: Of the deepest one's networks.
        failed: Depths that could not be measured.
        first: A network that the self-checks were made on.
        examination: What they said.
        same_weights: Whether all networks of the last depth are one.
        interrupted: Whether something is missing because of an interrupt.
    """

    depths: list[DepthNorms] = field(default_factory=list)
    layers: tuple[LayerNorms, ...] = ()
    failed: list[Failure] = field(default_factory=list)
    first: Problem | None = None
    examination: Examination | None = None
    same_weights: bool = False
    interrupted: bool = False


@recorded
@ensemble(less="--hessian-seeds 4, or a smaller batch")
def vanishing_of(
    build: Build,
    *,
    depth: int | Sequence[int] = 32,
    seeds: int = SEEDS,
    hessian_seeds: int | None = None,
    init: str | None = None,
    distribution: Distribution | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Vanishing:
    """Measure gradient and Hessian norms over a grid of depths, of networks that a function builds.

    Gradients come from autograd. For the Hessian, random signs v on one layer m at a time give E |(Hv)_l|^2 = |H_lm|^2,
    and so the norm of the whole and of its layer-diagonal blocks; up to 256 parameters it is computed whole.

    Args:
        build: A function of (depth, seed) that gives a fresh problem: its model is changed where `init` is given. Its
            `train_mode` decides whether BatchNorm normalizes by the batch, as at the first step of training, or by
            running statistics that have seen no data yet.
        depth: Largest depth; the grid is the powers of two up to it, and itself. Or all depths.
        seeds: Networks at every depth.
        hessian_seeds: Networks whose Hessian norms are computed. Default: as many as take about a minute.
        init: A key of `hessdiag.nets.INITS`, for linear and convolutional layers. Default: as built.
        distribution: With `init`: draw from this distribution at the initialization's variance.
        seed: Of all randomness.
        resume: A folder for finished networks. A run with the same settings, whose first network at every depth is the
            same, takes up what it holds.
        progress: Called with (done, total, what).

    Returns:
        The norms; no theory, for there are no closed forms. A depth at which a loss, a gradient or a product is not
        finite is left out, and named in `failed`.

    Raises:
        SpecError: for a depth or a number of seeds that is too small, an unknown initialization, or a folder that holds
            networks of other settings.
        ComputeError: if no depth can be computed.

    >>> from hessdiag import ProblemRequest, load_problem
    >>> def build(depth, seed):
    ...     return load_problem(ProblemRequest(f"builtin:mlp(depth={depth}, width=4)", device="cpu", seed=seed))
    >>> measured = vanishing_of(build, depth=4, seeds=3)
    >>> [(entry.depth, entry.parameters, entry.hessian_method) for entry in measured.depths]
    [(2, 32, 'exact'), (4, 64, 'exact')]
    """
    grid = Grid(
        build=build,
        depths=tuple(depth_grid(depth)),
        init=init,
        distribution=distribution,
        seeds=seeds,
        seed=seed,
    )
    _refuse(grid, hessian_seeds)
    surveys = _surveys(grid, progress, resumable=resume is not None)
    plan, networks = _plan(grid, surveys, hessian_seeds)
    run = plan.begin(resume, progress)
    found = _measured(grid, surveys, networks, run)
    return _assembled(grid, surveys, found, run)


def _refuse(grid: Grid, hessian_seeds: int | None) -> None:
    refuse_below(1, 8, depth=min(grid.depths, default=0))
    refuse_below(FEWEST_HESSIAN_SEEDS, 8, seeds=grid.seeds, hessian_seeds=hessian_seeds)
    if grid.init is not None:
        drawn_from(grid.init, grid.distribution)
    elif grid.distribution is not None:
        raise SpecError("--distribution changes an initialization, and none was given.", "--init he_uniform")


def _surveys(grid: Grid, progress: Progress | None, *, resumable: bool) -> Surveys:
    """Look at the first network of each depth, the deepest first: one that cannot be built is found out at once.

    Raises:
        ComputeError: if none can be built.
    """
    deepest = grid.depths[-1]
    if deepest >= MANY_LAYERS and progress is not None:
        progress(0, 1, f"looking at one network of each depth, the deepest first, of depth {deepest:,}")
    known: list[Survey] = []
    failed: list[Failure] = []
    described: dict[int, Mapping[str, Any]] = {}
    for depth in reversed(grid.depths):
        try:
            problem = grid.network(depth, 0)
            known.insert(0, survey(problem, depth))
        except ComputeError as error:
            failed.insert(0, Failure(depth=depth, says=error.what, hint=error.hint))
            continue
        if resumable or not described:
            described[depth] = describe(problem)
    if not known:
        raise _error(failed[0])
    return Surveys(known, failed, described, problem.device)


def _plan(grid: Grid, surveys: Surveys, hessian_seeds: int | None) -> tuple[Plan, int]:
    """What it takes, and how many networks get Hessian norms.

    Raises:
        ComputeError: if so many networks cannot be kept.
    """
    known, seeds = surveys.known, grid.seeds
    each = OF_A_NETWORK + OF_A_LAYER * max(len(entry.layers) for entry in known)
    refuse_many(seeds, each, None, "networks", "--seeds")
    networks = min(seeds, hessian_seeds or affordable_networks(known))
    plan = Plan(
        what=cost(known, seeds, networks),
        steps=sum(seeds + networks * entry.products for entry in known),
        settings={
            "command": "vanishing MODEL", "depths": grid.depths, "seeds": seeds, "hessian_seeds": networks,
            "init": grid.init, "distribution": grid.distribution, "seed": grid.seed, **_fingerprint(surveys.described),
        },
        device=surveys.device,
        kept=(len(known) * seeds * each, len(known) * seeds),
    )  # fmt: skip
    return plan, networks


def _error(failure: Failure) -> ComputeError:
    return ComputeError(f"at depth {failure.depth}: {failure.says}", failure.hint)


def _fingerprint(described: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What tells whether networks are still the same, from the first one of each depth."""
    found = {name: value for problem in described.values() for name, value in problem.items() if name in OF_NETWORKS}
    return found | {name: {str(depth): one[name] for depth, one in described.items()} for name in OF_DEPTHS}


def _measured(grid: Grid, surveys: Surveys, networks: int, run: Run) -> Found:
    """Depth by depth, network by network: a depth that fails leaves the others, an interrupt what is there."""
    found = Found(failed=list(surveys.failed))
    for entry in surveys.known:
        measured: list[Network] = []
        try:
            if found.examination is None:
                found.first = grid.network(entry.depth, 0)
                found.examination = examine(HessianOperator(found.first, check=False), grid.seed)
            for index in range(grid.seeds):
                curved = index < networks
                compute = partial(_arrays, grid, entry.depth, index, curved=curved, special=found.examination.special)
                measured.append(Network.of(run.pieces.get(f"depth-{entry.depth}-network-{index}", compute)))
                run.meter.advance(1 + (entry.products if curved else 0))
        except ComputeError as error:
            where = f"network {len(measured) + 1} of {grid.seeds}"
            found.failed.append(Failure(depth=entry.depth, says=f"{where}: {error.what}", hint=error.hint))
            continue
        except KeyboardInterrupt:
            if not found.depths and len(measured) < FEWEST_HESSIAN_SEEDS:
                raise
            found.interrupted = len(measured) < grid.seeds or entry is not surveys.known[-1]
        if len(measured) >= FEWEST_HESSIAN_SEEDS:
            found.same_weights = len({network.weights for network in measured}) == 1
            norms, found.layers = joined(entry, measured)
            found.depths.append(norms)
        if found.interrupted:
            break
    return found


def _arrays(grid: Grid, depth: int, index: int, *, curved: bool, special: bool) -> Arrays:
    """Norms of one network; where the first one was special, it gets what that needed: differences, one draw."""
    problem = grid.network(depth, index)
    if special:
        examine(HessianOperator(problem, check=False), grid.seed)
    return measure(problem, grid.seed + index, curved=curved).arrays()


def _assembled(grid: Grid, surveys: Surveys, found: Found, run: Run) -> Vanishing:
    """All that was measured, as one result.

    Raises:
        ComputeError: if that is nothing.
    """
    failed = sorted(found.failed, key=lambda failure: failure.depth)
    first, examination = found.first, found.examination
    if not found.depths or first is None or examination is None:
        raise _error(failed[0])
    depths = tuple(found.depths)
    return judged(
        Vanishing(
            status="interrupted" if found.interrupted else "ok",
            problem=_subject(grid, surveys, depths[-1].depth),
            checks=examination.checks,
            thresholds=dict.fromkeys(examination.checks, examination.tolerance),
            provenance=Provenance(resumed_pieces=run.pieces.taken),
            width=None,
            init=grid.init,
            distribution=None if grid.init is None else drawn_from(grid.init, grid.distribution),
            activation=None,
            seeds=grid.seeds,
            batch=first.n_samples,
            depths=depths,
            failed=tuple(failed),
            layers=found.layers,
            rates=rates(depths, None),
            agreement=(),
            point=examination.point,
            kinks=examination.point.kinks,
            same_weights=found.same_weights,
            asked=grid.depths if found.interrupted else None,
        )
    )


def _subject(grid: Grid, surveys: Surveys, depth: int) -> ModelSubject:
    """The deepest network that was measured: its weights are of no matter, nor is a batch that each draws anew."""
    described = surveys.described.get(depth) or describe(grid.network(depth, 0))
    found: ModelSubject = msgspec.convert(described, ModelSubject)
    data = None if found.synthetic else found.data_sha256
    return replace(found, seed=grid.seed, weights_sha256=None, data_sha256=data)
