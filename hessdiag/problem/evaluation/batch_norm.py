"""Batch norm in eval mode as the scale and shift that it is, or as a part of the convolution before it."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem.replaced import replaced


def could_fold(modules: Iterable[nn.Module]) -> bool:
    """Whether a model has both kinds of layers."""
    kinds = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)
    return all(any(isinstance(module, kind) for module in modules) for kind in kinds)


@dataclass(frozen=True)
class _Convolution:
    """How a tensor came to be, as long as nothing was changed in place."""

    run: Callable[..., Tensor]
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    geometry: tuple[Any, ...]
    versions: tuple[int, ...]

    def scaled(self, output: Tensor, scale: Tensor, shift: Tensor) -> Tensor | None:
        """Scale and shift of each channel of the output as one convolution; `None` if it is no longer the same."""
        watched = output.retains_grad or output._backward_hooks
        if watched or self.versions != _versions(output, self.input, self.weight):
            return None
        weight = self.weight * scale.view(-1, *(1,) * (self.weight.ndim - 1))
        bias = shift if self.bias is None else shift + scale * self.bias
        return self.run(self.input, weight, bias, *self.geometry)


def _versions(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(tensor._version for tensor in tensors)


def _remembering(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A convolution whose output knows how it came to be."""

    def convolution(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        geometry = (stride, padding, dilation, groups)
        output = run(input, weight, bias, *geometry)
        if torch.is_grad_enabled():
            versions = _versions(output, input, weight)
            output._convolution = _Convolution(run, input, weight, bias, geometry, versions)  # type: ignore[attr-defined]
        return output

    return convolution


def _plain(fused: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Batch norm by its formula, wherever that is what `fused` computes."""

    def batch_norm(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if (
            training
            or running_mean is None
            or running_var is None
            or running_mean.dtype != input.dtype
            or len(running_mean) != input.shape[1]  # which would broadcast; torch refuses it
        ):
            return fused(input, running_mean, running_var, weight, bias, training, momentum, eps)
        scale = (running_var + eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        shift = -running_mean * scale if bias is None else bias - running_mean * scale
        source: _Convolution | None = getattr(input, "_convolution", None)
        output = None if source is None else source.scaled(input, scale, shift)
        if output is not None:
            return output
        channels = (1, -1, *(1,) * (input.ndim - 2))
        return input * scale.view(channels) + shift.view(channels)

    return batch_norm


def plain_batch_norm(*, fold: bool) -> AbstractContextManager[None]:
    """In eval mode it is a scale and a shift, or, with `fold`, part of the convolution before it, if there is one.

    A second derivative then has nothing to do for it; that of the fused kernel takes a fifth of the time of a ResNet's.
    Folding leaves the convolution's own output aside: wrong where a model asks for more of it than batch norm does.
    """
    home = torch.nn.functional
    convolutions = ("conv1d", "conv2d", "conv3d") if fold else ()
    remembering = {name: _remembering(getattr(home, name)) for name in convolutions}
    return replaced(home, batch_norm=_plain(home.batch_norm), **remembering)
