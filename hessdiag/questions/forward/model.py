"""How far a signal gets through the user's own network, re-initialized at random many times."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from hessdiag.curvature.differences import copied
from hessdiag.curvature.measurement import measurement
from hessdiag.errors import HessdiagError
from hessdiag.machine import processes
from hessdiag.machine.cost import refuse_many
from hessdiag.nets.initializers import Distribution
from hessdiag.nets.reinitialize import WeightLayer
from hessdiag.problem.describe import describe
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.described import described
from hessdiag.questions.common.ensembles.plan import (
    Plan,
    Run,
    distinct_inits,
    drawn_from,
    refuse_below,
    until_interrupted,
)
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.forward.asked import INITS, Asked
from hessdiag.questions.forward.assemble import assembled, init_ratios
from hessdiag.questions.forward.gain import COARSE, FINE, FIRST_SHARE, search_gain
from hessdiag.questions.forward.layers import iterated_layer_gains
from hessdiag.questions.forward.model_norms import ModelRatios, model_log_ratios
from hessdiag.questions.forward.model_weights import Gains, scaled, scales_of, weight_layers
from hessdiag.questions.forward.norms import Floats, Stopped
from hessdiag.questions.forward.own import own_signal
from hessdiag.questions.forward.result import Forward, InitRatios, Solution, Target
from hessdiag.questions.forward.solution import solution
from hessdiag.questions.forward.solve import FRESH

MODEL_SEEDS = 200
OF_AN_OBJECT = 1_200  # bytes of a network's arrays and names beside the numbers
OF_PROBLEM = ("spec", "model", "dtype", "train_mode", "weights_sha256", "data_sha256", "files")


@dataclass(frozen=True, kw_only=True)
class _Asked(Asked):
    """What is asked of a model, and the layers that get new weights."""

    problem: Problem
    layers: Mapping[str, WeightLayer]

    @cached_property
    def wider(self) -> Problem | None:
        """The problem in float64, where its own dtype is narrower and a copy can be evaluated in it."""
        if self.problem.dtype == torch.float64:
            return None
        try:
            wide = copied(self.problem, torch.float64).problem
            with torch.no_grad():
                wide.evaluate(wide.data[0])
        except (HessdiagError, RuntimeError, TypeError, NotImplementedError, MemoryError):
            return None
        return wide


@recorded
@measurement(less="--seeds 10")
def forward_model(
    problem: Problem,
    *,
    init: str | Sequence[str] = INITS,
    seeds: int = MODEL_SEEDS,
    seed: int = 0,
    distribution: Distribution | None = None,
    solve: Target | None = None,
    per_layer: bool = False,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Forward:
    """Measure the signal in every layer of a network as it is, and then re-initialized over seeds, as an experiment.

    Of the network's own weights (`own`) it is measured how much of the signal differs between samples, and where that
    ends. Of the fresh ones, the ratio of root mean squares, over samples and entries: a layer's output (before its
    activation) over the input of the layer that is called first. Biases of these layers are zero; all other parameters
    stay as they are. There is no theory for a network of unknown form. Fresh networks whose numbers the model's dtype
    does not hold are computed in float64.

    Args:
        problem: Model and batches; the model itself is not changed.
        init: One or several keys of `hessdiag.nets.INITS`.
        seeds: Networks for each initialization.
        seed: Of the weights.
        distribution: Draw from this distribution at each initialization's variance.
        solve: Also find the factor of all these weights that makes the "median" or the "rms" 1 at the last layer.
        per_layer: Find one factor for each layer that is called, so that it is 1 after every one.
        resume: A folder for finished networks. A run with the same settings takes up what it holds.
        progress: Called with (done, total, what).

    Raises:
        SpecError: for fewer than two seeds, a name that is unknown, a model without Linear and Conv layers, or a folder
            that holds networks of other settings.
        ComputeError: if an output is not finite, or no gain does what `solve` asks for.

    >>> import torch
    >>> from hessdiag.nets.mlp import MLP
    >>> net = MLP(depth=3, width=8, init="he_normal", seed=0)
    >>> x = torch.randn(16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> measured = forward_model(Problem(net, data=[(x, x)], loss="mse"), init="he_normal", seeds=50)
    >>> [entry.name for entry in measured.inits[0].layers], measured.theory
    (['0', '2', '4'], None)
    """
    refuse_below(2, MODEL_SEEDS, seeds=seeds)
    asked = _Asked(
        problem=problem,
        layers=weight_layers(problem.model),
        inits=distinct_inits(init),
        seeds=seeds,
        seed=seed,
        distribution=distribution,
        solve=solve,
        per_layer=per_layer,
    )
    run = _plan(asked, resumable=resume is not None).begin(resume, progress)
    own = own_signal(problem)
    try:
        entries, interrupted = until_interrupted(_entries(asked, run))
    except KeyboardInterrupt:
        if processes.together():
            raise
        entries, interrupted = [], True
    everything = solve is None and [entry.seeds for entry in entries] == [seeds] * len(asked.inits)
    return assembled(
        asked,
        entries,
        problem=described(problem),
        interrupted=interrupted and not everything,
        resumed_pieces=run.pieces.taken,
        own=own,
    )


def _plan(asked: _Asked, *, resumable: bool) -> Plan:
    """What it takes; where it can be resumed, with what tells this problem from others.

    Raises:
        ComputeError: if memory will not hold it.
    """
    problem, text = asked.problem, 4 * max(map(len, asked.layers))  # a name for each layer of each network
    each = (24 * len(asked.inits) + text) * len(asked.layers) + OF_AN_OBJECT
    refuse_many(asked.seeds, each, problem.device, "networks", "--seeds")
    search = 4 if asked.per_layer else 2 * COARSE / FIRST_SHARE + FINE
    passes = 1 + (1 + search) * (asked.solve is not None)
    steps = round(passes * len(asked.inits) * asked.seeds)
    same = {name: value for name, value in describe(problem).items() if name in OF_PROBLEM} if resumable else {}
    return Plan(
        what=f"{asked.seeds:,} networks of {len(asked.layers)} layers under {', '.join(asked.inits)}",
        steps=steps,
        settings=same | {"command": "forward MODEL", "measures": ["size", "variation"]} | asked.settings,
        device=problem.device,
        kept=(steps * len(asked.layers) * (8 + text), steps),
    )


def _entries(asked: _Asked, run: Run) -> Iterator[InitRatios]:
    """One initialization after the other; an interrupt comes after what it left."""
    for init in asked.inits:
        networks = _Networks(asked, run, init)
        stopped = False
        try:
            found = networks.log_ratios([1.0])
        except Stopped as some:
            found, stopped = ModelRatios(some.names, some.logs, some.variations), True
        gains = None
        if asked.solve is not None and not stopped:
            try:
                gains = _solved(networks, asked.solve, found.names, found.logs[0])
            except KeyboardInterrupt:
                if processes.together():
                    raise
                stopped = True
        yield init_ratios(
            init,
            networks.distribution,
            found.logs[0],
            gains,
            names=found.names,
            variations=found.variations[0],
            in_float64=networks.in_float64,
        )
        if stopped:
            raise KeyboardInterrupt


class _Networks:
    """The model under one initialization, always with the same random weights.

    Args:
        asked: Which networks.
        run: What is measured of them.
        init: The initialization.
    """

    def __init__(self, asked: _Asked, run: Run, init: str) -> None:
        self.asked, self._run = asked, run
        self.distribution = drawn_from(init, asked.distribution)
        self._scales = scales_of(init, asked.layers, asked.distribution)
        self.in_float64 = 0

    def log_ratios(
        self, gains: Sequence[Gains], count: int | None = None, *, fresh: bool = False, endless: bool = False
    ) -> ModelRatios:
        """Of all networks, of the first few, or of others that were never seen; see `model_log_ratios`."""
        found = model_log_ratios(
            self.asked.problem,
            self.asked.layers,
            [scaled(self._scales, gain) for gain in gains],
            self.distribution,
            seeds=count or self.asked.seeds,
            seed=self.asked.seed + FRESH * fresh,
            advance=self._run.meter.advance,
            pieces=self._run.pieces,
            wider=lambda: self.asked.wider,
            endless=endless,
        )
        self.in_float64 = max(self.in_float64, found.in_float64)
        return found


def _solved(networks: _Networks, target: Target, called: Sequence[str], logs: Floats) -> Solution:
    """The gains that make the target 1, given logs at gain 1, (networks, layers), tried on fresh networks."""
    per_layer = networks.asked.per_layer

    def by_layer(gains: Sequence[float]) -> Gains:
        return dict(zip(called, gains, strict=True)) if per_layer else gains[0]

    gains = (
        iterated_layer_gains(target, logs, lambda gains: networks.log_ratios([by_layer(gains.tolist())]).logs[0])
        if per_layer
        else search_gain(
            target,
            depth=len(called),
            seeds=networks.asked.seeds,
            simulate=lambda gains, count: networks.log_ratios(gains, count, endless=True).logs[:, :, -1],
        )
    )
    fresh = networks.log_ratios([by_layer(gains.factors)], fresh=True).logs[0]
    return solution(target, gains, fresh, names=called)
