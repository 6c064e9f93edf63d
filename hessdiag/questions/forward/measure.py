"""How far a signal gets through random fully connected networks: what is typical, and what the average says."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from hessdiag.curvature.measurement import ensemble
from hessdiag.errors import ComputeError
from hessdiag.machine.cost import SPARE, refuse_many
from hessdiag.machine.memory import free_bytes
from hessdiag.machine.sizes import gib
from hessdiag.nets import activations
from hessdiag.nets.activations import Activation
from hessdiag.nets.initializers import Distribution, WeightLaw, draw, law
from hessdiag.problem.device import device_named
from hessdiag.questions.common.ensembles.plan import (
    Plan,
    Run,
    built_in,
    distinct_inits,
    drawn_from,
    refuse_below,
    until_interrupted,
)
from hessdiag.questions.common.ensembles.square_networks import predict
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.forward.asked import INITS, Asked
from hessdiag.questions.forward.assemble import assembled, init_ratios
from hessdiag.questions.forward.gain import FIRST_SHARE, closed_form
from hessdiag.questions.forward.norms import Floats, chunk_count, pace
from hessdiag.questions.forward.result import Forward, ForwardTheory, InitRatios, Solution, Target
from hessdiag.questions.forward.solution import solution
from hessdiag.questions.forward.solve import Ensemble, Solved, measure_and_solve
from hessdiag.questions.forward.theory import exact_layers
from hessdiag.theory.gaussian_nets import gate_moments

SEEDS = 2000
PACE_WORTH = 2**23  # weights that are drawn under each law from which their paces are measured first
OF_A_LAYER = 4_000  # bytes of what is said of one

Kind = Distribution | None


@dataclass(frozen=True, kw_only=True)
class _Asked(Asked):
    """What is asked of the built-in networks."""

    depth: int
    width: int
    activation: str

    @cached_property
    def phi(self) -> Activation:
        return activations.activation(self.activation)

    @cached_property
    def by_kind(self) -> dict[Kind, list[str]]:
        """Initializations that share their random matrices, by the distribution of these."""
        found: dict[Kind, list[str]] = {}
        for init in self.inits:
            found.setdefault(drawn_from(init, self.distribution), []).append(init)
        return found

    def law(self, init: str) -> WeightLaw | None:
        return law(init, self.width, self.width, self.distribution)

    def scale(self, init: str) -> float:
        """The factor from variance 1 / width to the initialization's own."""
        weights = self.law(init)
        return math.sqrt(weights.variance * self.width) if weights else 1.0


@recorded
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
    refuse_below(1, 32, depth=depth, width=width)
    refuse_below(2, 32, seeds=seeds)
    asked = _Asked(
        depth=depth,
        width=width,
        inits=distinct_inits(init),
        activation=activation,
        seeds=seeds,
        seed=seed,
        distribution=distribution,
        solve=solve,
        per_layer=per_layer,
    )
    place = device_named(device, 2.0 * len(asked.inits) * seeds * depth * width**2)
    _refuse_large(asked, place)
    shares, plan = _shares(asked, place), _plan(asked, place)
    run = plan.begin(resume, progress)
    groups, interrupted = until_interrupted(_measured(asked, place, shares, run))
    entries = {init: _entry(asked, init, logs, found) for found in groups for init, logs in found.logs.items()}
    return assembled(
        asked,
        [entries[init] for init in asked.inits if init in entries],
        problem=built_in(device, place, seed),
        interrupted=interrupted,
        resumed_pieces=run.pieces.taken,
        theory=_theory(asked, entries),
    )


def _refuse_large(asked: _Asked, place: torch.device) -> None:
    """Refuse what memory will not hold: the weights of a network a layer at a time, and a log for each layer of all.

    Raises:
        ComputeError: with what would fit.
    """
    depth, width, seeds, inits = asked.depth, asked.width, asked.seeds, len(asked.inits)
    free = SPARE * free_bytes(place)
    if 32 * width**2 > free:
        what = f"layers of {width:,} units need {gib(32 * width**2)}, and {gib(free)} of memory may be taken."
        raise ComputeError(what, f"--width {math.isqrt(int(free / 32))}")
    each = 24 * inits
    refuse_many(depth, each * 2 + OF_A_LAYER * inits, None, "layers", "--depth")
    many, few, what, flag = max((seeds, depth, "networks", "--seeds"), (depth, seeds, "layers", "--depth"))
    refuse_many(many, each * few, place, what, flag)


def _plan(asked: _Asked, place: torch.device) -> Plan:
    depth, width, seeds, kinds = asked.depth, asked.width, asked.seeds, len(asked.by_kind)
    searches = asked.phi.slope is None and asked.solve is not None
    passes = 1 + (asked.solve is not None) + (1 if asked.per_layer else 3 / FIRST_SHARE) * searches
    made_up = {"command": "forward", "depth": depth, "width": width, "activation": asked.activation}
    return Plan(
        what=f"{seeds:,} networks of {depth:,} x {width:,} under {', '.join(asked.inits)}",
        steps=round(passes * kinds * seeds * depth),
        settings=made_up | asked.settings,
        device=place,
        kept=(8 * passes * len(asked.inits) * seeds * depth, passes * kinds * chunk_count(width, seeds)),
    )


def _shares(asked: _Asked, place: torch.device) -> dict[Kind, float]:
    """What a layer of one network counts for under each law of the weights: 1 on average, by the time that it takes."""
    if len(asked.by_kind) == 1 or asked.seeds * asked.depth * asked.width**2 <= PACE_WORTH:
        return dict.fromkeys(asked.by_kind, 1.0)
    paces = {
        kind: pace(kind, len(inits), width=asked.width, phi=asked.phi, device=place)
        for kind, inits in asked.by_kind.items()
    }
    mean = sum(paces.values()) / len(paces)
    return {kind: seconds / mean if mean else 1.0 for kind, seconds in paces.items()}


def _measured(asked: _Asked, place: torch.device, shares: Mapping[Kind, float], run: Run) -> Iterator[Solved]:
    """Initializations that share their matrices, after one another; an interrupt comes after what it left."""
    for kind, inits in asked.by_kind.items():

        def advance(layers: int, share: float = shares[kind]) -> None:
            run.meter.advance(share * layers)

        networks = Ensemble(
            kind, asked.depth, asked.width, asked.phi, asked.seeds, asked.seed, place, advance, run.pieces
        )
        scales = {init: asked.scale(init) for init in inits}
        found = measure_and_solve(networks, scales, asked.law(inits[0]), asked.solve, per_layer=asked.per_layer)
        yield found
        if found.stopped:
            raise KeyboardInterrupt


def _entry(asked: _Asked, init: str, logs: Floats, found: Solved) -> InitRatios:
    return init_ratios(
        init,
        drawn_from(init, asked.distribution),
        logs,
        _solution(asked, init, found),
        activation=asked.activation,
        width=asked.width,
        exact=exact_layers(init, asked.activation, asked.depth, asked.width, asked.distribution),
    )


def _solution(asked: _Asked, init: str, found: Solved) -> Solution | None:
    """The gain of one initialization; `None` if none was asked for, or tried yet."""
    if asked.solve is None or found.gains is None or found.fresh is None:
        return None
    weights, slope = asked.law(init), asked.phi.slope
    return solution(
        asked.solve,
        found.gains,
        found.fresh,
        scale=asked.scale(init),
        growth=gate_moments(slope)[0] if weights and slope is not None else None,
        growth_deep=closed_form(asked.solve, weights, slope, asked.width, None),
    )


def _theory(asked: _Asked, measured: Mapping[str, InitRatios]) -> ForwardTheory | None:
    found = {
        init: theory
        for init in asked.inits
        if init in measured and (theory := predict(init, asked.activation, asked.width, asked.distribution))
    }
    return ForwardTheory(inits=found) if found else None


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
