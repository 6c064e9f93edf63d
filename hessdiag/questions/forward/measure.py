"""How far a signal gets through random fully connected networks: what is typical, and what the average says."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.curvature.measurement import ensemble
from hessdiag.errors import ComputeError, SpecError
from hessdiag.machine.cost import SPARE, gib, refuse_many
from hessdiag.machine.memory import free_bytes
from hessdiag.nets import activations
from hessdiag.nets.activations import Activation
from hessdiag.nets.initializers import Distribution, draw, law
from hessdiag.problem.device import device_named
from hessdiag.questions.common.pieces import Pieces
from hessdiag.questions.common.prediction import Theory
from hessdiag.questions.common.square_networks import predict
from hessdiag.questions.common.verdict import Z_ALLOWED, Finding, Status
from hessdiag.questions.forward.gain import FIRST_SHARE, Target, closed_form
from hessdiag.questions.forward.norms import Floats, RatioStatistics, chunk_count, pace, ratio_statistics
from hessdiag.questions.forward.solution import Solution, solution
from hessdiag.questions.forward.solve import Ensemble, measure_and_solve
from hessdiag.questions.forward.theory import exact_kurtosis, exact_log_medians, exact_log_rms
from hessdiag.questions.forward.verdict import findings
from hessdiag.theory.gaussian_nets import gate_moments

Progress = Callable[[int, int, str], None]

INITS = ("lecun", "xavier_normal", "he_normal")
SEEDS = 2000
PACE_WORTH = 2**23  # weights that are drawn under each law from which their paces are measured first
OF_A_LAYER = 4_000  # bytes of what is said of one
FEWEST_TO_COMPARE = 20  # networks; with fewer, the estimated error of a median is too rough to judge theory by


@dataclass(frozen=True)
class LayerRatio:
    """The ratio norm(h_l) / norm(x) in one layer, counted from 1.

    Attributes:
        layer: l.
        ratio: What was measured.
        theory_log_median: Natural log of the exact median; `None` where no closed form holds.
        theory_log_rms: Natural log of the exact root mean square; `None` likewise.
        name: Of the layer in the user's model; `None` in the built-in networks.
        theory_kurtosis: Exact `E r^4 / (E r^2)^2`; `None` likewise.
    """

    layer: int
    ratio: RatioStatistics
    theory_log_median: float | None
    theory_log_rms: float | None
    name: str | None = None
    theory_kurtosis: float | None = None

    @property
    def theory_median(self) -> float | None:
        """The exact median."""
        return _exp(self.theory_log_median)

    @property
    def theory_rms(self) -> float | None:
        """The exact root mean square."""
        return _exp(self.theory_log_rms)

    @property
    def z(self) -> float | None:
        """Standard errors between the measured log-median and the exact one."""
        if self.theory_log_median is None or self.ratio.live < FEWEST_TO_COMPARE:
            return None
        difference = self.ratio.log_median - self.theory_log_median
        return difference / self.ratio.log_median_stderr if self.ratio.log_median_stderr > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """The form that result documents hold."""
        theory = ("theory_median", "theory_rms", "theory_log_median", "theory_log_rms", "theory_kurtosis", "z")
        return {"layer": self.layer, "name": self.name, **asdict(self.ratio)} | {
            key: getattr(self, key) for key in theory
        }


@dataclass(frozen=True)
class InitRatios:
    """One initialization, layer by layer. Attributes bear the names of the result keys.

    `activation` and `width` are `None` for the user's own model, whose `depth` is the number of its weight layers.
    """

    init: str
    distribution: Distribution | None
    activation: str | None
    depth: int
    width: int | None
    seeds: int
    layers: tuple[LayerRatio, ...]
    solution: Solution | None = None

    @property
    def prediction(self) -> Theory | None:
        """What closed forms predict for these networks; `None` where there are none."""
        if self.activation is None or self.width is None:
            return None
        return predict(self.init, self.activation, self.width, self.distribution)

    @property
    def last(self) -> LayerRatio:
        """The deepest layer."""
        return self.layers[-1]

    @property
    def compared(self) -> tuple[LayerRatio, ...]:
        """The layers whose medians are held against exact ones: powers of two and the last; neighbours say the same."""
        return tuple(
            entry
            for entry in self.layers
            if entry.z is not None and (entry.layer == self.depth or entry.layer.bit_count() == 1)
        )

    @property
    def worst(self) -> LayerRatio | None:
        """Of those, the one whose measured median is farthest from the exact one, in standard errors."""
        return max(self.compared, key=lambda entry: abs(entry.z or 0.0), default=None)

    def to_result(self) -> dict[str, Any]:
        """One of the document's "inits"; its own median and root mean square are those of the last layer."""
        names = ("init", "distribution", "activation", "depth", "width", "seeds")
        last = self.last.ratio
        return {name: getattr(self, name) for name in names} | {
            "median": last.median,
            "median_stderr": last.median_stderr,
            "rms": last.rms,
            "rms_stderr": last.rms_stderr,
            "log_median_per_layer": last.log_median / self.depth,
            "log_median_per_layer_stderr": last.log_median_stderr / self.depth,
            "layers": [entry.as_dict() for entry in self.layers],
            "solution": self.solution.as_dict() if self.solution else None,
        }


@dataclass(frozen=True)
class Forward:
    """Forward norms under several initializations.

    Attributes:
        inits: What was measured of each, in the order asked for; after an interrupt, of those that it left.
        seed: Of all randomness.
        device: Where it was computed.
        interrupted: Whether an interrupt left out networks, initializations or gains.
        resumed_pieces: How many finished pieces of an earlier run were taken up.
        asked_seeds: Networks that were asked for.
        asked_inits: And initializations.
    """

    inits: tuple[InitRatios, ...]
    seed: int
    device: str
    interrupted: bool = False
    resumed_pieces: int = 0
    asked_seeds: int = 0
    asked_inits: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """Whether the measurement was interrupted, or a gain was measured on too few networks ("inexact")."""
        if self.interrupted:
            return "interrupted"
        solutions = [entry.solution for entry in self.inits if entry.solution is not None]
        return "ok" if all(found.tried or found.method == "exact" for found in solutions) else "inexact"

    @property
    def checks(self) -> dict[str, float | None]:
        """For each initialization, the largest deviation of a log-median from its exact value, in standard errors."""
        return {f"{entry.init}_median_z": worst.z for entry in self.inits if (worst := entry.worst) is not None}

    @cached_property
    def theory(self) -> dict[str, Any] | None:
        """What closed forms predict for each initialization."""
        predicted = {entry.init: asdict(found) for entry in self.inits if (found := entry.prediction)}
        return {"inits": predicted} if predicted else None

    @property
    def thresholds(self) -> dict[str, float]:
        """What the self-checks allow, by name."""
        return dict.fromkeys(self.checks, Z_ALLOWED)

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
        return {
            "inits": [entry.to_result() for entry in self.inits],
            "agreement": [
                {
                    "init": entry.init,
                    "layer": layer.layer,
                    "measured_log_median": layer.ratio.log_median,
                    "stderr": layer.ratio.log_median_stderr,
                    "theory_log_median": layer.theory_log_median,
                    "z": layer.z,
                }
                for entry in self.inits
                for layer in entry.compared
            ],
        }


@ensemble(less="--seeds 100")
def forward(
    *,
    depth: int = 128,
    width: int = 32,
    init: str | Sequence[str] = INITS,
    activation: str = "relu",
    seeds: int = SEEDS,
    seed: int = 0,
    device: str = "auto",
    distribution: Distribution | None = None,
    solve: Target | None = None,
    per_layer: bool = False,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Forward:
    """Measure norm(h_l) / norm(x) in every layer of many random networks (Orvieto et al., Vanishing Curvature).

    Layers are `h_l = phi(W_l h_{l-1})` for l = 1 .. depth, without biases, all `width` wide; the last one has its
    activation too, so that h_depth is what a further layer would see. Inputs lie uniformly on the unit sphere: with
    Gaussian weights and linear or (leaky) ReLU layers the ratios do not depend on them. Initializations that draw from
    the same distribution get the same random matrices, scaled. Everything is computed in float64.

    Args:
        depth: Number of weight matrices.
        width: Of all layers.
        init: One or several keys of `hessdiag.nets.INITS`.
        activation: A key of `hessdiag.nets.ACTIVATIONS`.
        seeds: Networks for each initialization.
        seed: Of all randomness.
        device: "auto", "cpu", "cuda", ...
        distribution: Draw from this distribution at each initialization's variance.
        solve: Also find the factor of the weights that makes the "median" or the "rms" of the ratio 1 at the last
            layer, and try it on fresh networks.
        per_layer: Find one factor for each layer's weights, so that it is 1 after every layer.
        resume: A folder for finished pieces. A run with the same settings takes up what it holds.
        progress: Called with (done, total, what).

    Raises:
        SpecError: for a depth, width or number of seeds that is too small, a name that is unknown, or a folder that
            holds pieces of other settings.
        ComputeError: if no gain does what `solve` asks for.

    >>> measured = forward(depth=16, width=8, init="he_normal", seeds=200)
    >>> last = measured.inits[0].last
    >>> abs(last.z) < 4, round(last.theory_median, 5), round(last.theory_rms, 5)
    (True, 0.04898, 1.0)
    """
    for name, value, least in (("depth", depth, 1), ("width", width, 1), ("seeds", seeds, 2)):
        if value < least:
            raise SpecError(f"--{name} must be at least {least}, not {value}.", f"--{name} {max(32, least)}")
    names = tuple(dict.fromkeys((init,) if isinstance(init, str) else init))
    if solve not in (None, "median", "rms"):
        raise SpecError(f"--solve is median or rms, not {solve!r}.", "--solve median")
    if per_layer and solve is None:
        raise SpecError("--per-layer needs to know what to keep.", "--solve median --per-layer")
    if not names:
        raise SpecError("no initialization was given.", "--init he_normal")
    phi = activations.activation(activation)
    laws = {name: law(name, width, width, distribution) for name in names}
    place = device_named(device, 2.0 * len(names) * seeds * depth * width**2)
    # Weights of one network a layer at a time, and a log for each layer of all networks.
    free = SPARE * free_bytes(place)
    if 32 * width**2 > free:
        what = f"layers of {width:,} units need {gib(32 * width**2)}, and {gib(free)} of memory may be taken."
        raise ComputeError(what, f"--width {math.isqrt(int(free / 32))}")
    each = 24 * len(names)
    refuse_many(depth, each * 2 + OF_A_LAYER * len(names), None, "layers", "--depth")
    many, few, what, flag = max((seeds, depth, "networks", "--seeds"), (depth, seeds, "layers", "--depth"))
    refuse_many(many, each * few, place, what, flag)
    by_kind: dict[Distribution | None, list[str]] = {}
    for name, weights in laws.items():
        by_kind.setdefault(weights.distribution if weights else None, []).append(name)
    searches = phi.slope is None and solve is not None
    passes = 1 + (solve is not None) + (1 if per_layer else 3 / FIRST_SHARE) * searches
    total, report = round(passes * len(by_kind) * seeds * depth), progress or (lambda done, total, what: None)
    done, shares = 0.0, dict.fromkeys(by_kind, 1.0)
    if seeds * depth * width**2 > PACE_WORTH:
        shares = _shares({kind: len(members) for kind, members in by_kind.items()}, width, phi, place)
    settings = {
        "command": "forward", "depth": depth, "width": width, "init": names, "activation": activation, "seeds": seeds,
        "seed": seed, "distribution": distribution, "solve": solve, "per_layer": per_layer,
    }  # fmt: skip
    pieces = Pieces(resume, settings, place)
    disk = pieces.said(8 * passes * len(names) * seeds * depth, passes * len(by_kind) * chunk_count(width, seeds))
    report(0, total, f"{seeds:,} networks of {depth:,} x {width:,} under {', '.join(names)}{disk}")

    def advance(kind: Distribution | None, count: int) -> None:
        nonlocal done
        done = min(done + shares[kind] * count, total)
        report(round(done), total, "")

    logs: dict[str, Floats] = {}
    solutions: dict[str, Solution] = {}
    interrupted = False
    try:
        for kind, members in by_kind.items():
            scales = [math.sqrt(weights.variance * width) if (weights := laws[name]) else 1.0 for name in members]
            ensemble = Ensemble(kind, depth, width, phi, seeds, seed, place, partial(advance, kind), pieces)
            weights = laws[members[0]]
            found = measure_and_solve(ensemble, scales, weights, solve, per_layer=per_layer)
            logs |= dict(zip(members, found.logs, strict=True))
            gains, interrupted = found.gains, found.stopped
            if interrupted:
                break
            if solve is None or gains is None:
                continue
            fresh = ensemble.log_ratios([gains.factors], fresh=True)[0]
            growth = gate_moments(phi.slope)[0] if weights and phi.slope is not None else None
            deep = closed_form(solve, weights, phi.slope, width, None)
            for name, scale in zip(members, scales, strict=True):
                solutions[name] = solution(solve, gains, fresh, scale=scale, growth=growth, growth_deep=deep)
    except KeyboardInterrupt:
        if not logs:
            raise
        interrupted = True
    measured = []
    for name in (name for name in names if name in logs):
        medians = exact_log_medians(name, activation, depth, width, distribution)
        squares = exact_log_rms(name, activation, depth, width, distribution)
        fourth = exact_kurtosis(name, activation, depth, width, distribution)
        layers = tuple(
            LayerRatio(
                index + 1,
                ratio_statistics(logs[name][:, index]),
                None if medians is None else float(medians[index]),
                None if squares is None else float(squares[index]),
                theory_kurtosis=None if fourth is None else float(fourth[index]),
            )
            for index in range(depth)
        )
        weights = laws[name]
        kind = weights.distribution if weights else None
        measured.append(InitRatios(name, kind, activation, depth, width, len(logs[name]), layers, solutions.get(name)))
    return Forward(tuple(measured), seed, str(place), interrupted, pieces.taken, seeds, names)


def unmeasured(seed: int, device: str) -> Forward:
    """The result of a run that was interrupted before two networks were done."""
    return Forward((), seed, device, interrupted=True)


def _shares(
    members: Mapping[Distribution | None, int], width: int, phi: Activation, place: torch.device
) -> dict[Distribution | None, float]:
    """What a layer of one network counts for under each law of the weights: 1 on average, by the time that it takes."""
    if len(members) == 1:
        return dict.fromkeys(members, 1.0)
    paces = {kind: pace(kind, gains, width=width, phi=phi, device=place) for kind, gains in members.items()}
    mean = sum(paces.values()) / len(paces)
    return {kind: seconds / mean if mean else 1.0 for kind, seconds in paces.items()}


def initialized(entry: InitRatios, seed: int) -> dict[str, Tensor]:
    """Weights of one more network, scaled by the solved gains, under the names that `builtin:mlp` gives them.

    >>> measured = forward(depth=2, width=3, init="he_normal", seeds=20, solve="median")
    >>> {name: tuple(weight.shape) for name, weight in initialized(measured.inits[0], seed=0).items()}
    {'0.weight': (3, 3), '2.weight': (3, 3)}
    """
    assert entry.width is not None
    generator = torch.Generator().manual_seed(seed)
    gains = entry.solution.of_layers(entry.depth) if entry.solution else (1.0,) * entry.depth
    shape = (entry.width, entry.width)
    return {
        f"{2 * index}.weight": gain * draw(entry.init, shape, generator=generator, distribution=entry.distribution)
        for index, gain in enumerate(gains)
    }


def _exp(log: float | None) -> float | None:
    if log is None:
        return None
    with np.errstate(over="ignore"):
        return float(np.exp(log))
