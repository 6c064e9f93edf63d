"""Fresh weights for the Linear and Conv layers of the user's own network, which is not changed."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import Distribution, draw, fans, law, source
from hessdiag.nets.reinitialize import WeightLayer
from hessdiag.problem.problem import Problem
from hessdiag.questions.forward.norms import UNIT_INITS
from hessdiag.questions.forward.result import InitRatios

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


def scales_of(init: str, layers: Mapping[str, WeightLayer], distribution: Distribution | None) -> dict[str, float]:
    """For each layer, the factor from variance 1 / fan_in to the initialization's own; 1 for orthogonal weights."""
    found = {}
    for name, layer in layers.items():
        fan_in, fan_out = fans(layer.weight.shape)
        weights = law(init, fan_in, fan_out, distribution)
        found[name] = math.sqrt(weights.variance * fan_in) if weights else 1.0
    return found


def unit_weights(
    layers: Mapping[str, WeightLayer], kind: Distribution | None, seed: int, network: int
) -> dict[str, Tensor]:
    """Weights of variance 1 / fan_in (or orthogonal rows) in float64, always the same for one network's number."""
    generator, found = source(seed, network), {}
    for name, layer in layers.items():
        rows = layer.weight.shape[0]
        matrix = draw(UNIT_INITS[kind], (rows, layer.weight.numel() // rows), generator=generator)
        found[name] = matrix.reshape(layer.weight.shape)
    return found


def placed(layers: Mapping[str, WeightLayer], unit: Mapping[str, Tensor], factors: Scales) -> dict[str, Tensor]:
    """Parameters by name for one network: scaled weights, in each parameter's place and dtype, and zero biases.

    Of layers that share a parameter the first decides.
    """
    drawn = {id(layer.weight): (name, layer.weight) for name, layer in reversed(list(layers.items()))}
    placed = {f"{name}.weight": (unit[name] * factors[name]).to(weight) for name, weight in drawn.values()}
    biases = {id(layer.bias): (name, layer.bias) for name, layer in layers.items() if layer.bias is not None}
    return placed | {f"{name}.bias": torch.zeros_like(bias) for name, bias in biases.values()}


def scaled(scales: Scales, gain: Gains) -> dict[str, float]:
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
    factors = scaled(scales_of(entry.init, layers, given), gains)
    fresh = placed(layers, unit_weights(layers, given, seed, 0), factors)
    parameters = dict(problem.model.named_parameters(remove_duplicate=False))
    new = {id(parameters[name]): value for name, value in fresh.items()}  # by identity: tied weights have two names
    state = problem.model.state_dict(keep_vars=True)
    return {
        name: new.get(id(value), value).detach().cpu().clone().contiguous()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
