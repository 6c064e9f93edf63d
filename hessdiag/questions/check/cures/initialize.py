"""Fresh weights whose scale is taken from the data, layer by layer in the order in which data meets them.

Orthogonal weights, zero biases, then each layer's weights divided by the root mean square of what it puts out for a
batch (Mishkin and Matas, arXiv 1511.06422), in one forward pass: each layer hands on what it puts out when it is done.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem.evaluation.kernels import plain_transformer
from hessdiag.questions.check.cures import branches
from hessdiag.questions.check.cures.cure import Setup

HEAD = 0.5  # of the last layer: its loss is then near chance, and gradients still pass it
LITTLE = 0.1  # share of a signal that differs between samples below which what they share is taken out by the bias
STRETCHED = 3.0  # times, at most, that a head's weights grow because samples differ little in what it is given
CENTRED = ("sigmoid", "hardsigmoid", "logsigmoid")  # not zero on average: the next layer would see little else

_LARGE = 2**22  # entries from which on an orthogonal matrix is not worth its time
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def matrices(model: nn.Module) -> dict[str, nn.Module]:
    """Layers with trained weights by which they multiply, by path: linear, convolutional and their like."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor)
        and module.weight.ndim >= 2
        and any(own.requires_grad for own in module.parameters(recurse=False))
        and not isinstance(module, (nn.Embedding, nn.EmbeddingBag, *_NORMS))
    }


def initialize(
    setup: Setup,
    activations: Mapping[str, str | None],
    *,
    only: Collection[str] | None = None,
    mirrored: bool = False,
) -> None:
    """Draw the weights of a model anew, in place.

    Args:
        setup: The model, and the batch that sets its scale.
        activations: By layer, the nonlinearity that its output goes through.
        only: Paths of the layers to draw; `None` for all.
        mirrored: Units come in pairs of opposite signs, so that a ReLU network is linear at the start (Balduzzi et al.,
            arXiv 1702.08591).
    """
    layers = matrices(setup.model)
    attention = {name: one for name, one in setup.model.named_modules() if isinstance(one, nn.MultiheadAttention)}
    batch = setup.data[0]
    with plain_transformer():
        order, ends = branches.observed({**layers, **attention}, lambda: setup.objective(setup.model, batch))
        chosen = [name for name in layers if only is None or name in only]
        _start_others(setup.model, only)
        for name in chosen:
            _draw(layers[name])
            if mirrored:
                _mirror(layers[name], first=name == next(iter(order), None), last=bool(order) and name == order[-1])
        hooks = []
        for name in set(chosen) & set(order):
            wanted = HEAD if name == order[-1] else len(ends) ** -0.5 if name in ends else 1.0
            centre = activations.get(name) in CENTRED or name == order[-1]
            most = STRETCHED if name == order[-1] else math.inf
            hooks.append(layers[name].register_forward_hook(_Scale(wanted, centre=centre, most=most)))
        try:
            setup.objective(setup.model, batch)
        finally:
            for hook in hooks:
                hook.remove()
    with torch.no_grad():
        for name in ends - set(order):  # attention's last projection is never called by itself
            if name in chosen:
                scale(layers[name], len(ends) ** -0.5)


class _Scale:
    """A hook that gives what a layer puts out a size, the first time that it is called."""

    def __init__(self, wanted: float, *, centre: bool, most: float) -> None:
        self.wanted, self.centre, self.most, self.done = wanted, centre, most, False

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if self.done or not isinstance(output, Tensor):
            return None
        self.done = True
        with torch.no_grad():
            bias = getattr(module, "bias", None)
            seen = _by_unit(module, output)
            size = float(seen.square().mean().sqrt())
            varies = float((seen - seen.mean(0)).square().mean().sqrt())
            if isinstance(bias, Tensor) and len(seen) > 1 and (self.centre or varies < LITTLE * size) and varies > 0:
                factor = self.wanted / max(varies, size / self.most)
                scale(module, factor)
                bias.copy_(-seen.mean(0) * factor)
            elif size > 0:
                scale(module, self.wanted / size)
        return module(*inputs)  # this hook is done, others are not


def _by_unit(module: nn.Module, output: Tensor) -> Tensor:
    """What a layer puts out as (samples and positions, units)."""
    convolution = isinstance(module, nn.modules.conv._ConvNd) and output.ndim == module.weight.ndim
    seen = output.detach().movedim(1, -1) if convolution else output.detach()
    return seen.reshape(-1, seen.shape[-1]).float()


@torch.no_grad()
def scale(module: nn.Module, factor: float) -> None:
    """Multiply a layer's weights, also where they are computed from others."""
    own = dict(module.named_parameters(recurse=False))
    if "weight" in own:
        own["weight"].mul_(factor)
    elif "weight_g" in own:  # weight norm as it was
        own["weight_g"].mul_(factor)
    else:
        weight = module.weight
        assert isinstance(weight, Tensor)
        module.weight = weight * factor


@torch.no_grad()
def _draw(module: nn.Module) -> None:
    """Orthogonal weights and zero biases."""
    own = dict(module.named_parameters(recurse=False))
    weight = own.get("weight", own.get("weight_v", module.weight))
    assert isinstance(weight, Tensor)
    drawn = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    if drawn.numel() <= _LARGE:
        nn.init.orthogonal_(drawn)
    else:
        drawn.normal_(0.0, math.sqrt(1 / drawn[0].numel()))
    if "weight" in own or "weight_v" in own:
        weight.copy_(drawn)
    else:
        module.weight = drawn.to(weight.dtype)
    for name, parameter in own.items():
        if name.startswith("bias"):
            parameter.zero_()


@torch.no_grad()
def _mirror(module: nn.Module, *, first: bool, last: bool) -> None:
    weight = module.weight
    assert isinstance(weight, Tensor)
    outputs, inputs = weight.shape[0] // 2, weight.shape[1] // 2
    if not first and inputs:
        weight[:, inputs : 2 * inputs] = -weight[:, :inputs]
    if not last and outputs:
        weight[outputs : 2 * outputs] = -weight[:outputs]


@torch.no_grad()
def _start_others(model: nn.Module, only: Collection[str] | None) -> None:
    """Normalizations, recurrent layers and attention, as they are started best; embeddings stay."""
    for name, module in model.named_modules():
        if only is not None and name not in only:
            continue
        if isinstance(module, _NORMS):
            module.reset_parameters()
        elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            _start_recurrent(module)
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            for part in module.in_proj_weight.chunk(3):
                nn.init.xavier_uniform_(part)
            if module.in_proj_bias is not None:
                module.in_proj_bias.zero_()


def _start_recurrent(module: nn.Module) -> None:
    """Orthogonal from step to step, Xavier from the data, and forget gates of an LSTM open."""
    for name, parameter in module.named_parameters(recurse=False):
        gates = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}.get(type(module).__name__, 1)
        for part in parameter.chunk(gates):
            if part.ndim < 2:
                part.zero_()
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(part)
            else:
                nn.init.xavier_uniform_(part)
        if name.startswith("bias_ih") and gates == 4:
            parameter.chunk(gates)[1].fill_(1.0)


def remember(setup: Setup) -> None:
    """Open the gates of LSTMs and GRUs for as long as the sequences are (Tallec and Ollivier, arXiv 1804.11188)."""
    lengths: dict[nn.RNNBase, int] = {}

    def watch(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.RNNBase) and isinstance(inputs[0], Tensor):
            lengths[module] = inputs[0].shape[1 if module.batch_first else 0]

    gated = [module for module in setup.model.modules() if isinstance(module, (nn.LSTM, nn.GRU))]
    hooks = [module.register_forward_pre_hook(watch) for module in gated]
    try:
        setup.objective(setup.model, setup.data[0])
    finally:
        for hook in hooks:
            hook.remove()
    for module, length in lengths.items():
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith("bias_ih") and length > 2:
                parts = parameter.data.chunk(4 if isinstance(module, nn.LSTM) else 3)
                spans = torch.empty_like(parts[1]).uniform_(1, length - 1).log()
                parts[1].copy_(spans)  # the forget gate of an LSTM, the update gate of a GRU
                if isinstance(module, nn.LSTM):
                    parts[0].copy_(-spans)
