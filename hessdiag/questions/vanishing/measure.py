"""How gradient and Hessian norms change with depth, over many random fully connected networks."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import torch

from hessdiag.curvature.measurement import ensemble
from hessdiag.curvature.point.result import Point
from hessdiag.errors import ComputeError, SpecError
from hessdiag.machine.cost import gib, refuse_many
from hessdiag.machine.memory import free_bytes
from hessdiag.nets import activations
from hessdiag.nets.ensemble import Ensemble
from hessdiag.nets.initializers import Distribution, default_init, law
from hessdiag.problem.device import device_named
from hessdiag.questions.common.ensemble_statistics import NormStatistics
from hessdiag.questions.common.measured import point_result
from hessdiag.questions.common.pieces import Pieces
from hessdiag.questions.common.verdict import Finding, Status
from hessdiag.questions.vanishing.norms import (
    DepthNorms,
    LayerNorms,
    affordable_networks,
    check_against_products,
    hessian_work,
    kept,
    measure,
    statistics_of,
)
from hessdiag.questions.vanishing.theory import Theory, predict
from hessdiag.questions.vanishing.verdict import findings

Progress = Callable[[int, int, str], None]
OF_A_LAYER = 1_000  # bytes of a tensor, or of what is said of a layer, beside its numbers
WEIGHT_COPIES = 4  # weights, gradient, a vector and its product
SMALL_WIDTH = 64
SAMPLES = 16  # default batch
DEEP = 1 / 8  # of the deepest network: what is shallower has not settled to a rate
SEEDS = 200  # default number of networks for gradients
LARGEST_Z = 5.0  # standard errors between exact norms and their check by random products
FEWEST_TO_COMPARE = 20  # networks; with fewer, the estimated error of a median is too rough to judge theory by

QUANTITIES = ("gradient", "hessian", "hessian_diagonal_blocks", "hessian_offdiagonal_blocks", "vjp")


@dataclass(frozen=True)
class Rate:
    """Change of a log-median per layer (natural log) from one depth to another, beside the asymptotic theory."""

    per_layer: float
    per_layer_stderr: float
    theory_per_layer: float | None
    from_depth: int
    to_depth: int


def _known(norm: NormStatistics | None) -> TypeGuard[NormStatistics]:
    """Whether a log-median has an error."""
    return norm is not None and math.isfinite(norm.log_median) and 0 < norm.log_median_stderr < math.inf


@dataclass(frozen=True)
class Agreement:
    """A measured log-median against an exact one, in standard errors."""

    depth: int
    quantity: str
    measured_log_median: float
    stderr: float
    theory_log_median: float

    @property
    def z(self) -> float:
        """Standard errors between the two."""
        return (self.measured_log_median - self.theory_log_median) / self.stderr


@dataclass(frozen=True)
class Failure:
    """A depth that could not be measured: why, and what might help."""

    depth: int
    says: str
    hint: str | None

    def error(self) -> ComputeError:
        """The same, to be raised."""
        return ComputeError(f"at depth {self.depth}: {self.says}", self.hint)


@dataclass(frozen=True)
class Vanishing:
    """Norms against depth. See `DepthNorms` for what is measured; attributes bear the names of the result keys.

    `width` and `activation` are `None` for networks that `vanishing_of` builds, and so is `init` where those keep the
    weights that they are built with. `asked` are the depths that were asked for, of which an interrupt leaves some.
    """

    width: int | Literal["same"] | None
    init: str | None
    distribution: Distribution | None
    activation: str | None
    seeds: int
    batch: int
    seed: int
    device: str
    depths: tuple[DepthNorms, ...]
    layers: tuple[LayerNorms, ...]
    checks: dict[str, float | None]
    check_tolerance: float
    interrupted: bool
    same_weights: bool = False
    resumed_pieces: int = 0
    failed: tuple[Failure, ...] = ()
    trusted: bool = True
    point: Point | None = None
    asked: tuple[int, ...] = ()

    def predict(self, width: int | None) -> Theory | None:
        """What closed forms predict at a width; `None` where there are none."""
        if width is None or self.init is None or self.activation is None:
            return None
        return predict(self.init, self.activation, width, self.distribution)

    @cached_property
    def rates(self) -> dict[str, Rate]:
        """Change per layer of every quantity's log-median between two depths; empty for width = depth.

        Two medians of the table give each rate, so that a reader can do it again; a line through all medians between
        them would know it little better.
        """
        ends = self.ends
        if ends is None or self.width == "same":
            return {}
        theory, layers = self.predict(self.width), ends[1].depth - ends[0].depth
        found = {}
        for quantity in QUANTITIES:
            first, last = (statistics_of(entry, quantity) for entry in ends)
            if not (_known(first) and _known(last)):
                continue
            change = last.log_median - first.log_median
            stderr = math.hypot(first.log_median_stderr, last.log_median_stderr)
            limit = theory.rates.get(quantity) if theory else None
            found[quantity] = Rate(change / layers, stderr / layers, limit, ends[0].depth, ends[1].depth)
        return found

    @property
    def ends(self) -> tuple[DepthNorms, DepthNorms] | None:
        """The depths between which all rates are taken: the deepest, and the first from an eighth of it on."""
        known = [entry for entry in self.depths if _known(entry.gradient_norm)]
        deep = [entry for entry in known if entry.depth >= max(DEEP * known[-1].depth, 2)]
        return (deep[0], deep[-1]) if len(deep) > 1 else None

    @cached_property
    def agreement(self) -> tuple[Agreement, ...]:
        """Every measured log-median for which theory is exact."""
        return tuple(
            Agreement(entry.depth, quantity, norm.log_median, norm.log_median_stderr, float(np.log(value)))
            for entry in self.depths
            for quantity, value in (entry.theory_median or {}).items()
            if (norm := statistics_of(entry, quantity)) is not None
            and norm.log_median_stderr > 0
            and norm.networks >= FEWEST_TO_COMPARE
        )

    @property
    def thresholds(self) -> dict[str, float]:
        """What the self-checks allow, by name."""
        return dict.fromkeys(self.checks, self.check_tolerance)

    @property
    def check_failed(self) -> bool:
        """Whether a self-check came out beyond its tolerance."""
        apart = [value for value in self.checks.values() if value is not None]
        return not self.trusted or any(not abs(value) <= self.check_tolerance for value in apart)

    @property
    def status(self) -> Status:
        """Whether the measurement was interrupted, or a self-check or a depth failed ("inexact")."""
        if self.interrupted:
            return "interrupted"
        return "inexact" if self.check_failed or self.failed else "ok"

    @property
    def theory(self) -> dict[str, Any] | None:
        """What closed forms predict for the setting, and under which assumptions."""
        theory = self.predict(self.depths[-1].width) if self.depths else None
        return asdict(theory) if theory else None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The verdict."""
        return tuple(findings(self))

    @property
    def verdict(self) -> list[dict[str, str]]:
        """The findings as result documents hold them."""
        return [finding.as_dict() for finding in self.findings]

    def to_result(self) -> dict[str, Any]:
        """The document's "result"."""
        own = ("width", "init", "distribution", "activation", "seeds", "batch")
        return (
            {name: getattr(self, name) for name in own}
            | {
                "depths": [asdict(entry) for entry in self.depths],
                "failed": [{"depth": entry.depth, "says": entry.says} for entry in self.failed],
                "layers": [asdict(entry) for entry in self.layers],
                "rates": {quantity: asdict(rate) for quantity, rate in self.rates.items()},
                "agreement": [asdict(entry) | {"z": entry.z} for entry in self.agreement],
            }
            | ({} if self.point is None else point_result(self.point))
        )


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
    grid_depths = depth_grid(depth)
    for name, value, least in (
        ("depth", min(grid_depths, default=0), 1),
        ("width", width, 1),
        ("seeds", seeds, 2),
        ("batch", batch, 1),
        ("hessian-seeds", hessian_seeds, 2),
    ):
        if isinstance(value, int) and value < least:
            raise SpecError(f"--{name} must be at least {least}, not {value}.", f"--{name} {max(32, least)}")
    phi, init = activations.activation(activation), init or default_init(activation)
    weight_law = law(init, 1, 1, distribution)
    grid = [(L, L if width == "same" else width) for L in grid_depths]
    networks = min(seeds, hessian_seeds or affordable_networks(grid, batch))
    operations = sum(networks * hessian_work(L, d, batch) + 6.0 * seeds * batch * L * d * d for L, d in grid)
    place = device_named(device, operations)
    _fits(grid[-1], place)
    deepest, widest = grid[-1]
    refuse_many(batch, 8 * widest * (3 * deepest + 6), place, "samples", "--batch")
    refuse_many(seeds, 8 * (2 * deepest + 24), place, "networks", "--seeds")
    work = [round(1 + networks * hessian_work(L, d, batch) / 1e6) for L, d in grid]
    settings = {
        "command": "vanishing", "depths": grid_depths, "width": width, "init": init, "activation": activation,
        "seeds": seeds, "hessian_seeds": networks, "batch": batch, "seed": seed,
        "distribution": distribution,
    }  # fmt: skip
    pieces = Pieces(resume, settings, place)
    report = progress or (lambda done, total, what: None)
    depths = ", ".join(str(L) for L, _ in grid)
    disk = pieces.said(*map(sum, zip(*(kept(L, d, batch, seeds, networks) for L, d in grid), strict=True)))
    report(0, sum(work), f"{seeds:,} networks at depths {depths}; Hessian norms of {networks:,}{disk}")
    measured: list[DepthNorms] = []
    layers: tuple[LayerNorms, ...] = ()
    checks: dict[str, float | None] = {}
    interrupted = False
    try:
        for index, (L, d) in enumerate(grid):
            ensemble = Ensemble(L, d, init, batch, seed, place, distribution)
            if not checks:
                checks = {"hessian_norm_z": check_against_products(ensemble, phi)}
            before, done = sum(work[:index]), 0

            def advance(count: int, before: int = before, share: float = work[index] / networks) -> None:
                nonlocal done
                done += count
                report(before + round(done * share), sum(work), "")

            with _threads(d):
                entry, layers = measure(ensemble, phi, activation, seeds, networks, advance, pieces)
            measured.append(entry)
    except KeyboardInterrupt:
        if not measured:
            raise
        interrupted = True
    return Vanishing(
        width, init, weight_law.distribution if weight_law else None, activation, seeds, batch, seed, str(place),
        tuple(measured), layers, checks, LARGEST_Z, interrupted, resumed_pieces=pieces.taken,
        asked=tuple(grid_depths),
    )  # fmt: skip


def unmeasured(
    *,
    width: int | Literal["same"] | None = None,
    init: str | None = None,
    distribution: Distribution | None = None,
    activation: str | None = None,
    seeds: int,
    batch: int,
    seed: int,
    device: str,
) -> Vanishing:
    """The result of a run that was interrupted before its first depth was done."""
    return Vanishing(
        width, init, distribution, activation, seeds, batch, seed, device, (), (), {}, LARGEST_Z, interrupted=True
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
