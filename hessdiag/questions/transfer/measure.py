"""Will a learning rate that was tuned on a small network hold on a large one?"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec
import numpy as np
import torch

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import ensemble
from hessdiag.errors import ComputeError, SpecError
from hessdiag.nets.mup import FAMILIES, Role
from hessdiag.optimizers.recipe import Recipe, of_gradients, recipe
from hessdiag.problem.copies import copied
from hessdiag.problem.describe import describe
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.described import examined
from hessdiag.questions.common.ensembles.plan import Plan, Run, refuse_below
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import ModelSubject, Provenance
from hessdiag.questions.common.runs.pieces import Arrays
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.transfer import layers, network, rates
from hessdiag.questions.transfer.assemble import lines_of, sizes_of, slopes_of
from hessdiag.questions.transfer.layers import Part
from hessdiag.questions.transfer.mend import mended
from hessdiag.questions.transfer.result import Transfer, UnmeasuredSize, Varied
from hessdiag.questions.transfer.template import USUAL, refuse_single
from hessdiag.questions.transfer.verdict import findings, transfers

Build = Callable[[int, int], Problem]
Multipliers = Literal["groups", "mup"]

SEEDS, STEPS = 5, 4
SLOPE = 0.2  # what counts as no slope: at ten times the width, the right rate is off by up to 1.6 times
SHARE = 0.05  # of the largest stable learning rate of the smallest network, where none is given
LEAST_SEEDS = 2
OF_A_NETWORK, OF_A_TENSOR = 3_000, 100  # bytes of what is kept


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which networks are measured, and how.

    Attributes:
        build: Gives one, of (size, seed).
        varied: What the size is.
        sizes: Ascending.
        seeds: Networks of each size.
        steps: Of the optimizer.
        seed: Of all randomness.
    """

    build: Build
    varied: Varied
    sizes: tuple[int, ...]
    seeds: int
    steps: int
    seed: int

    def network(self, size: int, index: int) -> Problem:
        """One of them, on a copy of its model."""
        words = np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint32)
        problem = self.build(size, int(words[0]))
        model = copied(problem.model)
        if model is None:
            raise ComputeError(
                "the model cannot be copied, and steps are taken on a copy.", "a function that builds it"
            )
        return problem.as_written(model=model)


@dataclass(frozen=True)
class Looked:
    """What the first networks are like.

    Attributes:
        parts: Tensors by size.
        roles: What each tensor is, by size.
        parameters: By size.
        described: The first network of each size, in words.
        hashes: Of the first networks' weights and data.
        device: Where they are.
    """

    parts: dict[int, tuple[Part, ...]]
    roles: dict[int, dict[str, Role]]
    parameters: dict[int, int]
    described: Mapping[int, Mapping[str, Any]]
    hashes: Mapping[str, Any]
    device: torch.device


@dataclass
class Found:
    """What was measured so far: arrays by size, one per seed."""

    arrays: dict[int, list[Arrays]] = field(default_factory=dict)
    failed: list[UnmeasuredSize] = field(default_factory=list)
    examination: Examination | None = None
    interrupted: bool = False


@recorded
@ensemble(less="--seeds 2, or smaller widths")
def transfer(
    build: Build,
    *,
    widths: Sequence[int] = USUAL["width"],
    varied: Varied = "width",
    optimizer: Any = None,
    lr: float | None = None,
    multipliers: Multipliers | None = None,
    seeds: int = SEEDS,
    steps: int = STEPS,
    tolerance: float = SLOPE,
    seed: int = 0,
    resume: str | Path | None = None,
    scripts: dict[Path, ModuleType] | None = None,
    progress: Progress | None = None,
) -> Transfer:
    """Measure how the curvature that an optimizer sees, and what its steps change, go with the size of a network.

    A learning rate transfers where the sharpness in the metric of the optimizer does not drift (Noci et al., arXiv
    2402.17457) and every layer's outputs change by as much in a few steps (the coordinate check of Yang et al.,
    arXiv 2203.03466). Networks are copied before they are stepped; each step takes the gradient of all batches.

    Args:
        build: A function of (size, seed) that gives a fresh problem.
        widths: Sizes, ascending; the smallest is the base of muP's table.
        varied: What the size is, "width" or "depth".
        optimizer: As of `check`: "adam(lr=1e-3)", a function of the model or its parameters. Default: gradient descent.
        lr: Base learning rate. Default: the optimizer's own, or a twentieth of the smallest network's largest stable
            one.
        multipliers: "groups": each tensor has the learning rate of its group; "mup": muP's table multiplies it.
            Default: "mup" for the built-in networks in that parametrization under an optimizer given by name.
        seeds: Networks of each size.
        steps: How many the optimizer takes.
        tolerance: Slopes up to this size count as none.
        seed: Of all randomness.
        resume: A folder for finished networks. A run with the same settings takes up what it holds.
        scripts: Scripts of the user's that ran already.
        progress: Called with (done, total, what).

    Returns:
        Slopes of the whole, of each kind of layer, and whether they hold. A size that fails is named in `failed`.

    Raises:
        SpecError: if there are fewer than two sizes or seeds, or there is no such optimizer.
        ComputeError: if networks of several widths have other parameters, or none can be measured.

    >>> from hessdiag import ProblemRequest, load_problem
    >>> def build(width, seed):
    ...     spec = f"builtin:mlp(width={width}, depth=3, in_features=16, out_features=1)"
    ...     return load_problem(ProblemRequest(spec, device="cpu", seed=seed))
    >>> found = transfer(build, widths=[16, 128])
    >>> found.transfers, found.slopes.lambda_max.slope > 0.5
    (False, True)
    """
    sizes = tuple(sorted(set(widths)))
    refuse_single(sizes, varied)
    refuse_below(1, 64, **{f"{varied}s": sizes[0]}, steps=steps)
    refuse_below(LEAST_SEEDS, SEEDS, seeds=seeds)
    if not 0 < tolerance < math.inf:
        raise SpecError(f"a tolerance is a positive slope, not {tolerance}.", "--tolerance 0.1")
    grid = Grid(build=build, varied=varied, sizes=sizes, seeds=seeds, steps=steps, seed=seed)
    looked = _looked(grid)
    _refuse_alike(grid, looked)
    made = of_gradients(recipe("sgd" if optimizer is None else optimizer, lr, scripts))
    how = multipliers or _usual(grid, optimizer)
    if how == "mup" and varied == "depth":
        raise SpecError("muP's table is of widths, and depth is what is varied.", "--multipliers groups")
    run = _plan(grid, looked, made, how, lr).begin(resume, progress)
    chosen = lr is None and (optimizer is None or bool(made.assumed))
    if chosen:
        made = made.with_settings(lr=run.pieces.get("learning-rate", lambda: _chosen(grid))["lr"].item())
    found = _measured(grid, looked, made, how, run)
    return _assembled(grid, looked, made, how, tolerance, found, run, chosen=chosen)


def _usual(grid: Grid, optimizer: Any) -> Multipliers:
    """The learning rates of muP for a network that says it is one, unless the optimizer is one of the user's making."""
    named = optimizer is None or (isinstance(optimizer, str) and recipe(optimizer, None).kind.lower() in FAMILIES)
    if not named or grid.varied == "depth":
        return "groups"
    model = grid.network(grid.sizes[0], 0).model
    return "mup" if getattr(model, "parametrization", None) == "mup" else "groups"


def _looked(grid: Grid) -> Looked:
    """Look at the first network of each size, the largest first: one that cannot be built is found out at once."""
    parts: dict[int, tuple[Part, ...]] = {}
    parameters, described, device = {}, {}, torch.device("cpu")
    for size in reversed(grid.sizes):
        problem = grid.network(size, 0)
        parts[size], parameters[size], device = layers.parts(problem), problem.n_parameters, problem.device
        described[size] = describe(problem)
    hashes = {
        name: {str(size): one[name] for size, one in described.items()} for name in ("weights_sha256", "data_sha256")
    }
    return Looked(parts, layers.roles(parts, grid.varied), parameters, described, hashes, device)


def _refuse_alike(grid: Grid, looked: Looked) -> None:
    """Refuse networks that are one and the same for all seeds: how much they differ would not be known.

    Raises:
        SpecError: if the first two of the smallest size have the same weights.
    """
    other = describe(grid.network(grid.sizes[0], 1))["weights_sha256"]
    if other == looked.hashes["weights_sha256"][str(grid.sizes[0])]:
        raise SpecError(
            "every seed gives the same weights, so nothing tells how far networks differ by chance.",
            "a MODEL that does not seed itself: without seed=N, torch.manual_seed(N) or --weights",
        )


def _chosen(grid: Grid) -> Arrays:
    """A share of the largest stable learning rate of gradient descent on the first network of the smallest size."""
    operator = HessianOperator(grid.network(grid.sizes[0], 0), check=False)
    top = network.largest(operator, grid.seed)[0]
    if not top > 0:
        raise ComputeError(
            f"the largest eigenvalue of the smallest network is {top:g}: no learning rate follows from it.", "--lr 0.1"
        )
    return {"lr": np.array(SHARE * 2 / top)}


def _plan(grid: Grid, looked: Looked, made: Recipe, how: Multipliers, lr: float | None) -> Plan:
    count = len(grid.sizes) * grid.seeds
    each = OF_A_NETWORK + OF_A_TENSOR * (grid.steps + 8) * len(looked.roles[grid.sizes[-1]])
    sizes = ", ".join(f"{size:,}" for size in grid.sizes)
    most = 2 * network.MOST_PRODUCTS
    largest = looked.described[grid.sizes[-1]]
    known = ("model", "data", "samples", "loss", "loss_definition", "reduction", "dtype", "files")
    return Plan(
        what=(
            f"{count:,} networks: {grid.seeds} of each {grid.varied} {sizes}, up to "
            f"{max(looked.parameters.values()):,} parameters; of each at most {most} products with the Hessian, "
            f"usually some 20, and {grid.steps + 1} gradients"
        ),
        steps=sum(grid.seeds * looked.parameters[size] for size in grid.sizes),
        settings={
            "command": "transfer", "varied": grid.varied, "sizes": grid.sizes, "steps": grid.steps, "seed": grid.seed,
            "optimizer": made.name, "lr": lr, "multipliers": how,
            **{name: value for name, value in largest.items() if name in known}, **looked.hashes,
        },
        device=looked.device,
        kept=(count * each, count),
    )  # fmt: skip


def _measured(grid: Grid, looked: Looked, made: Recipe, how: Multipliers, run: Run) -> Found:
    """Size by size, seed by seed, the smallest first: one that fails leaves the others, an interrupt what is there."""
    found = Found()
    base = looked.parts[grid.sizes[0]] if how == "mup" else None
    for size in grid.sizes:
        own = looked.parts[size]
        setting = network.Setting(grid.steps, base, own, layers.lines(own, looked.roles[size]), grid.seed)
        arrays: list[Arrays] = []
        try:
            if found.examination is None:
                found.examination = examine(HessianOperator(grid.network(size, 0), check=False), grid.seed)
            for index in range(grid.seeds):
                compute = partial(_arrays, grid, size, index, made, setting)
                arrays.append(run.pieces.get(f"{grid.varied}-{size}-network-{index}", compute))
                run.meter.advance(looked.parameters[size])
        except ComputeError as error:
            says = f"network {len(arrays) + 1} of {grid.seeds}: {error.what}"
            found.failed.append(UnmeasuredSize(size=size, says=says, hint=error.hint))
            continue
        except KeyboardInterrupt:
            if not found.arrays:
                raise
            found.interrupted = True
            break
        found.arrays[size] = arrays
    return found


def _arrays(grid: Grid, size: int, index: int, made: Recipe, setting: network.Setting) -> Arrays:
    return network.measured(grid.network(size, index), made, setting)


def _assembled(
    grid: Grid,
    looked: Looked,
    made: Recipe,
    how: Multipliers,
    tolerance: float,
    found: Found,
    run: Run,
    *,
    chosen: bool,
) -> Transfer:
    """All that was measured, as one result.

    Raises:
        ComputeError: if that is nothing.
    """
    if not found.arrays or found.examination is None:
        first = found.failed[0]
        raise ComputeError(f"at {grid.varied} {first.size}: {first.says}", first.hint)
    smallest = grid.network(grid.sizes[0], 0)
    optimizer = made.build(smallest.model, [name for name, _ in smallest.named_parameters])
    base = made.changed.get("lr") or rates.base_rate(optimizer, rates.by_name(smallest, optimizer))
    sizes = tuple(found.arrays)
    kind = type(optimizer).__name__.lower()
    of_lines = {size: layers.lines(looked.parts[size], looked.roles[size]) for size in sizes}
    lines = lines_of(found.arrays, of_lines, tolerance)
    if grid.varied == "width":
        lines = mended(lines, rates.family(optimizer), tolerance)
    residuals = [
        abs(float(one["lambda_max"][1] / one["lambda_max"][0])) for many in found.arrays.values() for one in many
    ]
    subject: ModelSubject = msgspec.convert(looked.described[sizes[-1]], ModelSubject)
    examination = found.examination
    result = Transfer(
        status="interrupted" if found.interrupted else "inexact" if examination.failed else "ok",
        problem=replace(subject, seed=grid.seed, weights_sha256=None),
        provenance=Provenance(resumed_pieces=run.pieces.taken),
        varied=grid.varied,
        widths=sizes,
        asked=grid.sizes,
        seeds=grid.seeds,
        steps=grid.steps,
        optimizer=made.name if made.known else made.kind,
        lr=base,
        lr_chosen=chosen,
        multipliers=how,
        weighted_at="start" if kind == "sgd" else "after the steps",
        tolerance=tolerance,
        residual=max(residuals),
        slopes=slopes_of(found.arrays, of_lines, base, tolerance, alike=1 + len(lines)),
        sizes=sizes_of(found.arrays, of_lines, looked.parameters, base),
        layers=lines,
        failed=tuple(found.failed),
    )
    result = examined(result, examination)
    result = replace(result, transfers=transfers(result))
    return replace(result, findings=tuple(findings(result)))
