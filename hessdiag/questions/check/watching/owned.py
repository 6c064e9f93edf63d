"""Which parameters make up one layer: those of a module, or one that the model uses by itself."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from hessdiag.problem.layers import kind_of

_PARAMETRIZED = "parametrizations"  # where torch keeps what weight norm and spectral norm make a weight of


@dataclass(frozen=True, eq=False)
class Owned:
    """Parameters that belong together.

    Attributes:
        layer: The path of their module, its class where it is the model; or the name of a lone parameter.
        kind: Class of the module, or "Parameter".
        path: Where the module is.
        module: That has them.
        parameters: By their names within the module.
    """

    layer: str
    kind: str
    path: str
    module: nn.Module
    parameters: dict[str, nn.Parameter]

    @property
    def alone(self) -> bool:
        """Whether it is a parameter that a module of several uses by itself."""
        return self.kind == "Parameter"


def owned(model: nn.Module) -> tuple[Owned, ...]:
    """All parameters of a model, trained or not, by layers in the order of registration.

    A parameter that two modules share is in both. Modules of torch, and others that hold one matrix at most and no
    modules with parameters, are layers; of the rest each parameter is one by itself.

    >>> [(one.layer, one.kind) for one in owned(nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)))]
    [('0', 'Linear'), ('2', 'Linear')]
    """
    return tuple(one for path, module in model.named_modules() for one in _of_module(path, module))


def _of_module(path: str, module: nn.Module) -> Iterator[Owned]:
    if _PARAMETRIZED in path.split("."):
        return
    own = {name: item for name, item in module.named_parameters(recurse=False) if item.numel()}
    made = dict(module.named_children()).get(_PARAMETRIZED)
    if made is not None:
        own |= {f"{_PARAMETRIZED}.{name}": item for name, item in made.named_parameters() if item.numel()}
    if not own:
        return
    kind = kind_of(module)
    if _is_one(module, own):
        yield Owned(path or kind, kind, path, module, own)
        return
    for name, item in own.items():
        yield Owned(f"{path}.{name}" if path else name, "Parameter", path, module, {name: item})


def _is_one(module: nn.Module, own: dict[str, nn.Parameter]) -> bool:
    if type(module).__module__.startswith("torch.nn"):
        return True
    inner = any(True for name, child in module.named_children() if name != _PARAMETRIZED for _ in child.parameters())
    return not inner and sum(item.ndim > 1 for item in own.values()) <= 1


def plain_modules(model: nn.Module) -> list[nn.Module]:
    """Modules of a user's own that hold no parameters, buffers or modules."""
    return [
        module
        for module in model.modules()
        if not type(module).__module__.startswith("torch.")
        and not (module._modules or module._parameters or module._buffers)
    ]
