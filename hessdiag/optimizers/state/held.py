"""What an optimizer holds, parameter by parameter: settings and state, by the names of the model."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hessdiag.errors import ComputeError, SpecError
from hessdiag.optimizers.joint import main_of
from hessdiag.optimizers.recipe import Recipe
from hessdiag.problem.copies import copied

Origin = Literal["checkpoint", "optimizer", "gradients"]
Build = Callable[[nn.Module], torch.optim.Optimizer]


@dataclass(frozen=True)
class Held:
    """Of one parameter.

    Attributes:
        group: The settings of its group.
        state: What was accumulated; empty where the optimizer has not stepped it.
    """

    group: Mapping[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stepped(self) -> bool:
        """Whether the optimizer has stepped it, as far as its state tells: some make one before their first step."""
        return bool(self.state) and number_of(self.state.get("step", 1)) > 0


@dataclass(frozen=True)
class OptimizerState:
    """An optimizer, as far as it matters where it stands.

    Attributes:
        kind: Its class.
        of: What it holds, by the names of the model's parameters; those that it does not step are not there.
        origin: Where the state is from; "gradients" where there is none yet.
        build: Makes the optimizer for a copy of the model, without the state.
        notes: What a reader should know.
    """

    kind: str
    of: Mapping[str, Held]
    origin: Origin
    build: Build
    notes: tuple[str, ...] = ()

    def on(self, model: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A copy of the model, and this optimizer with a copy of its state for that.

        Raises:
            ComputeError: if the model cannot be copied.
        """
        other = copied(model)
        if other is None:
            raise ComputeError("the model cannot be copied.", "give it as a function that builds it")
        optimizer = self.build(other)
        names = {id(parameter): name for name, parameter in other.named_parameters()}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                held = self.of.get(names.get(id(parameter), ""))
                if held is not None:
                    group.update({key: value for key, value in held.group.items() if key in group})
                    if held.state:
                        optimizer.state[parameter] = {
                            key: _fitting(key, value, parameter) for key, value in held.state.items()
                        }
        return other, optimizer


def _fitting(key: str, value: Any, parameter: Tensor) -> Any:
    """A copy of a part of a state, where and in the dtype that the parameter is, as torch loads it."""
    if isinstance(value, Tensor) and value.is_floating_point() and key != "step":
        return value.detach().to(parameter.device, parameter.dtype, copy=True)
    return copy.deepcopy(value)


def of_instance(optimizer: torch.optim.Optimizer, model: nn.Module, build: Build) -> OptimizerState:
    """What a live optimizer holds of a model's parameters.

    Raises:
        SpecError: if it holds none of them.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of = {}
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for parameter in group["params"]:
            if id(parameter) in names:
                of[names[id(parameter)]] = Held(settings, optimizer.state.get(parameter, {}))
    if not of:
        raise SpecError(
            "the optimizer holds none of the model's parameters.", "the optimizer that was made of model.parameters()"
        )
    stepped = any(held.stepped for held in of.values())
    kind = type(main_of(optimizer)).__name__
    return OptimizerState(kind, of, "optimizer" if stepped else "gradients", build)


def of_recipe(made: Recipe, model: nn.Module) -> OptimizerState:
    """What an optimizer holds that was just made."""
    optimizer = made.build(model)
    return of_instance(optimizer, model, made.build)


def number_of(value: Any) -> float:
    """A setting as a number: learning rates may be tensors, and epsilons pairs."""
    if isinstance(value, (tuple, list)):
        value = value[0]
    return float(value.detach()) if isinstance(value, Tensor) else float(value)
