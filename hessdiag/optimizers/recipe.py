"""Optimizers by name: what `--optimizer SPEC` and `--lr` say, and the optimizer itself for some parameters."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import nn

from hessdiag import suggest
from hessdiag.errors import HessdiagError, LoadError, SpecError, first_line, said
from hessdiag.optimizers import classes
from hessdiag.optimizers.closure import ClosureOptimizer
from hessdiag.optimizers.joint import main_of, muon
from hessdiag.optimizers.registry import OPTIMIZERS
from hessdiag.optimizers.update import uncompiled
from hessdiag.problem.lightning.optimizer import CONFIGURE, configured, names_optimizer
from hessdiag.problem.loading.python import load_object
from hessdiag.problem.spec import Spec, call_of, parse

USUAL = "adam(lr=1e-3)"  # what stands in where no optimizer is given
USUAL_LR = {"sgd": 0.1}  # where no learning rate is given, and torch has none, or one that depends on its version
SHOWN = ("lr", "momentum", "dampening", "eps", "weight_decay")  # settings that matter here; betas are shown, too

Named: TypeAlias = Sequence[tuple[str, nn.Parameter]]
Make: TypeAlias = Callable[[nn.Module, Named], torch.optim.Optimizer]


@dataclass(frozen=True)
class Recipe:
    """How an optimizer is made, again and again.

    Attributes:
        kind: Its class as torch calls it, or the spec of the user's function.
        given: Whether the user named it.
        make: Makes it for a model and those of its parameters that are trained, by name.
        known: Its settings, as far as they are known before it is made.
        changed: Settings that differ from what `make` gives.
        assumed: What was assumed of it, in a sentence; empty where nothing was.
        own: Its name in `OPTIMIZERS`, where it is one of this package's, which differentiate the loss themselves.
        orders: Whether its groups are the user's own, in the order that saved states have: made by a function or an
            optimizer of theirs, and not by this package from a class.
        origin: Where it is from, if nobody named it and the model did.
    """

    kind: str
    given: bool
    make: Make
    known: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, float] = field(default_factory=dict)
    assumed: str = ""
    own: str | None = None
    orders: bool = False
    origin: str | None = None

    @property
    def name(self) -> str:
        """As people call it, with its settings: "Adam(lr=0.001, eps=1e-08)"."""
        return named_with(self.kind, {**self.known, **self.changed})

    def build(self, model: nn.Module, names: Sequence[str] | None = None) -> torch.optim.Optimizer:
        """Make it for a model.

        Args:
            model: Whose parameters it steps.
            names: Of the parameters that are trained; by default of those that want a gradient.

        Raises:
            SpecError: if it cannot be made for these parameters, or has not a setting that is to be changed.
            LoadError: if the user's function fails.

        >>> recipe("adam", 0.1).with_settings(eps=1e-3).build(nn.Linear(2, 1)).param_groups[0]["eps"]
        0.001
        """
        wanted = None if names is None else set(names)
        named = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if (parameter.requires_grad if wanted is None else name in wanted)
        ]
        optimizer = self.make(model, named)
        for key, value in self.changed.items():
            _set(main_of(optimizer), key, value, self.kind)
        return optimizer

    def with_settings(self, **settings: float) -> "Recipe":
        """The same optimizer with another `lr`, `eps`, `weight_decay`, ...; several groups keep the ratio of their lr.

        >>> recipe("adam", 0.1).with_settings(lr=0.01).name
        'Adam(lr=0.01, eps=1e-08)'
        """
        return replace(self, changed={**self.changed, **settings})


def recipe(
    spec: Any, lr: float | None, scripts: dict[Path, ModuleType] | None = None, model: nn.Module | None = None
) -> Recipe:
    """The optimizer that is meant.

    Args:
        spec: "adam", "adam(eps=1e-2)", "sgd(momentum=0.9)", "torch.optim.AdamW", "soap" of `pytorch_optimizer`,
            "tr-rmsprop(preset=paper)" of this package, "train.py:make_optimizer"; `None` for that of a LightningModule,
            else the usual one, or with `lr` for plain gradient descent at it. In Python also an optimizer, whose
            settings are taken and whose state is not, a function of the parameters or of the model, or a recipe.
        lr: Learning rate, instead of the spec's own.
        scripts: Scripts of the user's that ran already.
        model: Whose parameters an optimizer holds that is given as it is, or which names its own.

    Raises:
        SpecError: if there is no such optimizer, or it does not take these settings.
        LoadError: if the user's code is not there, or fails; or a package is not installed.

    >>> recipe("adam(eps=1e-2)", None).name, recipe(None, 0.5).name
    ('Adam(lr=0.001, eps=0.01)', 'plain gradient descent, SGD(lr=0.5)')
    """
    if lr is not None and not 0 < lr < float("inf"):
        raise SpecError(f"a learning rate is a positive number, not {lr}.", "--lr 1e-3")
    if spec is None and lr is None and model is not None and names_optimizer(model):
        return _of_lightning(model)
    if spec is None:
        made = _of_torch(USUAL if lr is None else "sgd", lr)
        return replace(made, given=lr is not None, kind="plain gradient descent, SGD" if lr is not None else made.kind)
    if isinstance(spec, Recipe):
        made = spec
    elif isinstance(spec, torch.optim.Optimizer):
        made = _of_instance(spec, model)
    elif isinstance(spec, str):
        if (name := classes.own(spec)) is not None:
            return _of_this(spec, name, lr)
        if (call := _call_of_torch(spec)) is not None:
            return _of_torch(call, lr)
        made = _of_code(parse(spec), {} if scripts is None else scripts)
    elif isinstance(spec, type) and issubclass(spec, torch.optim.Optimizer):
        made = Recipe(spec.__name__, True, lambda _, named: _called(spec.__name__, spec, [p for _, p in named], {}))
    elif callable(spec):
        name = getattr(spec, "__name__", type(spec).__name__)
        made = Recipe(name, True, lambda model, named: _of_function(name, spec, {}, model, named), orders=True)
    else:
        raise SpecError(
            f"an optimizer is named by a text, or is one, or a function that makes one; not a {type(spec).__name__}.",
            'optimizer="adam(lr=1e-3)"',
        )
    return made if lr is None else made.with_settings(lr=lr)


def of_gradients(made: Recipe) -> Recipe:
    """The same, if it steps along gradients that are there.

    Raises:
        SpecError: if it differentiates the loss itself, as trust regions do.
    """
    if made.own is not None:
        raise SpecError(
            f"{made.own} differentiates the loss itself, and is looked at where optimizers are raced.",
            f"hessdiag escape MODEL --optimizer {made.own}",
        )
    return made


def settings_of(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The settings of its first group that matter here, those that are off left out.

    >>> settings_of(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9))
    {'lr': 0.1, 'momentum': 0.9}
    """
    return settings_of_group(main_of(optimizer).param_groups[0])


def settings_of_group(group: Mapping[str, Any]) -> dict[str, float]:
    """The same of a group's settings."""
    found = {}
    for key in SHOWN:
        value = group.get(key)
        if key == "eps" and isinstance(value, tuple):  # Adafactor: of the square, and of the weights' size
            value = value[0]
        if value is not None and (key in ("lr", "eps") or float(value)):
            found[key] = float(value)
    betas = group.get("betas")
    if isinstance(betas, (tuple, list)) and tuple(map(float, betas)) != (0.9, 0.999):
        found |= {f"beta{index + 1}": float(beta) for index, beta in enumerate(betas)}
    return found


def _call_of_torch(text: str) -> str | None:
    """`NAME(...)` of one of torch's optimizers; `None` for a spec of other code."""
    text = text.strip()
    for prefix in ("builtin:", "torch.optim:", "torch.optim.", "optim."):
        if text.startswith(prefix):
            return text.removeprefix(prefix)
    head = text.partition("(")[0]
    return text if not any(mark in head for mark in ":./\\") else None


def _of_torch(text: str, lr: float | None) -> Recipe:
    """Of torch, or else of `pytorch_optimizer`."""
    head, mark, rest = text.partition("(")
    name, arguments = call_of(f"{head.strip().replace('-', '_')}{mark}{rest}")
    plain, known = name.lower().replace("_", ""), classes.of_torch()
    kind = known.get(plain) or classes.of_package(plain)
    if kind is None:
        names = [*known, *classes.PACKAGED, *OPTIMIZERS]
        close = suggest.question(name, names, {})
        raise SpecError(
            f"there is no optimizer {head.strip()!r}.{close} There are {', '.join(names)}.",
            "train.py:make, a function of the parameters, for one of your own",
        )
    keywords = dict(arguments or ())
    _check_keywords(kind, keywords)
    usual, assumed = USUAL_LR.get(kind.__name__.lower()), ""
    if lr is not None:
        keywords["lr"] = lr
    elif "lr" not in keywords and usual is not None:
        keywords["lr"] = usual
        assumed = f"your learning rate: {kind.__name__} was given none, and {usual:g} was assumed; --lr says yours"

    def make(model: nn.Module, named: Named) -> torch.optim.Optimizer:
        if plain == "muon" and plain in known:
            return _called(text, lambda given, **settings: muon(kind, model, given, settings), named, keywords)
        return _called(text, kind, [parameter for _, parameter in named], keywords)

    sample = make(nn.Module(), [("weight", nn.Parameter(torch.zeros(1, 1)))])  # refuses what is out of range
    return Recipe(kind.__name__, True, make, settings_of(sample), assumed=assumed)


def _of_this(text: str, name: str, lr: float | None) -> Recipe:
    """Of this package."""
    kind, entry = classes.of_this(name)
    head, mark, rest = text.strip().partition("(")
    given = dict(call_of(f"{head.replace('-', '_')}{mark}{rest}", words=True)[1] or ())
    _check_keywords(kind, given, name)
    if lr is not None:
        _check_keywords(kind, {"lr": lr}, name)
        given["lr"] = lr

    def make(_: nn.Module, named: Named) -> torch.optim.Optimizer:
        return _called(text, kind, [parameter for _, parameter in named], {**entry.settings, **given})

    make(nn.Module(), [("weight", nn.Parameter(torch.zeros(1, 1)))])  # refuses what is out of range
    return Recipe(name, True, make, given, own=name)


def _check_keywords(kind: type, keywords: Mapping[str, Any], name: str = "") -> None:
    """Refuse settings that a class does not take."""
    taken = inspect.signature(kind).parameters
    takes = [key for key, one in taken.items() if key != "params" and one.kind is not one.VAR_KEYWORD]
    for key in keywords:
        if key not in takes:
            close = suggest.question(key, takes, {"learning_rate": "lr", "epsilon": "eps", "decay": "weight_decay"})
            raise SpecError(f"{name or kind.__name__} takes no {key!r}.{close} It takes {', '.join(takes)}.")


def _of_code(spec: Spec, scripts: dict[Path, ModuleType]) -> Recipe:
    """A function or class of the user's, or of an installed library."""
    if spec.kind == "file":
        raise SpecError(
            f"{spec.text!r} is a file, and an optimizer is named by its class and settings here.",
            "adamw(lr=1e-3), or train.py:make, a function of the parameters",
        )
    if spec.kind not in ("script", "module"):
        raise SpecError(
            f"{spec.text!r} is no optimizer.", "adam, sgd(momentum=0.9) or train.py:make, a function of the parameters"
        )
    function = load_object(replace(spec, arguments=None), scripts)
    if not callable(function):
        raise SpecError(
            f"{spec.text!r} is a {type(function).__name__}, and no function that makes an optimizer.",
            "def make(params): return torch.optim.Adam(params, lr=1e-3)",
        )
    return Recipe(
        spec.attribute.rpartition(".")[2] if isinstance(function, type) else spec.text.partition("(")[0],
        True,
        lambda model, named: _of_function(spec.text, function, spec.keywords, model, named),
        orders=not isinstance(function, type),
    )


def _of_function(
    text: str, function: Callable[..., Any], keywords: Mapping[str, Any], model: nn.Module, named: Named
) -> torch.optim.Optimizer:
    """Call a function with the parameters, the model or both, as the names of what it takes tell."""
    try:
        taken = [name for name in inspect.signature(function).parameters.values() if name.name not in keywords]
    except (TypeError, ValueError):
        taken = []
    needed = [one.name for one in taken if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    first = needed[0] if needed else ""
    if any(word in first.lower() for word in ("model", "net", "module")):
        return _called(text, function, model, keywords)
    if first.lower().startswith("named"):
        return _called(text, function, list(named), keywords)
    return _called(text, function, [parameter for _, parameter in named], keywords)


def _called(text: str, function: Callable[..., Any], first: Any, keywords: Mapping[str, Any]) -> torch.optim.Optimizer:
    try:
        with uncompiled():
            found = function(first, **keywords)
    except HessdiagError:
        raise
    except (TypeError, ValueError) as error:  # of the settings, or of parameters that it does not take
        raise SpecError(f"{text}: {first_line(error)}") from error
    except Exception as error:
        raise LoadError(f"{text} raised {said(error)}") from error
    if isinstance(found, (tuple, list)):  # with a schedule
        found = next((one for one in found if isinstance(one, torch.optim.Optimizer)), found)
    if not isinstance(found, torch.optim.Optimizer):
        raise SpecError(
            f"{text} made a {type(found).__name__}, and no torch.optim.Optimizer.",
            "def make(params): return torch.optim.Adam(params, lr=1e-3)",
        )
    return found


def _of_lightning(model: nn.Module) -> Recipe:
    """The optimizer that a LightningModule names, made anew for each model."""
    origin = f"{type(model).__name__}.{CONFIGURE}"

    def make(other: nn.Module, _: Named) -> torch.optim.Optimizer:
        return _called(origin, configured, other, {})

    sample = make(model, ())
    kind = type(main_of(sample)).__name__
    return Recipe(kind, True, make, settings_of(sample), orders=True, origin=origin)


def _of_instance(optimizer: torch.optim.Optimizer, model: nn.Module | None) -> Recipe:
    """An optimizer with the class and the groups of one that is there; its state is neither read nor written."""
    names = {id(parameter): name for name, parameter in (model.named_parameters() if model is not None else ())}
    groups: list[tuple[dict[str, Any], list[str]]] = []
    for group in optimizer.param_groups:
        own = [names[id(parameter)] for parameter in group["params"] if id(parameter) in names]
        groups.append(({key: value for key, value in group.items() if key not in ("params", "param_names")}, own))
    if not any(own for _, own in groups):
        raise SpecError(
            "the optimizer holds none of the model's parameters.", "the optimizer that was made of model.parameters()"
        )
    kind = type(optimizer)
    takes = inspect.signature(kind).parameters
    defaults = {key: value for key, value in optimizer.defaults.items() if key in takes}

    def make(_: nn.Module, named: Named) -> torch.optim.Optimizer:
        at = dict(named)
        mapped = [{**group, "params": [at[name] for name in own if name in at]} for group, own in groups]
        return _called(kind.__name__, kind, [group for group in mapped if group["params"]], defaults)

    if isinstance(optimizer, ClosureOptimizer):
        settings = optimizer.param_groups[0].items()
        named = (
            name for name, one in OPTIMIZERS.items() if one.kind == kind.__name__ and one.settings.items() <= settings
        )
        return Recipe(kind.__name__, True, make, {}, own=next(named, kind.__name__))
    return Recipe(kind.__name__, True, make, settings_of(optimizer), orders=True)


def named_with(kind: str, settings: Mapping[str, Any]) -> str:
    """A class with its settings.

    >>> named_with("Adam", {"lr": 0.001})
    'Adam(lr=0.001)'
    """
    return f"{kind}({', '.join(f'{key}={_shown(value)}' for key, value in settings.items())})"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _set(optimizer: torch.optim.Optimizer, key: str, value: float, kind: str) -> None:
    """Change a setting in all groups."""
    groups = [group for group in optimizer.param_groups if key in group]
    if not groups:
        raise SpecError(f"{kind} has no setting {key!r}; it has {', '.join(list(optimizer.param_groups[0])[1:])}.")
    first = float(groups[0][key]) if key == "lr" else 0.0
    for group in groups:
        if key == "lr" and first:
            group[key] = value if len(groups) == 1 else float(group[key]) / first * value
        elif isinstance(group[key], tuple):
            group[key] = (value, *group[key][1:])
        else:
            group[key] = value
