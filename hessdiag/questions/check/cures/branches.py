"""Which layers end the branches of a residual network: seen in one forward pass, in what is added to what."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

_SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
_FAR = 1_000  # nodes of a graph that are looked through for where a branch began


@dataclass
class _Sums(TorchFunctionMode):
    """Follows which layer each tensor came out of last, to the sums in which branches end."""

    made_by: Any = field(default_factory=WeakTensorKeyDictionary)  # tensor -> name of a layer
    order: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        tensors = [item for item in args if isinstance(item, Tensor)]
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor):
            return result
        if getattr(func, "__name__", "") in _SUMS and len(tensors) == 2:
            for branch, skip in (tensors, tensors[::-1]):
                if (name := self.made_by.get(branch)) is not None and _leaves(skip, branch):
                    self.ends.append(name)
                    self.made_by.pop(result, None)
                    return result
        if named := [self.made_by[tensor] for tensor in tensors if tensor in self.made_by]:
            self.made_by[result] = named[-1]
        return result

    def watch(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        """A hook that says what came out of a layer."""

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if name not in self.order:
                self.order.append(name)
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor):
                self.made_by[first] = f"{name}.out_proj" if isinstance(module, nn.MultiheadAttention) else name

        return hook


def _leaves(skip: Tensor, branch: Tensor) -> bool:
    """Whether a branch was computed from what it is added to."""
    if skip.shape != branch.shape or isinstance(skip, nn.Parameter):
        return False
    if skip.grad_fn is None:
        return not skip.requires_grad  # the data itself
    ahead: list[Any] = [branch.grad_fn]
    seen: set[Any] = set()
    while ahead and len(seen) < _FAR:
        node = ahead.pop(0)
        if node is skip.grad_fn:
            return node is not branch.grad_fn
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [before for before, _ in node.next_functions]
    return False


def observed(layers: Mapping[str, nn.Module], evaluate: Callable[[], object]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Watch one evaluation.

    Args:
        layers: The layers to watch, by name.
        evaluate: Evaluates the model.

    Returns:
        The layers in the order of their first calls, and those that end a branch.
    """
    sums = _Sums()
    hooks = [layer.register_forward_hook(sums.watch(name)) for name, layer in layers.items()]
    try:
        with sums:
            evaluate()
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(sums.order), frozenset(sums.ends)
