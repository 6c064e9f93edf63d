"""Fresh weights for a network that exists already, whatever it is made of."""

import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import Distribution, draw, fans, law

WeightLayer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def reinitialize(
    model: nn.Module, init: str, generator: torch.Generator | None, distribution: Distribution | None = None
) -> None:
    """Draw the weights of all linear and convolutional layers anew, in place, and set their biases to zero.

    Normalization layers are reset to their own start; other parameters (embeddings, attention's joint projections,
    recurrent layers) stay as they are. Fans of a convolution count its taps, as torch's `nn.init` does.

    Args:
        model: What is changed.
        init: A key of `hessdiag.nets.INITS`.
        generator: Source of randomness, on the CPU; `None` uses torch's global one.
        distribution: Draw from this distribution at the initialization's variance.

    Raises:
        SpecError: if the name is unknown, or the model has no such layer.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 200, 3))
    >>> reinitialize(net, "he_normal", torch.Generator().manual_seed(0))
    >>> round(float(net[3].weight.detach().var()) * 8 * 9, 1), float(net[0].bias.detach().abs().sum())
    (2.0, 0.0)
    """
    layers = [module for module in model.modules() if isinstance(module, WeightLayer)]
    if not layers:
        raise SpecError(
            f"this {type(model).__name__} has no linear or convolutional layer that --init could draw anew.",
            "no --init, which leaves the weights as the model draws them",
        )
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(_weight(layer.weight.shape, init, generator, distribution))
            if layer.bias is not None:
                layer.bias.zero_()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
                module.reset_parameters()


def _weight(
    shape: torch.Size, init: str, generator: torch.Generator | None, distribution: Distribution | None
) -> torch.Tensor:
    fan_in, fan_out = fans(shape)
    matrix = draw(init, (shape[0], fan_in), generator=generator, distribution=distribution)
    counted, by_outputs = (law(init, fan_in, outputs, distribution) for outputs in (fan_out, shape[0]))
    if counted is not None and by_outputs is not None:
        matrix *= (counted.variance / by_outputs.variance) ** 0.5
    return matrix.reshape(shape)
