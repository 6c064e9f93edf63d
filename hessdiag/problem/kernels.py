"""Kernels whose second derivative is missing, wrong or slow, replaced by the formula that they compute."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def dense_embeddings(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Sparse gradients have no derivative."""
    sparse = [module for module in modules if isinstance(module, nn.Embedding) and module.sparse]
    try:
        for module in sparse:
            module.sparse = False
        yield
    finally:
        for module in sparse:
            module.sparse = True


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
def plain_batch_norm() -> Iterator[None]:
    """In eval mode it is a scale and a shift, whose second derivative is cheaper than that of the fused kernel."""
    fused = torch.nn.functional.batch_norm

    def plain(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if training or running_mean is None or running_var is None or running_mean.dtype != input.dtype:
            return fused(input, running_mean, running_var, weight, bias, training, momentum, eps)
        scale = (running_var + eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        shift = -running_mean * scale if bias is None else bias - running_mean * scale
        channels = (1, -1, *(1,) * (input.ndim - 2))
        return input * scale.view(channels) + shift.view(channels)

    try:
        torch.nn.functional.batch_norm = plain
        yield
    finally:
        torch.nn.functional.batch_norm = fused
