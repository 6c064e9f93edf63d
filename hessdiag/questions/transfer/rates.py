"""Learning rates tensor by tensor: those of the optimizer's groups, or those of muP's table."""

from collections.abc import Mapping, Sequence

import torch

from hessdiag.errors import SpecError
from hessdiag.nets.mup import FAMILIES, Family, multiplier
from hessdiag.optimizers.joint import Jointly, main_of
from hessdiag.optimizers.recipe import Recipe
from hessdiag.optimizers.state.held import number_of
from hessdiag.problem.problem import Problem
from hessdiag.questions.transfer.layers import Part


def family(optimizer: torch.optim.Optimizer) -> Family | None:
    """Which column of muP's table is that of an optimizer; `None` where none is."""
    return FAMILIES.get(type(main_of(optimizer)).__name__.lower())


def made(
    problem: Problem, recipe: Recipe, base: Sequence[Part] | None, network: Sequence[Part]
) -> torch.optim.Optimizer:
    """The optimizer of a network.

    Args:
        problem: Whose parameters it steps.
        recipe: How it is made.
        base: Tensors of the smallest network, where muP's table multiplies the learning rates; else `None`.
        network: Those of this one.

    Raises:
        SpecError: if muP's table has no column for it.
    """
    optimizer = recipe.build(problem.model, [name for name, _ in problem.named_parameters])
    if base is None:
        return optimizer
    column = None if isinstance(optimizer, Jointly) else family(optimizer)
    if column is None:
        raise SpecError(
            f"muP's table has learning rates for sgd and for adam and its kin, and none for {recipe.kind}.",
            "--multipliers groups",
        )
    factors = {
        one.name: multiplier(column, small.shape, one.shape, embedding=one.embedding)
        for small, one in zip(base, network, strict=True)
    }
    names = {id(parameter): name for name, parameter in problem.named_parameters}
    groups = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            factor = factors[names[id(parameter)]]
            groups.append({**group, "params": [parameter], "lr": number_of(group["lr"]) * factor})
    optimizer.param_groups[:] = groups
    return optimizer


def by_name(problem: Problem, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Learning rates by the names of the parameters; 0 of what the optimizer does not step."""
    names = {id(parameter): name for name, parameter in problem.named_parameters}
    found: dict[str, float] = dict.fromkeys(names.values(), 0.0)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in names:
                found[names[id(parameter)]] = number_of(group["lr"])
    return found


def base_rate(optimizer: torch.optim.Optimizer, rates: Mapping[str, float]) -> float:
    """What learning rates are multiples of: the optimizer's default, or else its largest.

    >>> made = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5}], lr=0.1)
    >>> base_rate(made, {"weight": 0.5})
    0.1
    """
    default = main_of(optimizer).defaults.get("lr")
    usual = 0.0 if default is None else number_of(default)
    return usual if usual > 0 else max(rates.values(), default=1.0)
