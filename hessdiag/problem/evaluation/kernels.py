"""Kernels whose second derivative is missing, wrong or slow, replaced by the formula that they compute."""

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from hessdiag.problem.replaced import replaced


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


def no_cudnn() -> AbstractContextManager[None]:
    """Its recurrent layers have no double backward.

    `torch.backends.cudnn.flags` would allow TF32 by the way, and fails where old and new flags contradict each other.
    """
    return replaced(torch.backends.cudnn, enabled=False)


def plain_embedding_bag() -> AbstractContextManager[None]:
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

    return replaced(home, embedding_bag=plain)


def _bags(offsets: Tensor, entries: int, include_last: bool) -> tuple[Tensor, int]:
    """The bag of each entry, and how many bags there are: `offsets` say where each begins."""
    starts = offsets[:-1] if include_last else offsets
    ends = torch.cat([starts[1:], starts.new_tensor([int(offsets[-1]) if include_last else entries])])
    return torch.repeat_interleave(torch.arange(len(starts), device=offsets.device), ends - starts), len(starts)


@contextmanager
def plain_weight_norm() -> Iterator[None]:
    """The fused kernel takes norms for constants in its second derivative, which is then not even symmetric."""

    def plain(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
        normalized: Tensor = v * (g / torch.norm_except_dim(v, 2, dim))
        return normalized

    callers = importlib.import_module("torch.nn.utils.weight_norm")  # which look it up at home or among their own
    with replaced(torch, _weight_norm=plain), replaced(callers, _weight_norm=plain):
        yield


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


def uses_cudnn(modules: Iterable[nn.Module], device: torch.device) -> bool:
    """Whether recurrent layers would run in cuDNN."""
    return device.type == "cuda" and any(isinstance(module, nn.RNNBase) for module in modules)


def forced(model: nn.Module, modules: Sequence[nn.Module], device: torch.device) -> tuple[str, ...]:
    """What is switched off for a model because it has no second derivative, in words."""
    words = ["attention: math kernel (the fused ones have no double backward)"]
    if any(isinstance(module, (nn.TransformerEncoder, nn.TransformerEncoderLayer)) for module in modules):
        words.append("transformer encoder: layer by layer (the fused path has no derivatives, and drops padding)")
    if any(name.endswith(("weight_g", "weight.original0")) for name, _ in model.named_parameters()):
        words.append("weight_norm: plain formula (the fused one has a wrong second derivative)")
    if any(isinstance(module, nn.EmbeddingBag) for module in modules):
        words.append("embedding_bag: plain sums of rows (the fused one is differentiable only once)")
    if uses_cudnn(modules, device):
        words.append("cuDNN off for recurrent layers (no double backward)")
    return tuple(words)
