"""The signal in every layer of the user's own network, with fresh weights, many times."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from hessdiag.errors import ComputeError, LoadError
from hessdiag.machine import processes
from hessdiag.nets.initializers import Distribution
from hessdiag.nets.reinitialize import WeightLayer
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.runs.pieces import Arrays, Pieces, digest
from hessdiag.questions.forward.model_weights import Scales, placed, unit_weights
from hessdiag.questions.forward.norms import Floats, gathered, interrupt_after


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

    def networks() -> Iterator[Arrays | None]:
        for network in range(seeds):
            compute = partial(_network, problem, layers, scales, kind, (seed, network), squares)
            own = processes.is_own(network)
            yield kept.get(f"{kind or 'orthogonal'}-{factors}-{seed}-{network}", compute) if own else None
            advance(len(scales))

    with torch.no_grad(), problem.evaluation(), _measured(layers) as squares:
        parts, stopped = gathered(networks(), problem.device)
    names, logs = _joined(parts)
    if stopped:
        raise interrupt_after(logs, names)
    return names, logs


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
        weights = placed(layers, unit, factors)
        for batch in problem.data:
            _call(problem, weights, batch)
        names = [name for name in squares if name]
        logs.append([_log_ratio(squares[name], squares[""]) for name in names])
    return {"names": np.array(names, dtype=np.str_), "logs": np.array(logs)}


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
