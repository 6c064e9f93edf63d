"""Models built without the numbers of their parameters, which a file holds; buffers are made as ever.

Not on the device meta as a whole: buffers that no file has, as the frequencies of rotary embeddings, would be lost.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from hessdiag.machine.draws import in_blocks

DRAWN_AT_ONCE = 2**20  # numbers
_drawing: ContextVar[bool] = ContextVar("drawing", default=True)


class NoNumbersError(RuntimeError):
    """Code that builds a model computes with the numbers of its parameters, which are not there yet."""


class _Unfilled:
    """What tensors without numbers have in common: what is made of them has none either, and is no other's memory."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Let shapes and initializations through, and refuse what would need numbers.

        Initializations draw what they would draw, and throw it away: random data that come after the model are then
        those that they would be.
        """
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("tensor")
        if isinstance(first, _Unfilled) and isinstance(first, Tensor) and _draws(func):
            if _drawing.get():
                others = {name: value for name, value in kwargs.items() if name != "tensor"}
                _draw(func, first, args[1:], others)
            return first
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        made = [item for item in tree_leaves(result) if isinstance(item, Tensor)]
        if any(not item.is_meta for item in made):
            # Some operations of torch return memory that nobody has written to.
            raise NoNumbersError(f"{getattr(func, '__name__', func)} of a parameter whose numbers are not there yet")
        return tree_map(_kept, result) if made else result


class UnfilledTensor(_Unfilled, Tensor):
    """What was made of a parameter without numbers."""


class UnfilledParameter(_Unfilled, nn.Parameter):
    """A parameter without numbers, on the device meta."""


def _kept(value: Any) -> Any:
    plain = isinstance(value, Tensor) and not isinstance(value, _Unfilled)
    return value.as_subclass(UnfilledTensor) if plain and not isinstance(value, nn.Parameter) else value


_DRAWING = {"normal_", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_", "geometric_"}
_IN_BLOCKS: set[Any] = {Tensor.normal_, nn.init.normal_, Tensor.uniform_, nn.init.uniform_}


def _draws(func: Any) -> bool:
    return getattr(func, "__module__", None) == nn.init.__name__ or getattr(func, "__name__", "") in _DRAWING


def _draw(func: Any, like: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Draw random numbers as for a tensor on the CPU, and throw them away: no more than a block of them, if possible.

    Args:
        func: Fills a tensor, its first argument.
        like: A tensor of the shape and dtype.
        args: What follows.
        kwargs: By name.
    """
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        shape, dtype = tuple(like.shape), like.dtype
        if func not in _IN_BLOCKS:
            func(torch.empty(shape, dtype=dtype), *args, **kwargs)
            return
        for count in in_blocks(like.numel(), DRAWN_AT_ONCE):
            func(torch.empty(count, dtype=dtype), *args, **kwargs)


@contextmanager
def without_numbers(*, drawing: bool = True) -> Iterator[None]:
    """Within, parameters that modules register on the CPU lose their numbers; tied ones stay one.

    Args:
        drawing: Draw what initializations draw, and throw it away.

    >>> with without_numbers():
    ...     layer = nn.Linear(2, 3)
    >>> layer.weight.device, layer.weight.shape
    (device(type='meta'), torch.Size([3, 2]))
    """
    made: Any = WeakTensorKeyDictionary()

    def emptied(_: nn.Module, __: str, parameter: nn.Parameter | None) -> Any:
        if type(parameter) is not nn.Parameter or parameter.device.type != "cpu":
            return None
        if parameter not in made:
            empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
            made[parameter] = UnfilledParameter(empty, parameter.requires_grad)
        found: nn.Parameter = made[parameter]
        return found

    token = _drawing.set(drawing)
    handle = nn.modules.module.register_module_parameter_registration_hook(emptied)
    try:
        yield
    finally:
        handle.remove()
        _drawing.reset(token)
