"""What the layers of a file's model would make of a batch: sizes are the file's word, and are tried without memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from hessdiag.errors import LoadError
from hessdiag.problem.files.allowance import OPTION, Allowance, amount

_PER_INPUT = 256  # a convolution of three channels to 512 has 170
_HOMES = tuple(f"torch.nn.modules.{name}" for name in ("padding", "upsampling", "fold", "pixelshuffle"))
_POOLS = nn.modules.pooling
_KINDS: tuple[type[nn.Module], ...] = (
    *(nn.Unflatten, nn.LocalResponseNorm, nn.modules.conv._ConvTransposeNd),
    *(_POOLS._AdaptiveMaxPoolNd, _POOLS._AdaptiveAvgPoolNd, _POOLS._MaxUnpoolNd),
)


@contextmanager
def bounded(model: nn.Module, allowance: Allowance) -> Iterator[None]:
    """Refuse, within this context, a forward pass in which one result is out of all proportion.

    That is larger than the model's file may unpack to, and than `_PER_INPUT` times what goes in.

    Each pass is first made on the device meta, where tensors have shapes and no values. What cannot be done there
    is not known.

    Args:
        model: Its layers may say anything of themselves.
        allowance: Of the file that it was read from.
    """
    if not any(map(by_its_word, model.modules())):
        yield  # all sizes follow from those of the weights; the trial imports torch's compiler, which takes a second
        return
    passed: set[Any] = set()
    trying = False

    def before(_: nn.Module, args: Any, keywords: Any) -> None:
        nonlocal trying
        shapes = tuple((tuple(item.shape), item.dtype) for item in tree_leaves((args, keywords)) if _is_tensor(item))
        if trying or shapes in passed:
            return
        trying = True
        try:
            _try(model, args, keywords, allowance)
        finally:
            trying = False
        passed.add(shapes)

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def by_its_word(layer: nn.Module) -> bool:
    """Whether the size of a layer's output is a number that it says, and not one that its weights have."""
    if isinstance(layer, nn.modules.conv._ConvNd) and not isinstance(layer, _KINDS):
        kernel, padding = layer.weight.shape[2:], layer.padding
        small = isinstance(padding, tuple) and all(pad in range(max(kernel) + 1) for pad in padding)
        return layer.padding_mode != "zeros" or not (small or isinstance(padding, str))
    return type(layer).__module__ in _HOMES or isinstance(layer, _KINDS)


def _try(model: nn.Module, args: Any, keywords: Any, allowance: Allowance) -> None:
    state = {name: _meta(value) for name, value in (*model.named_parameters(), *model.named_buffers())}
    try:
        inside = sum(item.numel() * item.element_size() for item in tree_leaves((args, keywords)) if _is_tensor(item))
        most = max(allowance.most, _PER_INPUT * inside)
        with _Sizes(replace(allowance, most=most)), torch.no_grad():
            functional_call(model, state, tree_map(_meta, args), tree_map(_meta, keywords))
    except LoadError:
        raise
    except Exception:
        return  # without values it does not pass; whether it does with them is seen next


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, allowance: Allowance) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allowance = allowance

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        size = max((item.numel() * item.element_size() for item in tree_leaves(result) if _is_tensor(item)), default=0)
        if size > self.allowance.most:
            raise LoadError(
                f"{self.allowance.path} holds a model that would make {amount(size)} of one batch "
                f"({getattr(func, '_overloadpacket', func)}), and at most {amount(self.allowance.most)} are taken.",
                f"{OPTION} {amount(size, up=True)}, if that is what it should do, or fewer samples",
            )
        return result


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _meta(value: Any) -> Any:
    """A tensor of the same shape without values; anything else as it is."""
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if _is_tensor(value) else value
