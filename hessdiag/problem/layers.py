"""Which parameters of a model are differentiated, and which module each of them belongs to."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.device import NO_MPS

Named = tuple[tuple[str, nn.Parameter], ...]


@dataclass(frozen=True)
class Layer:
    """The parameters that one module owns: consecutive entries `start:stop` of the parameter vector.

    Attributes:
        name: For people: the module's path, or the parameter's name if the whole model owns it.
        kind: Class of the module.
        path: Where the module is in the model; empty for the model itself.
        start: First entry.
        stop: Past the last entry.
    """

    name: str
    kind: str
    path: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.stop - self.start


def trainable(model: nn.Module, glob: str | None) -> Named:
    """Trainable parameters whose name, or whose module's, matches the glob, each once."""
    wanted = glob or "*"
    return tuple(
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.numel() and _matches(name, wanted)
    )


def _matches(name: str, glob: str) -> bool:
    """Whether a parameter, or the module that owns it, matches the glob."""
    return fnmatch.fnmatchcase(name, glob) or fnmatch.fnmatchcase(name.rpartition(".")[0], glob)


def refuse_odd(model: nn.Module) -> None:
    """Refuse parameters that no real vector can consist of.

    Raises:
        LoadError: if one is complex, has no shape yet, or lies where there is no float64.
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise LoadError(
                f"the parameter {name} has no shape yet: the model is lazy.", "call the model once on a batch"
            )
        if parameter.device.type == "mps":
            raise LoadError(NO_MPS, "model.to('cpu')")
        if parameter.is_complex():
            raise LoadError(
                f"the parameter {name} is complex; the Hessian is that of real parameters.",
                "torch.view_as_complex of a real parameter",
            )


def refuse_none(model: nn.Module, glob: str | None) -> None:
    """Say why there is nothing to differentiate.

    Raises:
        SpecError: if nothing matches the glob.
        LoadError: if there was none: nothing is trained.
    """
    if glob is not None:
        names = ", ".join(list(dict(model.named_parameters()))[:4])
        raise SpecError(
            f"--layers {glob!r} matches no trainable parameter (there are {names}, ...).",
            "--layers '*'",
        )
    raise LoadError("the model has no trainable parameter: all are frozen, or there are none.")


def slices(model: nn.Module, parameters: Named) -> tuple[Layer, ...]:
    """Parameters grouped by the module that owns them, in their order."""
    layers: list[Layer] = []
    start = 0
    modules = dict(model.named_modules(remove_duplicate=False))  # TorchScript has no get_submodule
    single = next(model.children(), None) is None  # the model is one layer: its parameters belong together
    for name, parameter in parameters:
        owner = name.rpartition(".")[0]
        stop = start + parameter.numel()
        together = bool(owner) or single
        kind = kind_of(modules[owner]) if together else "Parameter"
        label = owner or (kind if single else name)
        if layers and layers[-1].name == label and together:
            layers[-1] = Layer(label, kind, owner, layers[-1].start, stop)
        else:
            layers.append(Layer(label, kind, owner, start, stop))
        start = stop
    return tuple(layers)


def kind_of(module: nn.Module) -> str:
    """The class of a module; TorchScript keeps it by name."""
    return str(module.original_name) if isinstance(module, torch.jit.ScriptModule) else type(module).__name__


def dtype(parameters: Sequence[nn.Parameter]) -> torch.dtype:
    """The widest dtype among parameters."""
    widest = parameters[0].dtype
    for parameter in parameters[1:]:
        widest = torch.promote_types(widest, parameter.dtype)
    return widest
