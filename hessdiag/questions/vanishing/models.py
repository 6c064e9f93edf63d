"""How gradient and Hessian norms change with depth in networks of any kind, built anew at every depth and seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import ensemble
from hessdiag.errors import ComputeError, SpecError
from hessdiag.machine.cost import refuse_many
from hessdiag.nets.initializers import Distribution, law
from hessdiag.nets.reinitialize import reinitialize
from hessdiag.problem.describe import describe
from hessdiag.problem.problem import Layer, Problem
from hessdiag.questions.common.ensemble_statistics import NormStatistics, norm_statistics
from hessdiag.questions.common.pieces import Arrays, Pieces
from hessdiag.questions.vanishing.effective_width import EffectiveWidth
from hessdiag.questions.vanishing.measure import Failure, Progress, Vanishing, depth_grid
from hessdiag.questions.vanishing.network import PROBES, Network, measure
from hessdiag.questions.vanishing.norms import DENSE_PARAMETERS, DepthNorms, LayerNorms

Build = Callable[[int, int], Problem]

DEEP = 1_000  # layers: networks of so many take seconds to build
OF_A_NETWORK, OF_A_LAYER = 2_000, 400  # bytes of what is kept of one, and for each of its layers
SEEDS = 10  # default number of networks at every depth
HESSIAN_WORK = 5e11  # floating-point operations that the Hessian norms of a default run may take
FEWEST_HESSIAN_SEEDS = 2
OF_NETWORKS = ("model", "data", "samples", "loss", "loss_definition", "reduction", "dtype", "train_mode", "files")
OF_DEPTHS = ("weights_sha256", "data_sha256")
PRODUCT_TO_FORWARD = 6  # operations of a Hessian-vector product over those of a forward pass


@dataclass(frozen=True)
class Survey:
    """What one network of a depth is like, before any is measured.

    Attributes:
        depth: As the function that builds it takes it.
        layers: Those with parameters, as they are executed.
        depths: How deep each lies; `None` for what is not on the way from the data to the loss.
        parameters: Their number.
        forward: Floating-point operations of one forward pass, roughly.
    """

    depth: int
    layers: Sequence[Layer]
    depths: Sequence[int | None]
    parameters: int
    forward: int

    @property
    def products(self) -> int:
        """Hessian-vector products for the norms of one network."""
        return self.parameters if self.parameters <= DENSE_PARAMETERS else PROBES * len(self.layers)

    @property
    def work(self) -> int:
        """Floating-point operations of the Hessian norms of one network, roughly."""
        return PRODUCT_TO_FORWARD * self.products * self.forward


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
    grid = depth_grid(depth)
    _check(grid, seeds, hessian_seeds, init, distribution)
    weight_law = law(init, 1, 1, distribution) if init is not None else None

    def network(depth: int, index: int) -> Problem:
        words = np.random.SeedSequence([seed, depth, index]).generate_state(2, np.uint32)
        problem = build(depth, int(words[0]))
        if init is not None:
            reinitialize(problem.model, init, torch.Generator().manual_seed(int(words[1])), distribution)
        return problem

    surveys: list[Survey] = []
    failed: list[Failure] = []
    prints: dict[str, Any] = {}
    report = progress or (lambda done, total, what: None)
    if grid[-1] >= DEEP:
        report(0, 1, f"looking at one network of each depth, the deepest first, of depth {grid[-1]:,}")
    for L in reversed(grid):  # one that cannot be built is found out at once
        try:
            problem = network(L, 0)
            surveys.insert(0, _survey(problem, L))
        except ComputeError as error:
            failed.insert(0, Failure(L, error.what, error.hint))
            continue
        if resume is not None:
            prints[str(L)] = describe(problem)
    if not surveys:
        raise failed[0].error()
    each = OF_A_NETWORK + OF_A_LAYER * max(len(survey.layers) for survey in surveys)
    refuse_many(seeds, each, None, "networks", "--seeds")
    networks = min(seeds, hessian_seeds or _affordable(surveys))
    work = [seeds + networks * entry.products for entry in surveys]
    settings = {
        "command": "vanishing MODEL", "depths": grid, "seeds": seeds, "hessian_seeds": networks, "init": init,
        "distribution": distribution, "seed": seed, **_fingerprint(prints),
    }  # fmt: skip
    pieces = Pieces(resume, settings, problem.device)
    report(
        0, sum(work), _cost(surveys, seeds, networks) + pieces.said(len(surveys) * seeds * each, len(surveys) * seeds)
    )

    def measure_one(depth: int, index: int) -> Arrays:
        problem = network(depth, index)
        if checks is not None and checks.special:  # what one network needs, others may: differences, one draw
            examine(HessianOperator(problem, check=False), seed)
        return measure(problem, seed + index, curved=index < networks).arrays()

    measured: list[DepthNorms] = []
    layers: tuple[LayerNorms, ...] = ()
    checks: Examination | None = None
    interrupted, same, done = False, False, 0
    for survey in surveys:
        found: list[Network] = []
        try:
            if checks is None:
                first = network(survey.depth, 0)
                checks = examine(HessianOperator(first, check=False), seed)
            for index in range(seeds):
                compute = partial(measure_one, survey.depth, index)
                found.append(Network.of(pieces.get(f"depth-{survey.depth}-network-{index}", compute)))
                done += 1 + (survey.products if index < networks else 0)
                report(done, sum(work), "")
        except ComputeError as error:
            failed.append(Failure(survey.depth, f"network {len(found) + 1} of {seeds}: {error.what}", error.hint))
            continue
        except KeyboardInterrupt:
            if not measured and len(found) < FEWEST_HESSIAN_SEEDS:
                raise
            interrupted = len(found) < seeds or survey is not surveys[-1]
        if len(found) >= FEWEST_HESSIAN_SEEDS:
            same = len({network.weights for network in found}) == 1
            entry, layers = _joined(survey, found)
            measured.append(entry)
        if interrupted:
            break
    if not measured or checks is None:
        raise min(failed, key=lambda failure: failure.depth).error()
    return Vanishing(
        width=None,
        init=init,
        distribution=weight_law.distribution if weight_law else None,
        activation=None,
        seeds=seeds,
        batch=first.n_samples,
        seed=seed,
        device=str(first.device),
        depths=tuple(measured),
        layers=layers,
        checks=checks.checks,
        check_tolerance=checks.tolerance,
        trusted=not checks.failed,
        point=checks.point,
        interrupted=interrupted,
        same_weights=same,
        resumed_pieces=pieces.taken,
        failed=tuple(sorted(failed, key=lambda failure: failure.depth)),
        asked=tuple(grid),
    )


def _fingerprint(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What tells whether networks are still the same, from the first one of each depth."""
    found = {name: value for problem in described.values() for name, value in problem.items() if name in OF_NETWORKS}
    return found | {name: {depth: problem[name] for depth, problem in described.items()} for name in OF_DEPTHS}


def _check(
    grid: Sequence[int], seeds: int, hessian_seeds: int | None, init: str | None, distribution: Distribution | None
) -> None:
    for name, value, least in (
        ("depth", min(grid, default=0), 1),
        ("seeds", seeds, FEWEST_HESSIAN_SEEDS),
        ("hessian-seeds", hessian_seeds, FEWEST_HESSIAN_SEEDS),
    ):
        if value is not None and value < least:
            raise SpecError(f"--{name} must be at least {least}, not {value}.", f"--{name} {max(8, least)}")
    if distribution is not None and init is None:
        raise SpecError("--distribution changes an initialization, and none was given.", "--init he_uniform")


class _Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Floating-point operations by torch's formulas. Its own counter cannot look into a derivative inside the model."""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.total += int(count(*args, **(kwargs or {}), out_val=found))
        return found


def _survey(problem: Problem, depth: int) -> Survey:
    with _Flops() as counter:  # type: ignore[no-untyped-call]
        for batch in problem.data:
            problem.evaluate(batch)
    forward = max(counter.total, problem.n_parameters)  # the counter does not know every operation
    return Survey(depth, problem.executed_layers, problem.depths, problem.n_parameters, forward)


def _affordable(surveys: Sequence[Survey]) -> int:
    total = sum(survey.work for survey in surveys)
    return max(FEWEST_HESSIAN_SEEDS, int(HESSIAN_WORK / total))


def _cost(surveys: Sequence[Survey], seeds: int, networks: int) -> str:
    depths = ", ".join(str(survey.depth) for survey in surveys)
    products = networks * sum(survey.products for survey in surveys)
    return (
        f"{seeds:,} networks at depths {depths}, up to {surveys[-1].parameters:,} parameters; "
        f"Hessian norms of {networks:,}: {products:,} products"
    )


def _joined(survey: Survey, found: Sequence[Network]) -> tuple[DepthNorms, tuple[LayerNorms, ...]]:
    """Statistics over the networks of one depth."""
    layers = survey.layers
    gradient = np.stack([network.gradient for network in found])
    curvatures = [network.curvature for network in found if network.curvature is not None]
    total = np.array([curvature.total for curvature in curvatures])
    diagonal = np.stack([curvature.diagonal for curvature in curvatures])
    shares = [curvature.share for curvature in curvatures if curvature.share is not None]
    errors = [curvature.error for curvature in curvatures if curvature.error is not None]
    alive = gradient.sum(1) > 0
    curved = alive[: len(curvatures)]
    path, effective = _over_layers([network.widths for network in found])
    entry = DepthNorms(
        depth=survey.depth,
        width=None,
        parameters=survey.parameters,
        seeds=len(found),
        hessian_seeds=len(curvatures),
        hessian_method="hvp" if errors else "exact",
        dead_fraction=float(1 - alive.mean()),
        gradient_norm=norm_statistics(gradient.sum(1), alive),
        hessian_norm=norm_statistics(total, curved),
        hessian_diagonal_blocks_norm=norm_statistics(diagonal.sum(1), curved),
        hessian_offdiagonal_blocks_norm=norm_statistics(np.maximum(total - diagonal.sum(1), 0), curved),
        hessian_diag_share=norm_statistics(np.square(shares)[curved], curved[curved]) if shares else None,
        certified_indefinite=None,
        vjp_norm=None,
        theory_rms=None,
        theory_median=None,
        hessian_probe_error=float(np.median(errors)) if errors else None,
        path_width=path,
        effective_width=effective[0],
        effective_width_stderr=effective[1],
    )
    blocks = [norm_statistics(diagonal[:, index], curved) for index in range(len(layers))]
    gradients = [norm_statistics(gradient[:, index], alive) for index in range(len(layers))]
    return entry, tuple(
        _layer(number, layer, depth, gradients[number - 1], blocks[number - 1], found)
        for number, (layer, depth) in enumerate(zip(layers, survey.depths, strict=True), start=1)
    )


def _layer(
    number: int,
    layer: Layer,
    depth: int | None,
    gradient: NormStatistics,
    block: NormStatistics,
    found: Sequence[Network],
) -> LayerNorms:
    seen = [network.widths[layer.path] for network in found if layer.path in network.widths]
    width, stderr = _harmonic([width.stable_rank for width in seen])
    path = seen[0].path if seen else None
    return LayerNorms(number, gradient, block, layer.name, layer.size, path, width, stderr, depth)


def _over_layers(
    networks: Sequence[dict[str, EffectiveWidth]],
) -> tuple[float | None, tuple[float | None, float | None]]:
    """Harmonic means of both widths over all layers but the last, whose output goes nowhere, and over networks."""
    inner = [list(widths.values())[:-1] for widths in networks if len(widths) > 1]
    if not inner:
        return None, (None, None)
    path = _harmonic([width.path for width in inner[0]])[0]
    return path, _harmonic([1 / float(np.mean([1 / width.stable_rank for width in widths])) for widths in inner])


def _harmonic(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Harmonic mean with its standard error by the delta method; `None` of nothing, and no error for one."""
    if not values:
        return None, None
    inverse = 1 / np.asarray(values)
    mean = float(inverse.mean())
    if len(values) == 1:
        return 1 / mean, None
    return 1 / mean, float(inverse.std(ddof=1)) / len(values) ** 0.5 / mean**2
