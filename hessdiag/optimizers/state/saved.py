"""An optimizer's state out of a file, by the names of a model's parameters: never by their order alone, unless proven.

A state dict numbers parameters by their place in the optimizer's groups, which is not the model's order: groups with
and without weight decay, frozen weights and layers that were added later all move it. Torch itself loads a state of
another order, and even of another shape, without a word.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag import suggest
from hessdiag.errors import LoadError, SpecError
from hessdiag.numbers import listed
from hessdiag.optimizers.joint import main_of
from hessdiag.optimizers.recipe import Recipe
from hessdiag.optimizers.state.assignment import Assignments, Shape, assignments
from hessdiag.optimizers.state.held import Build, Held, OptimizerState, number_of
from hessdiag.optimizers.update import uncompiled
from hessdiag.problem.files.fitting import unwrapped
from hessdiag.problem.files.optimizer_states import Saved

FACTORY = "--optimizer train.py:make_optimizer --state {}, with the function that made the optimizer"
SCALARS = ("step", "eta", "mu", "mu_product")
KEPT: Mapping[str, tuple[frozenset[str], str]] = {  # what tells a kind, and a setting that its groups have
    "Adamax": (frozenset({"exp_avg", "exp_inf"}), "betas"),
    "NAdam": (frozenset({"exp_avg", "exp_avg_sq", "mu_product"}), "betas"),
    "Adam": (frozenset({"exp_avg", "exp_avg_sq"}), "amsgrad"),
    "RAdam": (frozenset({"exp_avg", "exp_avg_sq"}), "decoupled_weight_decay"),
    "Adadelta": (frozenset({"square_avg", "acc_delta"}), "rho"),
    "RMSprop": (frozenset({"square_avg"}), "alpha"),
    "Adagrad": (frozenset({"sum"}), "lr_decay"),
    "ASGD": (frozenset({"eta", "mu", "ax"}), "lambd"),
    "Muon": (frozenset({"momentum_buffer"}), "ns_steps"),
    "SGD": (frozenset(), "dampening"),
}
_ALIKE = {"Adam", "AdamW", "RAdam"}  # write the same; only settings tell, and older versions wrote fewer
BESIDE = frozenset({"step", "max_exp_avg_sq", "momentum_buffer", "grad_avg"})


@dataclass(frozen=True)
class _Named:
    """Names of all entries, group by group, and how they came to be known."""

    groups: Sequence[Sequence[str]]
    by: str


def of_saved(saved: Saved, model: nn.Module, made: Recipe | None) -> OptimizerState:
    """What a saved optimizer held of a model's parameters.

    Names come from the file, where it has them; else from the groups that the user's function makes; else from shapes,
    where exactly one assignment fits and each group keeps the model's order.

    Args:
        saved: Out of a file.
        model: Whose parameters it stepped.
        made: The optimizer that wrote it, where the user named it; its groups are trusted if a function made them.

    Raises:
        SpecError: if it cannot be told which parameter is which, or which optimizer this is.
        LoadError: if names, counts or shapes do not fit the model.
    """
    optimizer = None if made is None else made.build(model)
    kind = _kind(saved, None if optimizer is None else main_of(optimizer))
    named = _named(saved, model, made, optimizer)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    of: dict[str, Held] = {}
    for number, (group, names) in enumerate(zip(saved.groups, named.groups, strict=True)):
        _check_settings(kind, group.settings, f"group {number} of {saved.where}")
        for ident, name in zip(group.idents, names, strict=True):
            state = saved.state.get(ident, {})
            _check_shapes(name, shapes[name], state, saved.where)
            if name not in of:  # tied weights that were given twice are one parameter
                of[name] = Held(group.settings, state)
    build = made.build if made is not None and made.orders else _rebuild(kind, saved, named, optimizer)
    steps = sorted({number_of(held.state["step"]) for held in of.values() if "step" in held.state})
    when = f" at step {' to '.join(f'{step:g}' for step in dict.fromkeys((steps[0], steps[-1])))}" if steps else ""
    note = f"optimizer: {kind}'s state{when} from {saved.where}, parameters by {named.by}"
    return OptimizerState(kind, of, "checkpoint", build, (note,))


def _kind(saved: Saved, optimizer: torch.optim.Optimizer | None) -> str:
    """The class that wrote a state.

    Raises:
        SpecError: if the user named another, or it cannot be told.
    """
    found = _recognised(saved)
    if optimizer is None:
        if isinstance(found, str):
            return found
        raise found
    name = type(optimizer).__name__
    if not hasattr(torch.optim, name):
        return name
    if isinstance(found, str) and found != name and not {found, name} <= _ALIKE:
        raise SpecError(
            f"the state in {saved.where} is {found}'s ({_keys(saved)}), and {name} was named.",
            f"--optimizer {found.lower()}",
        )
    tells = KEPT.get("Adam" if name == "AdamW" else name, (frozenset(), ""))[0]
    others = {str(key) for state in saved.state.values() for key in state} - tells - BESIDE
    if name in {*KEPT, *_ALIKE} and others:
        raise SpecError(
            f"the state in {saved.where} holds {', '.join(sorted(others))}, which {name} does not keep.",
            f"--optimizer NAME --state {saved.where}, with the class that wrote it",
        )
    return name


def _recognised(saved: Saved) -> str | SpecError:
    """The class, or why it is not known."""
    keys = {str(key) for state in saved.state.values() for key in state}
    groups = [group.settings for group in saved.groups]
    for kind, (tells, setting) in KEPT.items():
        if keys - BESIDE == tells - BESIDE and tells <= keys and all(setting in group for group in groups):
            if kind != "Adam":
                return kind
            return _adam(saved, groups)
    if keys == {"exp_avg"}:
        return SpecError(
            f"the state in {saved.where} has exp_avg alone, as Lion's: its steps are signs, and no curvature decides "
            "how large they may be.",
            "--optimizer NAME without its state, or another optimizer",
        )
    if not keys:
        return SpecError(
            f"the optimizer in {saved.where} has stepped nothing yet: its state is empty.",
            "--optimizer adam, or sgd(momentum=0.9): its own name and settings",
        )
    return SpecError(
        f"the state in {saved.where} ({_keys(saved)}) is of no optimizer of torch's that divides entry by entry.",
        f"--optimizer NAME --state {saved.where}, with the class that wrote it",
    )


def _adam(saved: Saved, groups: Sequence[Mapping[str, Any]]) -> str | SpecError:
    """Adam or AdamW: newer versions of torch say whether weight decay is decoupled, and without decay they are one."""
    said = {bool(group["decoupled_weight_decay"]) for group in groups if "decoupled_weight_decay" in group}
    if len(said) == 1:
        return "AdamW" if said.pop() else "Adam"
    if not any(number_of(group.get("weight_decay", 0)) for group in groups):
        return "Adam"
    return SpecError(
        f"Adam and AdamW write the same state, and {saved.where} does not say whether its weight decay is decoupled.",
        f"--optimizer adamw --state {saved.where}, or adam",
    )


def _keys(saved: Saved) -> str:
    return ", ".join(sorted({str(key) for state in saved.state.values() for key in state})) or "nothing"


def _named(saved: Saved, model: nn.Module, made: Recipe | None, optimizer: torch.optim.Optimizer | None) -> _Named:
    """Which parameter each entry is."""
    if all(group.names is not None or all(isinstance(one, str) for one in group.idents) for group in saved.groups):
        groups = [group.names if group.names is not None else tuple(map(str, group.idents)) for group in saved.groups]
        return _Named(_in_model(groups, model, saved.where), "the names that it holds")
    if made is not None and optimizer is not None and made.orders:
        return _Named(_of_function(saved, model, made, optimizer), f"the order of {made.kind}")
    return _Named(_by_shape(saved, model), "the only assignment in the model's order that fits their shapes")


def _in_model(groups: Sequence[Sequence[str]], model: nn.Module, where: str) -> list[list[str]]:
    """Names as the model has them, without what wrappers put before or into them.

    Raises:
        LoadError: naming those that the model has not.
    """
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    plain = [[unwrapped(name) for name in group] for group in groups]
    every = [name for group in plain for name in group]
    while not own.issuperset(every):
        heads = {name.partition(".")[0] for name in every}
        if len(heads) > 1 or not all("." in name for name in every):
            unknown = [name for name in every if name not in own]
            close = suggest.question(unknown[0], sorted(own), {})
            raise LoadError(
                f"{where} holds a state of {listed(unknown)}, which the model has not.{close}",
                "build the model as it was trained",
            )
        plain = [[name.partition(".")[2] for name in group] for group in plain]
        every = [name for group in plain for name in group]
    first = {id(parameter): name for name, parameter in model.named_parameters()}  # of tied ones the first name
    all_of = dict(model.named_parameters(remove_duplicate=False))
    return [[first[id(all_of[name])] for name in group] for group in plain]


def _of_function(saved: Saved, model: nn.Module, made: Recipe, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """Names by the groups that the user's function makes.

    Raises:
        LoadError: if these are others than the file's.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[names.get(id(one), "") for one in group["params"]] for group in optimizer.param_groups]
    theirs, ours = ([len(group.idents) for group in saved.groups], [len(group) for group in groups])
    if theirs != ours:
        raise LoadError(
            f"{made.kind} makes groups of {_counts(ours)} tensors, and {saved.where} holds groups of "
            f"{_counts(theirs)}.",
            "the model and the function as they were when it was saved, frozen parameters included",
        )
    if any(not name for group in groups for name in group):
        raise LoadError(f"{made.kind} steps tensors that are none of the model's parameters.")
    return groups


def _counts(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + (" and " if len(numbers) > 1 else "") + str(numbers[-1])


def _by_shape(saved: Saved, model: nn.Module) -> list[list[str]]:
    """Names by shapes, if only one assignment fits.

    Raises:
        SpecError: if several do, naming the tensors that could be swapped.
        LoadError: if none does.
    """
    parameters = [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]
    idents = [list(dict.fromkeys(group.idents)) for group in saved.groups]
    shapes = [[_shape(saved.state.get(ident, {})) for ident in group] for group in idents]
    found = assignments(parameters, shapes)
    if not found.names:
        raise _unassigned(found, parameters, shapes, saved.where)
    of = {
        ident: name
        for group, names in zip(idents, found.names, strict=True)
        for ident, name in zip(group, names, strict=True)
    }
    return [[of[ident] for ident in group.idents] for group in saved.groups]


def _unassigned(
    found: Assignments,
    parameters: Sequence[tuple[str, Shape]],
    shapes: Sequence[Sequence[Shape | None]],
    where: str,
) -> SpecError | LoadError:
    """That nothing fits, or too much."""
    if found.count != 0:
        ways = "more ways than can be counted" if found.count is None else f"{found.count:,} ways"
        could = f", for {listed(list(found.swappable))} could be swapped" if found.swappable else ""
        return SpecError(
            f"{where} holds no names, and its entries fit the model's parameters in {ways}{could}.",
            FACTORY.format(where),
        )
    entries = Counter(shape for group in shapes for shape in group if shape is not None)
    own = Counter(shape for _, shape in parameters)
    count = sum(map(len, shapes))
    for shape, number in entries.items():
        if number > own[shape]:
            near = [f"{name} {there}" for name, there in parameters if len(there) == len(shape)]
            return LoadError(
                f"{where} holds {number} tensors of shape {shape}, and the model has {own[shape]}"
                f"{f' (it has {listed(near)})' if not own[shape] and near else ''}.",
                "build the model as it was trained",
            )
    if count > len(parameters):
        return LoadError(
            f"{where} holds {count} parameters, and the model has {len(parameters)}.",
            "build the model as it was trained",
        )
    return LoadError(
        f"no assignment fits {where} to the model, with each group in the model's order: the optimizer was made in "
        "another one.",
        FACTORY.format(where),
    )


def _shape(state: Mapping[str, Any]) -> Shape | None:
    """The shape of the parameter that a state belongs to; `None` where it does not tell."""
    found = Counter(tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor) and _full(name))
    return found.most_common(1)[0][0] if found else None


def _full(name: str) -> bool:
    """Whether what has this name in a state is of its parameter's shape."""
    return name not in SCALARS


def _check_shapes(name: str, shape: Shape, state: Mapping[str, Any], where: str) -> None:
    if "step" in state and not 0 <= _number(state["step"]) < math.inf:
        raise LoadError(f"the step of {name} in {where} is no count of steps: the file is damaged.")
    for key, value in state.items():
        if isinstance(value, Tensor) and key in _OF_SHAPE and tuple(value.shape) != shape:
            raise LoadError(
                f"{key} of {name} in {where} is of shape {tuple(value.shape)}, and {name} of {shape}: the state "
                "belongs to another tensor, or to another model.",
                FACTORY.format(where),
            )


_OF_SHAPE = frozenset(
    {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "acc_delta", "sum", "momentum_buffer"}
    | {"grad_avg", "ax"}
)


def _check_settings(kind: str, settings: Mapping[str, Any], where: str) -> None:
    """Refuse a group that lacks what a step needs, or has what no optimizer takes."""
    needed = ("lr", "betas", "eps") if kind in ("Adam", "AdamW", "NAdam", "RAdam") else ("lr",)
    lacks = [name for name in needed if name not in settings]
    if lacks:
        raise LoadError(f"{where} has no {' and no '.join(lacks)}: it is no group of {kind}.")
    for name, most in (("lr", math.inf), ("eps", math.inf), ("weight_decay", math.inf), ("momentum", 1), ("betas", 1)):
        value = settings.get(name, 0.0)
        each = value if name == "betas" and isinstance(value, (tuple, list)) and len(value) == 2 else [value]
        for one in each:
            if not 0 <= _number(one) < most:
                raise LoadError(f"{name} of {where} is {value!r}, which no optimizer takes: the file is damaged.")


def _number(value: Any) -> float:
    """A setting; NaN where it is none."""
    try:
        return number_of(value)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return math.nan


def _rebuild(kind: str, saved: Saved, named: _Named, optimizer: torch.optim.Optimizer | None) -> Build:
    """What makes the optimizer again, in the file's own groups."""
    made: Any = getattr(torch.optim, kind, None) if optimizer is None else type(main_of(optimizer))

    def build(model: nn.Module) -> torch.optim.Optimizer:
        at = dict(model.named_parameters())
        groups = [
            {**group.settings, "params": [at[name] for name in dict.fromkeys(names)]}
            for group, names in zip(saved.groups, named.groups, strict=True)
        ]
        with uncompiled():
            found: torch.optim.Optimizer = made([group for group in groups if group["params"]])
        return found

    return build
