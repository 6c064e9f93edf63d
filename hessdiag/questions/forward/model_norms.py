"""The signal in every layer of the user's own network, with fresh weights, many times."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from hessdiag.questions.forward.gain import BEYOND
from hessdiag.questions.forward.model_weights import Scales, placed, unit_weights
from hessdiag.questions.forward.norms import MODERATE, Floats, gathered, interrupt_after
from hessdiag.questions.forward.signals import Signal, tensor_of

BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class ModelRatios:
    """What was measured of networks with K sets of weights each.

    Attributes:
        names: Of the layers, in the order in which they are called.
        logs: Of the ratios, (K, networks, layers); -inf where a layer's output is zero.
        variations: How much outputs differ between samples, over their size, likewise; NaN where that is not known.
        in_float64: How many networks were computed in float64, for their own dtype did not hold their numbers.
    """

    names: tuple[str, ...]
    logs: Floats
    variations: Floats
    in_float64: int = 0


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
    wider: Callable[[], Problem | None] = lambda: None,
    endless: bool = False,
) -> ModelRatios:
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
        wider: Gives the same problem in float64, for networks whose numbers its own dtype does not hold.
        endless: Whether an output that is not finite counts as one that is larger than any number.

    Raises:
        ComputeError: if an output is not finite, or no layer is called.
        Stopped: after an interrupt, if there are two networks by then.
    """
    kept = pieces or Pieces(None, {})
    factors = digest(np.array([[factors[name] for name in layers] for factors in scales]))

    def measure(problem: Problem, numbers: Iterable[int], suffix: str = "") -> tuple[list[Arrays], bool]:
        own = {name: problem.model.get_submodule(name) for name in layers}

        def networks() -> Iterator[Arrays | None]:
            for network in numbers:
                compute = partial(_network, problem, own, scales, kind, (seed, network), signals)
                mine = processes.is_own(network)
                name = f"{kind or 'orthogonal'}-{factors}-{seed}-{network}{suffix}"
                yield kept.get(name, compute) if mine else None
                advance(0 if suffix else len(scales))

        with evaluation(problem), _measured(own) as signals:
            return gathered(networks(), problem.device)

    parts, stopped = measure(problem, range(seeds))
    beyond = [] if stopped else [network for network, part in enumerate(parts) if _is_beyond(part)]
    wide = wider() if beyond else None
    if wide is not None:
        again, stopped = measure(wide, beyond, "-float64")
        done = dict(zip(beyond, again, strict=False))  # an interrupt leaves out the last ones
        left = set(beyond) - set(done)
        parts = [done.get(network, part) for network, part in enumerate(parts) if network not in left]
    found = _joined(parts, len(beyond) if wide is not None else 0, endless=endless)
    if stopped:
        raise interrupt_after(found.logs, found.names, found.variations)
    return found


def _is_beyond(part: Arrays) -> bool:
    """Whether a network has numbers that float32 holds badly or not at all."""
    return not bool((np.abs(part["logs"]) < MODERATE).all())


def _joined(found: Sequence[Arrays], in_float64: int, *, endless: bool) -> ModelRatios:
    """Names of the layers, and logs of all networks.

    Raises:
        ComputeError: if an output is not finite, or no layer is called.
    """
    names = tuple(found[-1]["names"].tolist())
    if not names:
        raise ComputeError("none of the model's Linear and Conv layers is called.", "a model that calls its layers")
    logs, variations = (np.stack([network[what] for network in found], axis=1) for what in ("logs", "variations"))
    if endless:
        logs = np.nan_to_num(logs, nan=BEYOND, posinf=BEYOND, neginf=-math.inf)
    elif np.isnan(logs).any() or np.isposinf(logs).any():
        remedy = "a smaller --init" if in_float64 else "--dtype float64, or a smaller --init"
        raise ComputeError("a layer's output is not finite with new weights.", remedy)
    return ModelRatios(names, logs, variations, in_float64)


def _network(
    problem: Problem,
    layers: Mapping[str, Any],
    scales: Sequence[Scales],
    kind: Distribution | None,
    number: tuple[int, int],
    seen: "_Seen",
) -> Arrays:
    """One network, given by seed and number: names of the layers as called, logs and variations (K, layers)."""
    unit = unit_weights(layers, kind, *number)
    logs, variations = [], []
    for factors in scales:
        seen.layers.clear()
        seen.taken = Signal()
        weights = placed(layers, unit, factors)
        for batch in problem.data:
            seen.begin(batches.samples(batch))
            called(problem, weights, batch)
        logs.append([_log_ratio(signal, seen.taken) for signal in seen.layers.values()])
        known = [signal.variation for signal in seen.layers.values()]
        variations.append([math.nan if value is None else value for value in known])
    names = np.array(list(seen.layers), dtype=np.str_)
    return {"names": names, "logs": np.array(logs), "variations": np.array(variations)}


@contextmanager
def evaluation(problem: Problem) -> Iterator[None]:
    """An evaluation in which BatchNorm normalizes by the batch where the model came so: other statistics mean nothing.

    A batch of one sample has no statistics, and keeps the running ones.
    """
    came = [module for module in problem.model.modules() if isinstance(module, BatchNorm) and module.training]
    with torch.no_grad(), problem.evaluation():
        if all(batches.samples(batch) > 1 for batch in problem.data):
            for module in came:
                module.training = True  # which the evaluation undoes
        yield


class _Objective(nn.Module):
    """An objective as a module, for batches of which only it knows what the model takes."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.model, self._objective = problem.model, problem.objective_function

    def forward(self, batch: Any) -> Tensor:
        return self._objective(self.model, batch)


def called(problem: Problem, weights: dict[str, Tensor], batch: Any) -> None:
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


@dataclass
class _Seen:
    """Each layer's outputs, in the order of the calls, and the input of the layer that is called first."""

    layers: dict[str, Signal] = field(default_factory=dict)
    taken: Signal = field(default_factory=Signal)
    samples: int = 1
    calls: dict[str, int] = field(default_factory=dict)

    def begin(self, samples: int) -> None:
        """The next batch."""
        self.samples = samples
        self.calls.clear()


@contextmanager
def _measured(layers: Mapping[str, nn.Module]) -> Iterator[_Seen]:
    seen = _Seen()

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def measure(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            call = seen.calls[name] = seen.calls.get(name, -1) + 1
            if name == next(iter(seen.layers), name) and (taken := tensor_of(inputs[0])) is not None:
                seen.taken.add(taken, seen.samples, call)
            if (given := tensor_of(output)) is not None:
                seen.layers.setdefault(name, Signal()).add(given, seen.samples, call)

        return measure

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _log_ratio(output: Signal, taken: Signal) -> float:
    if not taken.total > 0:
        raise ComputeError(
            "the input of the first layer is zero: there is no signal to follow.", "--data with a signal"
        )
    return output.log_rms - taken.log_rms
