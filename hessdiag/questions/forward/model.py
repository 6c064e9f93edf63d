"""How far a signal gets through the user's own network, re-initialized at random many times."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from hessdiag.curvature.measurement import measurement
from hessdiag.errors import ComputeError, LoadError, SpecError
from hessdiag.machine import processes
from hessdiag.machine.cost import refuse_many
from hessdiag.nets.initializers import Distribution, draw, law
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.describe import describe
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.pieces import Arrays, Pieces, digest
from hessdiag.questions.forward.gain import COARSE, FINE, FIRST_SHARE, Target, search_gain
from hessdiag.questions.forward.layers import iterated_layer_gains
from hessdiag.questions.forward.measure import INITS, Forward, InitRatios, LayerRatio, Progress
from hessdiag.questions.forward.norms import UNIT_INITS, Floats, Stopped, ratio_statistics
from hessdiag.questions.forward.solution import solution
from hessdiag.questions.forward.solve import FRESH

MODEL_SEEDS = 200
OF_AN_OBJECT = 1_200  # bytes of a network's arrays and names beside the numbers
OF_PROBLEM = ("spec", "model", "dtype", "train_mode", "weights_sha256", "data_sha256", "files")
WeightLayer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
Scales = Mapping[str, float]
Gains = float | Mapping[str, float]


def weight_layers(model: nn.Module) -> dict[str, WeightLayer]:
    """The Linear and Conv layers that are re-initialized, by name, each once.

    Raises:
        SpecError: if there is none.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, WeightLayer) and isinstance(module._parameters.get("weight"), nn.Parameter)
    }
    if not found:
        raise SpecError(
            f"this {type(model).__name__} has no Linear or Conv layer to re-initialize.",
            "hessdiag forward --depth 128 --width 32",
        )
    return found


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs and outputs of a unit, as torch counts them: both include the kernel's area.

    >>> fans(torch.empty(6, 3, 5, 5))
    (75, 150)
    """
    area = math.prod(weight.shape[2:])
    return weight.shape[1] * area, weight.shape[0] * area


def scales_of(init: str, layers: Mapping[str, WeightLayer], distribution: Distribution | None) -> dict[str, float]:
    """For each layer, the factor from variance 1 / fan_in to the initialization's own; 1 for orthogonal weights."""
    found = {}
    for name, layer in layers.items():
        fan_in, fan_out = fans(layer.weight)
        weights = law(init, fan_in, fan_out, distribution)
        found[name] = math.sqrt(weights.variance * fan_in) if weights else 1.0
    return found


def unit_weights(
    layers: Mapping[str, WeightLayer], kind: Distribution | None, seed: int, network: int
) -> dict[str, Tensor]:
    """Weights of variance 1 / fan_in (or orthogonal rows) in float64, always the same for one network's number."""
    entropy = np.random.SeedSequence([seed, network]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(entropy[0] >> np.uint64(1)))
    found = {}
    for name, layer in layers.items():
        rows = layer.weight.shape[0]
        matrix = draw(UNIT_INITS[kind], (rows, layer.weight.numel() // rows), generator=generator)
        found[name] = matrix.reshape(layer.weight.shape)
    return found


def model_log_ratios(
    problem: Problem,
    layers: Mapping[str, WeightLayer],
    scales: Sequence[Scales],
    kind: Distribution | None,
    *,
    seeds: int,
    seed: int,
    advance: Callable[[int], None],
    pieces: Pieces | None = None,
) -> tuple[tuple[str, ...], Floats]:
    """Log of the root mean square of each layer's output over that of the first layer's input.

    Args:
        problem: Model and batches.
        layers: Which layers get new weights; their biases are zero, all other parameters stay.
        scales: K sets of factors for the same weights.
        kind: Distribution of the weights; `None` makes their rows orthogonal.
        seeds: Networks.
        seed: Of the weights.
        advance: Called with the number of forward passes over all batches that were done.
        pieces: Where finished networks are kept.

    Returns:
        Names of the layers in the order in which they are called, and an array (K, seeds, layers); -inf where a
        layer's output is zero.

    Raises:
        ComputeError: if an output is not finite, or no layer is called.
        Stopped: after an interrupt, if there are two networks by then.
    """
    kept = pieces or Pieces(None, {})
    factors = digest(np.array([[factors[name] for name in layers] for factors in scales]))
    own: dict[int, Arrays] = {}
    try:
        with torch.no_grad(), problem.evaluation(), _measured(layers) as squares:
            for network in range(seeds):
                if processes.is_own(network):
                    compute = partial(_network, problem, layers, scales, kind, (seed, network), squares)
                    own[network] = kept.get(f"{kind or 'orthogonal'}-{factors}-{seed}-{network}", compute)
                advance(len(scales))
    except KeyboardInterrupt:
        if len(own) < 2 or processes.together():
            raise
        names, values = _joined(list(own.values()))
        raise Stopped(values, names) from None
    return _joined(processes.merged(own, problem.device))


def _joined(found: Sequence[Arrays]) -> tuple[tuple[str, ...], Floats]:
    """Names of the layers, and logs of all networks.

    Raises:
        ComputeError: if an output is not finite, or no layer is called.
    """
    names = tuple(found[-1]["names"].tolist())
    if not names:
        raise ComputeError("none of the model's Linear and Conv layers is called.", "a model that calls its layers")
    values = np.stack([network["logs"] for network in found], axis=1)
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ComputeError("a layer's output is not finite with new weights.", "--dtype float64, or a smaller --init")
    return names, values


def _network(
    problem: Problem,
    layers: Mapping[str, WeightLayer],
    scales: Sequence[Scales],
    kind: Distribution | None,
    number: tuple[int, int],
    squares: dict[str, tuple[float, int]],
) -> Arrays:
    """One network, given by seed and number: names of the layers as they are called, and logs (K, layers)."""
    unit = unit_weights(layers, kind, *number)
    logs = []
    for factors in scales:
        squares.clear()
        weights = _placed(layers, unit, factors)
        for batch in problem.data:
            _call(problem, weights, batch)
        names = [name for name in squares if name]
        logs.append([_log_ratio(squares[name], squares[""]) for name in names])
    return {"names": np.array(names, dtype=np.str_), "logs": np.array(logs)}


def _placed(layers: Mapping[str, WeightLayer], unit: Mapping[str, Tensor], factors: Scales) -> dict[str, Tensor]:
    """Parameters by name for one network: scaled weights, in each parameter's place and dtype, and zero biases.

    Of layers that share a parameter the first decides.
    """
    drawn = {id(layer.weight): (name, layer.weight) for name, layer in reversed(list(layers.items()))}
    placed = {f"{name}.weight": (unit[name] * factors[name]).to(weight) for name, weight in drawn.values()}
    biases = {id(layer.bias): (name, layer.bias) for name, layer in layers.items() if layer.bias is not None}
    return placed | {f"{name}.bias": torch.zeros_like(bias) for name, bias in biases.values()}


class _Objective(nn.Module):
    """An objective as a module, for batches of which only it knows what the model takes."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.model, self._objective = problem.model, problem.objective_function

    def forward(self, batch: Any) -> Tensor:
        return self._objective(self.model, batch)


def _call(problem: Problem, weights: dict[str, Tensor], batch: Any) -> None:
    """One forward pass with these weights."""
    inputs = batch
    if problem.loss != "output":  # a model that returns its own loss takes the targets, too
        try:
            inputs = batches.split(batch)[0]
        except LoadError:
            if problem.objective is None:
                raise
            named = {f"model.{name}": weight for name, weight in weights.items()}
            with torch.enable_grad():  # it may differentiate, as physics-informed ones do
                functional_call(_Objective(problem), named, (batch,))
            return
    functional_call(problem.model, weights, *batches.arguments(problem.model, inputs))


@contextmanager
def _measured(layers: Mapping[str, WeightLayer]) -> Iterator[dict[str, tuple[float, int]]]:
    """Sums of squares and counts of each layer's outputs, and under "" those of the input of the one called first."""
    squares: dict[str, tuple[float, int]] = {}

    def add(name: str, signal: Tensor) -> None:
        total, count = squares.get(name, (0.0, 0))
        for part in signal.unbind() if signal.is_nested else (signal,):
            total, count = total + float(part.double().square().sum()), count + part.numel()
        squares[name] = (total, count)

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def measure(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if name == next((key for key in squares if key), name):
                add("", inputs[0])
            add(name, output)

        return measure

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield squares
    finally:
        for handle in handles:
            handle.remove()


def _log_ratio(output: tuple[float, int], reference: tuple[float, int]) -> float:
    (total, count), (input_total, input_count) = output, reference
    if not input_total > 0:
        raise ComputeError(
            "the input of the first layer is zero: there is no signal to follow.", "--data with a signal"
        )
    if not total > 0:
        return -math.inf if total == 0 else math.nan
    return 0.5 * (math.log(total / count) - math.log(input_total / input_count))


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
    """Measure the signal in every Linear and Conv layer of a network that is re-initialized over seeds.

    The ratio is that of root mean squares, over samples and entries: a layer's output (before its activation) over the
    input of the layer that is called first. Biases of these layers are zero; all other parameters stay as they are.
    There is no theory for a network of unknown form.

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

    >>> from hessdiag.nets.mlp import MLP
    >>> net = MLP(depth=3, width=8, init="he_normal", seed=0)
    >>> x = torch.randn(16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> measured = forward_model(Problem(net, data=[(x, x)], loss="mse"), init="he_normal", seeds=50)
    >>> [entry.name for entry in measured.inits[0].layers], measured.theory
    (['0', '2', '4'], None)
    """
    if seeds < 2:
        raise SpecError(f"--seeds must be at least 2, not {seeds}.", "--seeds 200")
    if solve not in (None, "median", "rms"):
        raise SpecError(f"--solve is median or rms, not {solve!r}.", "--solve median")
    if per_layer and solve is None:
        raise SpecError("--per-layer needs to know what to keep.", "--solve median --per-layer")
    layers = weight_layers(problem.model)
    inits = tuple(dict.fromkeys((init,) if isinstance(init, str) else init))
    each = (24 * len(inits) + 4 * max(map(len, layers))) * len(layers) + OF_AN_OBJECT
    refuse_many(seeds, each, problem.device, "networks", "--seeds")
    report = progress or (lambda done, total, what: None)
    search = 4 if per_layer else 2 * COARSE / FIRST_SHARE + FINE
    passes = 1 + (1 + search) * (solve is not None)
    done, total = 0, round(passes * len(inits) * seeds)
    same = {} if resume is None else {name: value for name, value in describe(problem).items() if name in OF_PROBLEM}
    settings = same | {
        "command": "forward MODEL", "init": inits, "seeds": seeds, "seed": seed, "distribution": distribution,
        "solve": solve, "per_layer": per_layer,
    }  # fmt: skip
    pieces = Pieces(resume, settings, problem.device)
    text = 4 * max(map(len, layers))  # a name for each layer of each network
    disk = pieces.said(total * len(layers) * (8 + text), total)
    report(0, total, f"{seeds:,} networks of {len(layers)} layers under {', '.join(inits)}{disk}")

    def advance(count: int) -> None:
        nonlocal done
        done = min(done + count, total)
        report(done, total, "")

    measured: list[InitRatios] = []
    interrupted = False
    try:
        for name in inits:
            entry, interrupted = _measure(
                problem, layers, name, distribution, seeds, seed, solve, per_layer, advance, pieces
            )
            measured.append(entry)
            if interrupted:
                break
    except KeyboardInterrupt:
        if not measured:
            raise
        interrupted = True
    everything = solve is None and [entry.seeds for entry in measured] == [seeds] * len(inits)
    stopped = interrupted and not everything
    return Forward(tuple(measured), seed, str(problem.device), stopped, pieces.taken, seeds, inits)


def _measure(
    problem: Problem,
    layers: Mapping[str, WeightLayer],
    init: str,
    distribution: Distribution | None,
    seeds: int,
    seed: int,
    solve: Target | None,
    per_layer: bool,
    advance: Callable[[int], None],
    pieces: Pieces,
) -> tuple[InitRatios, bool]:
    """One initialization and the gains that were asked for; and whether an interrupt ended it."""
    weights = law(init, 1, 1, distribution)
    kind = weights.distribution if weights else None
    scales = scales_of(init, layers, distribution)

    def run(gains: Sequence[Gains], count: int = seeds, seed: int = seed) -> tuple[tuple[str, ...], Floats]:
        factors = [_scaled(scales, gain) for gain in gains]
        return model_log_ratios(problem, layers, factors, kind, seeds=count, seed=seed, advance=advance, pieces=pieces)

    stopped = False
    try:
        called, logs = run([1.0])
    except Stopped as some:
        called, logs, stopped = some.names, some.logs, True
    entries = tuple(
        LayerRatio(index + 1, ratio_statistics(logs[0, :, index]), None, None, layer)
        for index, layer in enumerate(called)
    )
    found = None
    if solve is not None and not stopped:

        def by_layer(gains: Sequence[float]) -> Gains:
            return dict(zip(called, gains, strict=True)) if per_layer else gains[0]

        try:
            gains = (
                iterated_layer_gains(solve, logs[0], lambda gains: run([by_layer(gains.tolist())])[1][0])
                if per_layer
                else search_gain(
                    solve, depth=len(called), seeds=seeds, simulate=lambda gains, count: run(gains, count)[1][:, :, -1]
                )
            )
            fresh = run([by_layer(gains.factors)], seed=seed + FRESH)[1][0]
            found = solution(solve, gains, fresh, names=called)
        except KeyboardInterrupt:
            if processes.together():
                raise
            stopped = True
    return InitRatios(init, kind, None, len(called), None, logs.shape[1], entries, found), stopped


def _scaled(scales: Scales, gain: Gains) -> dict[str, float]:
    """The scales times one gain for all layers, or times those of single layers."""
    if isinstance(gain, float):
        return {layer: gain * scale for layer, scale in scales.items()}
    return {layer: gain.get(layer, 1.0) * scale for layer, scale in scales.items()}


def initialized(problem: Problem, entry: InitRatios, seed: int) -> dict[str, Tensor]:
    """The state dict of the problem's model with fresh weights under one initialization, scaled by the solved gains.

    Args:
        problem: Whose model it is; it is not changed.
        entry: A part of `forward_model`'s result.
        seed: Of the weights.

    Returns:
        All tensors of the state dict, on the CPU; new ones where the model has Linear and Conv layers.
    """
    layers = weight_layers(problem.model)
    given, found = entry.distribution, entry.solution
    gains: Gains = found.gain if found else 1.0
    if found and found.layers:
        gains = {layer.name: layer.gain for layer in found.layers if layer.name}
    factors = _scaled(scales_of(entry.init, layers, given), gains)
    placed = _placed(layers, unit_weights(layers, given, seed, 0), factors)
    parameters = dict(problem.model.named_parameters(remove_duplicate=False))
    new = {id(parameters[name]): value for name, value in placed.items()}  # by identity: tied weights have two names
    state = problem.model.state_dict(keep_vars=True)
    return {
        name: new.get(id(value), value).detach().cpu().clone().contiguous()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
