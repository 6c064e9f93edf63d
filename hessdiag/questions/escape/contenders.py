"""Who takes part in a race: optimizers by name, with what each of them is given."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from hessdiag.errors import HessdiagError, SpecError
from hessdiag.nets.tasks.task import DECLARED, Task
from hessdiag.optimizers.joint import main_of
from hessdiag.optimizers.recipe import Recipe, recipe
from hessdiag.optimizers.registry import OPTIMIZERS
from hessdiag.optimizers.saved import recipe_for
from hessdiag.problem.lightning.optimizer import names_optimizer
from hessdiag.problem.problem import Problem
from hessdiag.questions.escape.search import rates

USUAL = ("sgd", "momentum", "rmsprop", "adam", "adagrad", "muon", "tr-uniform", "tr-rmsprop", "tr-adagrad")
MEANT = {"momentum": "sgd(momentum=0.9)"}  # names that people use for a setting
SAMPLES, CURVATURE_SAMPLES = 128, 512  # in a minibatch
SECOND_ELSEWHERE = ("adahessian", "sophiah")  # of other packages: they take products with curvature


@dataclass(frozen=True)
class Entrant:
    """One that takes part.

    Attributes:
        name: In the race.
        kind: "second" where it takes products with curvature.
        recipe: How it is made.
        rates: Learning rates that are tried; empty where one is given, or it has none.
        samples: In a minibatch.
        output: Whether it wants the model's output beside the loss.
        draws: Whether it may draw random numbers, so that two runs on the same samples differ.
        usual: Whether nobody asked for it by name.
        title: What is known of optimizers is known by this: the name of its class, or its own in this package.
    """

    name: str
    kind: Literal["first", "second"]
    recipe: Recipe
    rates: tuple[float, ...]
    samples: int
    output: bool = False
    draws: bool = False
    usual: bool = False
    title: str = ""

    def at(self, rate: float | None) -> "Entrant":
        """The same with a learning rate."""
        return self if rate is None else replace(self, recipe=self.recipe.with_settings(lr=rate))


def task_of(problem: Problem) -> Task:
    """How optimizers are compared on this model, where it says so."""
    found = getattr(problem.model, DECLARED, None)
    return found if isinstance(found, Task) else Task()


def entrants(
    problem: Problem, asked: Any, lr: float | Mapping[str, float] | None, batch_size: int | None
) -> tuple[Entrant, ...]:
    """Those that were asked for, or the usual ones.

    Args:
        problem: What they are raced on, frozen.
        asked: Names or specs in a list, or separated by commas; also optimizers and functions; `None` for the usual.
        lr: Learning rate of all that step along gradients, or of some by name.
        batch_size: Samples in all minibatches.

    Raises:
        SpecError: if one is no optimizer or cannot be made for this model, or a learning rate is of none of them.
    """
    task = task_of(problem)
    usual = asked is None and not task.contenders
    named = list(_listed(asked if asked is not None else task.contenders or USUAL))
    if usual and not (hasattr(torch.optim, "Muon") and any(p.ndim == 2 for p in problem.parameters)):
        named.remove("muon")
    if usual and names_optimizer(problem.model):
        named.insert(0, recipe(None, None, model=problem.model))
    found = [_entrant(problem, one, lr, batch_size, task) for one in named]
    if isinstance(lr, float | int) and all(entrant.recipe.own is not None for entrant in found):
        name = found[0].name
        raise SpecError(f"{name} has no learning rate that --lr could set.", f"--optimizer {name}, without --lr")
    if isinstance(lr, Mapping):
        unknown = [name for name in lr if not any(_is(name, entrant.name) for entrant in found)]
        if unknown:
            raise SpecError(f"--lr is given for {unknown[0]}, which does not take part.", f"--optimizer {unknown[0]}")
    names = [entrant.name for entrant in found]
    return tuple(replace(one, usual=usual) for index, one in enumerate(found) if one.name not in names[:index])


def _entrant(
    problem: Problem, one: Any, lr: float | Mapping[str, float] | None, batch_size: int | None, task: Task
) -> Entrant:
    spec = one.strip() if isinstance(one, str) else one
    made = recipe_for(problem, MEANT.get(spec.lower(), spec) if isinstance(spec, str) else spec)
    name = spec if isinstance(spec, str) else made.origin or made.name
    own = OPTIMIZERS.get(made.own or "")
    second = own.products if own is not None else made.own is not None or made.kind.lower() in SECOND_ELSEWHERE
    output = own is not None and own.output
    if output and problem.criterion is None:
        raise SpecError(
            f"{name} needs a loss of the model's output, and {problem.why_no_loss_of_output}.",
            "newton-cg or tr-rmsprop",
        )
    given = _given(name, lr) if made.own is None or isinstance(lr, Mapping) else None
    if given is not None and made.own is not None:
        raise SpecError(f"{name} has no learning rate that --lr could set.", f"--optimizer '{made.own}(...)'")
    fixed = given is not None or made.own is not None or made.orders
    tried = () if fixed or not isinstance(spec, str) else rates(spec, made)
    if given is not None:
        made = made.with_settings(lr=given)
    with _in_words(name):
        kind = type(main_of(made.build(problem.model, [name for name, _ in problem.named_parameters])))
    draws = own.draws if own is not None else made.own is None and not kind.__module__.startswith("torch.optim")
    default = (task.curvature_samples or CURVATURE_SAMPLES) if second else (task.samples or SAMPLES)
    return Entrant(
        name=name,
        kind="second" if second else "first",
        recipe=made,
        rates=tried,
        samples=batch_size or default,
        output=output,
        draws=draws,
        title=made.own or kind.__name__,
    )


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Say which contender cannot be made."""
    try:
        yield
    except HessdiagError:
        raise
    except Exception as error:
        raise SpecError(f"{name} cannot be made for this model: {error}") from error


def _given(name: str, lr: float | Mapping[str, float] | None) -> float | None:
    if isinstance(lr, Mapping):
        return next((value for key, value in lr.items() if _is(key, name)), None)
    return lr


def _is(key: str, name: str) -> bool:
    """Whether a key means a contender: by all of its text, or by what stands before the parenthesis."""
    return key == name or key.lower() == name.partition("(")[0].lower()


def _listed(asked: Any) -> Sequence[Any]:
    if isinstance(asked, str):
        return split(asked)
    if isinstance(asked, Iterable) and not isinstance(asked, torch.optim.Optimizer):
        return [part for one in asked for part in (split(one) if isinstance(one, str) else [one])]
    return [asked]


def split(text: str) -> list[str]:
    """Specs that commas separate, those within parentheses aside.

    >>> split("sgd, adam(lr=1e-3, eps=1e-30),tr-rmsprop")
    ['sgd', 'adam(lr=1e-3, eps=1e-30)', 'tr-rmsprop']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    found = [part.strip() for part in parts if part.strip()]
    if not found:
        raise SpecError("no optimizer is named.", "--optimizer sgd --optimizer tr-rmsprop")
    return found
