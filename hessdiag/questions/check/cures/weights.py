"""Cures of the weights: drawn anew, or one layer's put right."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.numbers import number
from hessdiag.questions.check.cures.cure import Cure, Setup
from hessdiag.questions.check.cures.data import output_bias
from hessdiag.questions.check.cures.initialize import initialize, matrices, remember, scale
from hessdiag.questions.check.cures.outputs import received
from hessdiag.questions.check.cures.settings import learning_rate
from hessdiag.questions.check.result import Cause, Check

GAINS = {"relu": 2**0.5, "leaky_relu": 2**0.5, "gelu": 2**0.5, "silu": 2**0.5, "elu": 2**0.5, "sigmoid": 4.0}
SPREAD = 1.0  # of logits that say little yet
BEHIND = 3.0  # times that logits are larger than what the last layer puts out where something else scales them
DEAD = 0.1  # share of units

_CODE = """\
@torch.no_grad()
def unit_variance(layer, inputs, output):
    torch.nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        layer.bias.zero_()
    output = layer.forward(*inputs)
    layer.weight /= output.square().mean().sqrt(){centre}
    return layer.forward(*inputs)

hooks = [layer.register_forward_hook(unit_variance) for layer in {layers}]
model(x)  # one batch
for hook in hooks:
    hook.remove()"""
_PAIRS = """
# where unit_variance draws, of a layer behind ReLUs: w = layer.weight; n, m = w.shape[0] // 2, w.shape[1] // 2
#   w[:, m:2 * m] = -w[:, :m] except in the first layer; w[n:2 * n] = -w[:n] except in the last"""
_CENTRE = """
    if layer.bias is not None:  # a sigmoid's output is not zero on average
        output = layer.forward(*inputs).flatten(0, -2)
        layer.weight /= (output - output.mean(0)).square().mean().sqrt()
        layer.bias -= layer.forward(*inputs).flatten(0, -2).mean(0)"""
_ALL = "model.modules() if isinstance(layer, ({kinds},))"
_SAYS = (
    "Draws the weights of {which} anew ({how}), each layer scaled so that its output has unit variance on the batch."
)


def fresh_weights(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """All layers drawn anew, at gains taken from the data."""
    acts = _activations(found)
    layers = matrices(setup.model)
    if not layers:
        return []
    kinds = ", ".join(sorted({f"torch.nn.{type(one).__name__}" for one in layers.values()}))
    centred = any(act in ("sigmoid", "hardsigmoid") for act in acts.values())
    code = _code(_ALL.format(kinds=kinds), centred)
    says = _SAYS.format(which="all layers", how="orthogonal, biases zero")
    plain = _weights("fresh weights, scaled by the data", says, code, lambda s: initialize(s, acts))
    if any(isinstance(module, (nn.LSTM, nn.GRU)) for module in setup.model.modules()):
        second = _remembering(plain)
    else:
        says = _SAYS.format(which="all layers", how="orthogonal, in pairs of opposite signs, biases zero")
        name = "fresh weights in mirrored pairs"
        second = _weights(name, says, code + _PAIRS, lambda s: initialize(s, acts, mirrored=True))
    slower = [plain.then(learning_rate(found.step.lr, 0.1))] if found.step is not None and found.step.lr else []
    return [plain, second, *slower]


def _remembering(plain: Cure) -> Cure:
    """With gates that are open for as long as the sequences are."""

    def apply(setup: Setup) -> Setup:
        mended = plain.apply(setup)
        remember(mended)
        return mended

    says = f"{plain.says} Gates of LSTMs and GRUs start open, for as long as the sequences are."
    code = f"{plain.code}\n# and the bias of an LSTM's forget gate (a GRU's update gate): log(uniform(1, length - 1))"
    return Cure(f"{plain.name}, gates open", says, code, apply, weights=True)


def fresh_layers(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """The layers with identical units drawn anew, then all."""
    least = cause.threshold if isinstance(cause.threshold, float) else 0.1
    names = {one.layer for one in found.layers if (one.identical_fraction or 0.0) >= max(least, 1e-9)}
    return [*_some_fresh(found, setup, names | {cause.layer}), *fresh_weights(found, cause, setup)[:1]]


def scaled_layer(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """One layer's weights at the gain that its activation needs, their directions kept."""
    module = _module(setup, cause.layer)
    reading = next((one for one in found.layers if one.layer == cause.layer), None)
    if module is None or cause.layer is None:
        return fresh_weights(found, cause, setup)
    if isinstance(module, nn.Embedding):
        return [_scaled_embedding(cause.layer, module)]
    if cause.layer not in matrices(setup.model):
        return fresh_weights(found, cause, setup)
    gain = GAINS.get((reading.activation if reading else None) or "", 1.0)
    weight = module.weight
    assert isinstance(weight, Tensor)
    now = float(weight.detach().double().square().mean().sqrt()) * weight[0].numel() ** 0.5
    fresh = _some_fresh(found, setup, {cause.layer})
    if not now > 0:
        return [*fresh, *fresh_weights(found, cause, setup)[:1]]

    def apply(other: Setup) -> None:
        layer = _module(other, cause.layer)
        assert layer is not None
        scale(layer, gain / now)
        _scale_bias(layer, gain / now)

    says = f"Multiplies layer {cause.layer} by {number(gain / now)}, to a gain of {number(gain)}."
    parts = ["weight", "bias"] if isinstance(getattr(module, "bias", None), Tensor) else ["weight"]
    own = f'model.get_submodule("{cause.layer}")'
    code = "\n".join(["with torch.no_grad():", *(f"    {own}.{part}.mul_({gain / now:.4g})" for part in parts)])
    rescaled = _weights(f"layer {cause.layer} rescaled", says, code, apply)
    return [rescaled, *fresh, *fresh_weights(found, cause, setup)[:1]]


def smaller_logits(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """The last layer scaled down until its logits say little."""
    last = next((one for one in reversed(found.layers) if one.fan_in is not None), None)
    name = cause.layer or (last.layer if last is not None else None)
    spread = found.output.spread if found.output is not None else None
    module = _module(setup, name)
    if last is not None and last.bias_rms and last.output_rms and last.bias_rms > last.output_rms / 2:
        biased = output_bias(found, setup, found.targets.kind if found.targets is not None else "none")
    else:
        biased = []
    if module is None or name not in matrices(setup.model) or not spread:
        return fresh_weights(found, cause, setup)
    factor = SPREAD / spread
    rms = found.output.rms if found.output is not None else None
    if cause.layer is None and last is not None and last.output_rms and rms and rms > BEHIND * last.output_rms:
        return [_divided(factor)]

    def apply(other: Setup) -> None:
        layer = _module(other, name)
        assert layer is not None
        scale(layer, factor)
        _scale_bias(layer, factor)

    says = (
        f"Multiplies layer {name} by {number(factor)}, so that logits differ by about {number(SPREAD)} between classes."
    )
    own = f'model.get_submodule("{name}")'
    code = f"with torch.no_grad():\n    for parameter in {own}.parameters():\n        parameter.mul_({factor:.4g})"
    return [*biased, _weights("smaller logits", says, code, apply), *fresh_weights(found, cause, setup)[:1]]


def _divided(factor: float) -> Cure:
    """Logits that something behind the last layer makes large, made small again."""
    says = f"Multiplies the logits by {number(factor)}, so that they differ by about {number(SPREAD)} between classes."
    code = f"logits = logits * {factor:.4g}  # or without what scales them behind the last layer"
    return Cure("logits rescaled", says, code, received(lambda output: output * factor))


def revived(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """Layers with dead units: biases to zero, then new weights."""
    names = {one.layer for one in found.layers if (one.dead_fraction or 0.0) >= DEAD}
    names |= {cause.layer} if cause.layer is not None else set()
    biased = sorted(name for name in names if isinstance(getattr(_module(setup, name), "bias", None), Tensor))

    def apply(other: Setup) -> None:
        for name in biased:
            layer = _module(other, name)
            assert layer is not None
            own = dict(layer.named_parameters(recurse=False))
            nn.init.zeros_(own["bias"])
            if "weight" in own and own["weight"].ndim < 2:  # of a normalization, whose units it turns off too
                nn.init.ones_(own["weight"])

    listed = ", ".join(f'"{name}"' for name in biased)
    code = f"with torch.no_grad():\n    for name in ({listed},):\n        model.get_submodule(name).bias.zero_()"
    says = f"Sets the biases of {_listed(biased)} to zero, so that units are on for about half of the samples."
    zeroed = [_weights("biases to zero", says, code, apply)] if biased else []
    return [*zeroed, *_some_fresh(found, setup, names), *fresh_weights(found, cause, setup)[:1]]


def _some_fresh(found: Check, setup: Setup, names: Collection[str | None]) -> list[Cure]:
    own = [name for name in matrices(setup.model) if name in names]
    if not own:
        return []
    acts = _activations(found)
    says = _SAYS.format(which=_listed(own), how="orthogonal, biases zero")
    listed = ", ".join(f'"{name}"' for name in own)
    code = _code(f"map(model.get_submodule, ({listed},))", any(acts.get(name) == "sigmoid" for name in own))
    name = f"fresh weights of {_listed(own)}"
    return [_weights(name, says, code, lambda s: initialize(s, acts, only=own))]


def _weights(name: str, says: str, code: str, change: Callable[[Setup], Any]) -> Cure:
    def apply(setup: Setup) -> Setup:
        change(setup)
        return replace(setup)

    return Cure(name, says, code, apply, weights=True)


def _scaled_embedding(name: str, module: nn.Embedding) -> Cure:
    factor = 1 / float(module.weight.detach().double().square().mean().sqrt())

    def apply(other: Setup) -> None:
        layer = _module(other, name)
        assert layer is not None
        scale(layer, factor)

    code = f'with torch.no_grad():\n    model.get_submodule("{name}").weight.mul_({factor:.4g})'
    says = f"Multiplies the vectors of layer {name} by {number(factor)}, to entries of size 1."
    return _weights(f"vectors of layer {name} rescaled", says, code, apply)


def _scale_bias(module: nn.Module, factor: float) -> None:
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        with torch.no_grad():
            bias.mul_(factor)


def _code(layers: str, centred: bool) -> str:
    return _CODE.format(layers=layers, centre=_CENTRE if centred else "")


def _activations(found: Check) -> Mapping[str, str | None]:
    return {one.layer: one.activation for one in found.layers}


def _module(setup: Setup, name: str | None) -> nn.Module | None:
    return None if name is None else dict(setup.model.named_modules()).get(name)


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)
    if len(shown) > 3:
        return f"{len(shown)} layers"
    return f"layer{'s' if len(shown) > 1 else ''} {', '.join(shown)}"
