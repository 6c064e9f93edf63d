"""What an optimizer makes of gradients, read off what it holds: metric, rates and threshold of each kind."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.sharded.vectors import places, spread_over
from hessdiag.errors import LoadError, SpecError
from hessdiag.numbers import listed
from hessdiag.optimizers.recipe import named_with, settings_of_group
from hessdiag.optimizers.state.denominators import NEEDED, Moments, from_moments, from_state, moments
from hessdiag.optimizers.state.held import Held, OptimizerState, Origin, number_of
from hessdiag.problem.problem import Problem
from hessdiag.theory.stability import PLAIN, threshold, why_not

EARLY = 0.01  # of beta1^step: above, the momentum's bias correction is more than a percent of a step
_DECOUPLED = ("adamw", "muon", "lion")


@dataclass(frozen=True, eq=False)
class Preconditioning:
    """What an optimizer multiplies the gradient by, at one moment, in the flat order of `problem.parameters`.

    Without momentum the next step is `-rates * gradient / diagonal`. Of a sharded problem each vector is this process's
    pieces of it.

    Attributes:
        optimizer: As people call it, with its settings: "Adam(lr=0.001, eps=1e-08)".
        kind: Its class in small letters: "adam".
        settings: Those that matter here, of its first group.
        diagonal: P (N,), positive, `sqrt(v_hat) + eps` of Adam; infinite where the optimizer does not move an entry.
            `None` where it divides by none: P is the identity (SGD), or no diagonal at all (Muon, SOAP): see `plain`.
        plain: Whether P is the identity, apart from entries that are not moved.
        rates: Learning rates, one or (N,) where groups differ; 0 where an entry is not moved.
        threshold: c of "stable while learning rate times curvature is below c"; `None` where none is derived.
        weight_decay: One or (N,), where groups differ.
        coupled: Whether the decay is part of the gradient: then the curvature that the optimizer sees is H plus it.
        state: Where P is from: "checkpoint", "optimizer" (a live one's state), or "gradients", of an optimizer that has
            not stepped yet: v is the mean of g_b^2 over the batches here, as of one that stands still here.
        gradients: How many were computed for it.
        notes: What a reader should know.
        likeness: Correlation of log v with log g^2 of minibatches here, of a checkpoint's state: a right one has 0.3 to
            0.9, and below 0.2 it is not this model's, or its tensors are swapped. `None` of others.
        held: What `direction` steps with.
    """

    optimizer: str
    kind: str
    settings: Mapping[str, float]
    diagonal: Tensor | None
    plain: bool
    rates: Tensor | float
    threshold: float | None
    weight_decay: Tensor | float
    coupled: bool
    state: Origin
    gradients: int = 0
    notes: tuple[str, ...] = ()
    likeness: float | None = None
    held: OptimizerState | None = field(default=None, repr=False)

    @property
    def lr(self) -> float:
        """The learning rate: the largest, where groups differ."""
        return float(self.rates.max()) if isinstance(self.rates, Tensor) else self.rates

    def metric(self, problem: Problem) -> Tensor | None:
        """P with what learning rates differ by: stable means `lr * lambda_max(M^{-1/2} H M^{-1/2}) < threshold`.

        M = P lr / rates, (N,), infinite where an entry is not moved. `None` where the optimizer has no diagonal.
        """
        if self.diagonal is None and not self.plain:
            return None
        found = _filled(problem, 1.0) if self.diagonal is None else self.diagonal
        return found * (self.lr / self.rates) if isinstance(self.rates, Tensor) else found


def of_state(problem: Problem, state: OptimizerState, name: str | None = None) -> Preconditioning:
    """Of what an optimizer holds.

    Args:
        problem: What is trained.
        state: By the names of the model's parameters.
        name: Of the optimizer with its settings; by default of its first group.

    Raises:
        LoadError: if it steps nothing of the problem, or its state is not of its kind.
    """
    kind = state.kind.lower()
    names = [name for name, _ in problem.named_parameters]
    given = [name for name in names if name in state.of]
    if not given:
        raise LoadError("the optimizer steps none of the parameters that are measured.", "--layers GLOB of others")
    keeps = kind in NEEDED
    unstepped = [name for name in given if keeps and state.origin != "gradients" and not state.of[name].stepped]
    moved = [name for name in given if name not in set(unstepped)]
    if not moved:
        raise LoadError(
            "the optimizer has stepped none of the parameters that are measured: they have no state.",
            "a checkpoint from after some steps, or --optimizer NAME without a state",
        )
    missing = [name for name in names if name not in state.of]
    found = moments(problem) if keeps and state.origin == "gradients" else None
    diagonal = _diagonal(problem, kind, state, set(moved), found) if keeps else None
    fixed = bool(missing or unstepped)
    rates = _each(problem, {name: _rate(kind, state.of[name]) for name in moved}, 0.0)
    decays = _each(problem, {name: number_of(state.of[name].group.get("weight_decay", 0)) for name in moved}, 0.0)
    first = state.of[moved[0]]
    constant, why = _threshold(kind, [state.of[name] for name in moved])
    notes = [
        *state.notes,
        *([f"{listed(missing)}: not among the optimizer's parameters, held fixed"] if missing else []),
        *([f"{listed(unstepped)}: no state, so frozen or never stepped; held fixed"] if unstepped else []),
        *_of_momentum(kind, first, state.origin),
        *([why] if why else []),
    ]
    settings = settings_of_group(first.group)
    return Preconditioning(
        optimizer=name or named_with(state.kind, settings),
        kind=kind,
        settings=settings,
        diagonal=_filled(problem, 1.0, set(moved)) if fixed and kind in PLAIN else diagonal,
        plain=kind in PLAIN,
        rates=rates,
        threshold=constant,
        weight_decay=decays,
        coupled=not _decoupled(kind, first.group),
        state=state.origin,
        gradients=0 if found is None else found.batches,
        notes=tuple(notes),
        held=state,
    )


def _diagonal(problem: Problem, kind: str, state: OptimizerState, moved: set[str], found: Moments | None) -> Tensor:
    diagonal = _filled(problem, torch.inf)
    for (name, parameter), place in zip(problem.named_parameters, places(problem), strict=True):
        if name not in moved:
            continue
        held = state.of[name]
        if found is None:
            part = from_state(kind, held, name)
            if not bool((torch.isfinite(part) & (part >= 0)).all()):
                raise LoadError(f"the optimizer's state of {name} is negative or not finite: the run had diverged.")
            if part.shape != parameter.shape:
                raise LoadError(
                    f"the optimizer's state of {name} is of shape {tuple(part.shape)}, and {name} of "
                    f"{tuple(parameter.shape)}: it belongs to another tensor, or to another model."
                )
        else:
            part = from_moments(kind, held.group, found, place)
        diagonal[place] = part.reshape(-1).to(diagonal)
    if not bool((diagonal > 0).all()):
        smallest = torch.finfo(diagonal.dtype).tiny
        diagonal.clamp_(min=smallest)  # an epsilon of zero at entries without a gradient
    return diagonal


def _rate(kind: str, held: Held) -> float:
    """The learning rate of the next step, with the decay that is the optimizer's own."""
    rate = number_of(held.group["lr"])
    if kind == "adagrad" and held.stepped:
        return rate / (1 + (number_of(held.state["step"]) - 1) * number_of(held.group.get("lr_decay", 0)))
    if kind == "asgd" and "eta" in held.state:
        return number_of(held.state["eta"])
    return rate


def _decoupled(kind: str, group: Mapping[str, Any]) -> bool:
    return bool(group.get("decoupled_weight_decay", kind in _DECOUPLED))


def _threshold(kind: str, of: Iterable[Held]) -> tuple[float | None, str]:
    """The smallest of all groups, and what is to be said of it."""
    constants = set()
    for held in of:
        group = held.group
        if group.get("maximize"):
            return None, "it climbs: maximize is set, and what is stable for it is not known"
        betas = group.get("betas") or (0.0,)
        rate = _rate(kind, held)
        decay = rate * number_of(group.get("weight_decay", 0)) if _decoupled(kind, group) else 0.0
        if kind == "asgd":
            decay = rate * number_of(group.get("lambd", 0))
        if not all(0 <= number_of(one) < math.inf for one in (decay, group.get("weight_decay", 0))):
            raise SpecError(f"weight decay of {kind} is not a finite number, or negative.", "weight_decay=0.01")
        if (momentum := number_of(group.get("momentum", 0))) >= 1:
            return None, f"momentum is {momentum:g}: of 1 or more, it makes steps grow by itself"
        if (dampening := number_of(group.get("dampening", 0))) >= 1:
            return None, f"dampening is {dampening:g}: of 1 or more, momentum takes nothing of the gradient, or climbs"
        if decay >= 2:
            return None, f"learning rate times weight decay is {decay:g}: the decay alone makes weights grow"
        constant = threshold(
            kind,
            momentum=momentum,
            nesterov=bool(group.get("nesterov")),
            dampening=dampening,
            beta1=number_of(betas[0]),
            look_ahead=_look_ahead(held) if kind == "nadam" else None,
            decay=decay,
        )
        if constant is None:
            return None, f"no threshold for {kind}: {why_not(kind)}"
        constants.add(constant)
    least, most = min(constants), max(constants)
    if most > least * (1 + 1e-9):
        return least, f"groups differ in momentum or decay: thresholds from {least:g} to {most:g}, the smallest is used"
    return least, ""


def _look_ahead(held: Held) -> float:
    """NAdam's share of the momentum that it takes ahead in the next step."""
    beta1 = number_of(held.group["betas"][0])
    step = number_of(held.state.get("step", 0)) + 1
    return float(beta1 * (1 - 0.5 * 0.96 ** (step * number_of(held.group.get("momentum_decay", 4e-3)))))


def _of_momentum(kind: str, first: Held, origin: Origin) -> list[str]:
    """That the first steps of Adam's kin are not as long as later ones."""
    betas, step = first.group.get("betas"), first.state.get("step")
    if origin == "gradients" or step is None or betas is None or kind not in NEEDED:
        return []
    left = number_of(betas[0]) ** max(number_of(step), 1.0)
    if left < EARLY:
        return []
    return [
        f"step {number_of(step):g}: the momentum's bias correction still makes steps {1 / (1 - left):.3g} times as "
        "long, which the threshold, that of later steps, does not know"
    ]


def _filled(problem: Problem, value: float, only: set[str] | None = None) -> Tensor:
    """(N,) of one value; infinite outside of the parameters that are named."""
    found = torch.full((spread_over(problem).own,), value, dtype=problem.dtype, device=problem.device)
    if only is not None:
        for (name, _), place in zip(problem.named_parameters, places(problem), strict=True):
            if name not in only:
                found[place] = torch.inf
    return found


def _each(problem: Problem, values: Mapping[str, float], other: float) -> Tensor | float:
    """One number, where all parameters have the same; else (N,)."""
    each = [values.get(name, other) for name, _ in problem.named_parameters]
    if len(set(each)) == 1:
        return each[0]
    found = _filled(problem, other)
    for value, place in zip(each, places(problem), strict=True):
        found[place] = value
    return found
