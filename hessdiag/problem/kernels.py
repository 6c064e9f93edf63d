"""Kernels whose second derivative is missing, wrong or slow, replaced by the formula that they compute."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def dense_embeddings(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Sparse gradients have no derivative."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    sparse = [module for module in modules if isinstance(module, kinds) and module.sparse]
    try:
        for module in sparse:
            module.sparse = False
        yield
    finally:
        for module in sparse:
            module.sparse = True


@contextmanager
def no_cudnn() -> Iterator[None]:
    """Its recurrent layers have no double backward.

    `torch.backends.cudnn.flags` would allow TF32 by the way, and fails where old and new flags contradict each other.
    """
    enabled = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled


@contextmanager
def plain_embedding_bag() -> Iterator[None]:
    """The fused kernel is differentiable only once. Sums and means of looked-up rows are, as often as is asked."""
    home = torch.nn.functional
    fused = home.embedding_bag

    def plain(
        input: Tensor,
        weight: Tensor,
        offsets: Tensor | None = None,
        max_norm: float | None = None,
        norm_type: float = 2,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        per_sample_weights: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Tensor:
        flat = input.ndim == 1
        odd = (
            input.ndim not in (1, 2) or flat is (offsets is None) or (mode == "mean" and per_sample_weights is not None)
        )
        if odd or max_norm is not None or scale_grad_by_freq or mode not in ("sum", "mean"):
            return fused(
                *(input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse),
                *(per_sample_weights, include_last_offset, padding_idx),
            )
        counted = torch.ones_like(input, dtype=torch.bool)
        if padding_idx is not None:
            counted = input != padding_idx % len(weight)
        rows = home.embedding(input, weight)
        if per_sample_weights is not None:
            rows = rows * per_sample_weights[..., None]
        rows = rows.masked_fill(~counted[..., None], 0.0)
        if offsets is None:
            total, counts = rows.sum(1), counted.sum(1)
        else:
            bag, bags = _bags(offsets, len(input), include_last_offset)
            total = rows.new_zeros(bags, weight.shape[1]).index_add(0, bag, rows)
            counts = counted.new_zeros(bags, dtype=torch.int64).index_add(0, bag, counted.long())
        return total if mode == "sum" else total / counts.clamp_min(1)[:, None]

    try:
        home.embedding_bag = plain
        yield
    finally:
        home.embedding_bag = fused


def _bags(offsets: Tensor, entries: int, include_last: bool) -> tuple[Tensor, int]:
    """The bag of each entry, and how many bags there are: `offsets` say where each begins."""
    starts = offsets[:-1] if include_last else offsets
    ends = torch.cat([starts[1:], starts.new_tensor([int(offsets[-1]) if include_last else entries])])
    return torch.repeat_interleave(torch.arange(len(starts), device=offsets.device), ends - starts), len(starts)


@contextmanager
def plain_weight_norm() -> Iterator[None]:
    """The fused kernel takes norms for constants in its second derivative, which is then not even symmetric."""
    homes: tuple[Any, ...] = (
        torch,
        importlib.import_module("torch.nn.utils.weight_norm"),
    )  # where its callers look it up
    fused = torch._weight_norm

    def plain(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
        normalized: Tensor = v * (g / torch.norm_except_dim(v, 2, dim))
        return normalized

    try:
        for home in homes:
            home._weight_norm = plain
        yield
    finally:
        for home in homes:
            home._weight_norm = fused


@contextmanager
def plain_transformer() -> Iterator[None]:
    """In eval mode a frozen `TransformerEncoder` skips its own modules, and hands on nested tensors for padding."""
    mha = torch.backends.mha
    enabled = mha.get_fastpath_enabled()
    try:
        mha.set_fastpath_enabled(False)
        yield
    finally:
        mha.set_fastpath_enabled(enabled)


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


@contextmanager
def plain_batch_norm(*, fold: bool) -> Iterator[None]:
    """In eval mode it is a scale and a shift, or, with `fold`, part of the convolution before it, if there is one.

    A second derivative then has nothing to do for it; that of the fused kernel takes a fifth of the time of a ResNet's.
    Folding leaves the convolution's own output aside: wrong where a model asks for more of it than batch norm does.
    """
    home = torch.nn.functional
    names = ("conv1d", "conv2d", "conv3d") if fold else ()
    fused, convolutions = home.batch_norm, {name: getattr(home, name) for name in names}

    def remembering(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
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

    def folded(
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

    try:
        home.batch_norm = folded
        for name, run in convolutions.items():
            setattr(home, name, remembering(run))
        yield
    finally:
        home.batch_norm = fused
        for name, run in convolutions.items():
            setattr(home, name, run)
