"""Optimizers of sharded problems: made for the shapes of parameters, and stepped by pieces.

What divides and moves each entry by itself steps a process's own pieces. What steps whole matrices, as Muon does, steps
one at a time: it is gathered, and let go.
"""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.curvature.sharded.vectors import put, tensor_of, whole_tensor
from hessdiag.errors import SpecError
from hessdiag.optimizers.joint import Jointly
from hessdiag.optimizers.state.seen import Preconditioning
from hessdiag.optimizers.update import searches, step_as_given, uncompiled
from hessdiag.problem.files.optimizer_states import is_file
from hessdiag.shards.layout import bounds
from hessdiag.shards.problem import ShardedProblem

# Of torch: each entry's step follows from that entry alone.
ENTRYWISE = {
    *("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop"),
}


def refuse_state(spec: Any, state: str | None) -> None:
    """Refuse an optimizer's state for a sharded problem.

    Raises:
        SpecError: if an optimizer is given with one, or a file of one.
    """
    named = state or (spec if isinstance(spec, str) and is_file(spec) else None)
    if named is not None:
        raise SpecError(
            f"{named} holds an optimizer's state of whole parameters, and --shard has none.",
            "--optimizer 'adam(lr=1e-3)', as of one that has not stepped yet; or without --shard",
        )
    if isinstance(spec, torch.optim.Optimizer):
        raise SpecError(
            "the optimizer holds whole parameters, and a sharded problem has none.",
            'optimizer="adam(lr=1e-3)", as of one that has not stepped yet; or the problem as it is',
        )


def hollow_model(problem: ShardedProblem) -> nn.Module:
    """A copy of the model with the shapes of its parameters and no numbers, for functions that make optimizers."""
    empty: dict[int, Any] = {
        id(parameter): nn.Parameter(
            torch.empty(tuple(parameter.shape), dtype=parameter.dtype, device="meta"), parameter.requires_grad
        )
        for parameter in problem.model.parameters()
    }
    made: nn.Module = copy.deepcopy(problem.model, empty)
    return made


def step_of_pieces(problem: ShardedProblem, made: Preconditioning, gradient: Tensor) -> Tensor:
    """What an optimizer without a state adds to this process's pieces in its next step, (own,).

    Args:
        problem: Where the parameters are.
        made: What the optimizer makes of gradients.
        gradient: This process's pieces of it, (own,).

    Raises:
        SpecError: if it looks for its step by itself, or may need several parameters for the step of one.

    """
    assert made.held is not None
    model, layout = hollow_model(problem), problem.layout
    kinds, hollow = _kinds(made.held.build(model), made.optimizer), dict(model.named_parameters())
    moves = torch.zeros(layout.own, dtype=problem.dtype, device=problem.device)
    for index, (name, piece) in enumerate(zip(layout.names, problem.pieces, strict=True)):
        if name not in made.held.of:
            continue
        kind, defaults = kinds[id(hollow[name])]
        settings = {**defaults, **made.held.of[name].group}
        if kind.__name__ in ENTRYWISE:
            first, last = bounds(layout.counts[index], layout.rank, layout.size)
            own = slice(last - first)  # without what fills it up
            part = layout.pieces(gradient)[index]
            layout.pieces(moves)[index][own] = _move(kind, settings, piece.detach()[own], part[own], made.optimizer)
        else:
            numbers = whole_tensor(piece.detach(), layout.shapes[index])
            slopes = tensor_of(problem, gradient, index)
            put(problem, moves, index, _move(kind, settings, numbers, slopes, made.optimizer))
    return moves


def _kinds(optimizer: torch.optim.Optimizer, name: str) -> dict[int, tuple[type, Mapping[str, Any]]]:
    """What steps each parameter, by its identity: the class, and its defaults."""
    parts = optimizer.parts if isinstance(optimizer, Jointly) else (optimizer,)
    for part in parts:
        if searches(part):
            raise SpecError(f"{name} looks for its step by itself.", "--optimizer adam")
        if not type(part).__module__.startswith("torch.optim"):
            raise SpecError(
                f"{name} may step a parameter by what others are, and with --shard no process has all of them.",
                "--optimizer adam, or another of torch's; or without --shard",
            )
    return {
        id(parameter): (type(part), part.defaults)
        for part in parts
        for group in part.param_groups
        for parameter in group["params"]
    }


def _move(kind: type, settings: Mapping[str, Any], numbers: Tensor, gradient: Tensor, name: str) -> Tensor:
    """By how much some numbers move in the first step of an optimizer of these alone."""
    parameter = nn.Parameter(numbers.clone())
    parameter.grad = gradient.to(numbers)
    takes = inspect.signature(kind).parameters
    with uncompiled():
        optimizer = kind([parameter], **{key: value for key, value in settings.items() if key in takes})
    optimizer.param_groups[0].update({key: value for key, value in settings.items() if key != "params"})
    step_as_given(optimizer, name)
    return parameter.detach() - numbers
