"""What one look can measure: each quantity from the live model, with its error and its cost."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.metric import Scaled
from hessdiag.errors import ComputeError, LoadError, SpecError
from hessdiag.linalg import estimators
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.machine import processes
from hessdiag.monitor.tracking import COLD, WARM, Found, track
from hessdiag.optimizers.preconditioning import Preconditioning, preconditioning
from hessdiag.problem.measuring import wait
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.row_sizes import SKETCHES
from hessdiag.questions.diag_share.measure import diag_share
from hessdiag.questions.report.run.record import Reading
from hessdiag.questions.sharpness.readings import NO_CONSTANT, NO_EIGENVALUE
from hessdiag.questions.sharpness.standing import Standing
from hessdiag.theory.stability import PLAIN

SIGNS = 10  # products of a trace
ROWS = 64  # of the diagonal share
DOWNWARD = 8  # at most of negative curvature: the lower end is crowded, and any v'Hv < 0 is proof


@dataclass
class Here:
    """Where training stands, while it is looked at.

    Attributes:
        problem: Of the live model.
        operator: Its Hessian.
        optimizer: That trains it; `None` where it is not known.
        before: Largest eigenvalues of the look before, by the operator.
        seed: Of random numbers of this look.
        cold: Products, at most, of a search that does not go on from a converged one.
        found: Largest eigenvalues of this one.
    """

    problem: Problem
    operator: HessianOperator
    optimizer: torch.optim.Optimizer | None
    before: Mapping[str, Found]
    seed: int
    cold: int = COLD
    found: dict[str, Found] = field(default_factory=dict)

    @cached_property
    def gradient(self) -> Tensor:
        """Of the loss, (N,)."""
        return self.operator.gradient()

    @cached_property
    def made(self) -> Preconditioning:
        """What the optimizer is at its present settings.

        Raises:
            SpecError: if it takes no steps now.
            LoadError: if its state does not fit.
        """
        return preconditioning(self.problem, self.optimizer)

    def top(self, name: str, scale: Tensor | None = None, decay: Tensor | float = 0.0) -> tuple[Found, int]:
        """The largest eigenvalue, once, and the products that were spent on it now.

        Args:
            name: Which.
            scale: P^(-1/2), (N,), of the metric that it is of.
            decay: What weight decay adds to the Hessian.
        """
        if name in self.found:
            return self.found[name], 0
        operator = self.operator if scale is None else Scaled(self.operator, scale, decay)
        slope = self.gradient if scale is None else self.gradient * scale
        return self._tracked(name, operator, slope, self.cold)

    def bottom(self) -> Found:
        """The largest eigenvalue of -H, as far as few products show it."""
        return self._tracked("negative_curvature", -self.operator, self.gradient, DOWNWARD)[0]

    def _tracked(self, name: str, operator: SymmetricOperator, slope: Tensor, cold: int) -> tuple[Found, int]:
        found = track(operator, self.before.get(name), slope, self.seed, self.operator.precision, cold)
        self.found[name] = found
        return found, found.products


def _loss(here: Here) -> Reading:
    return Reading(value=here.problem.value())


def _gradient_norms(here: Here) -> Reading:
    layers = {one.name: safe_norm(here.gradient[one.start : one.stop]) for one in here.problem.layer_slices}
    return Reading(value=safe_norm(here.gradient), layers=layers)


def _lambda_max(here: Here) -> Reading:
    found, products = here.top("lambda_max")
    return replace(_of(found), products=products)


def _of(found: Found) -> Reading:
    """An eigenvalue with its residual, or the bound that it is."""
    if not found.converged:
        return Reading(value=found.value, converged=False, bound="lower")
    return Reading(value=found.value, stderr=found.residual, converged=True)


def _sharpness(here: Here) -> Reading:
    try:
        standing = Standing(here.problem, here.operator, here.made)
    except (SpecError, LoadError) as error:  # as of a schedule that begins at zero: it is asked again
        return Reading(value=None, why=error.what)
    edge, name = standing.edge, here.made.optimizer
    if standing.metric is None or edge is None:
        return Reading(value=None, why=NO_EIGENVALUE if standing.metric is None else NO_CONSTANT, optimizer=name)
    if standing.plain:
        found, products = here.top("lambda_max")
        assert isinstance(standing.decay, float)
        edge -= standing.decay  # what weight decay leaves of it
    else:
        found, products = here.top("sharpness", standing.metric.double().rsqrt(), standing.decay)
    plain = _of(found)
    if not edge > 0:
        return replace(plain, value=None, why="weight decay alone is beyond the threshold", optimizer=name)
    return replace(
        plain,
        value=found.value / edge,
        stderr=None if plain.stderr is None else plain.stderr / edge,
        threshold=edge,
        curvature=found.value,
        optimizer=name,
        products=products,
    )


def _negative_curvature(here: Here) -> Reading:
    found = here.bottom()
    value = -found.value
    return Reading(
        value=value,
        stderr=found.residual if found.converged else None,
        converged=found.converged,
        bound=None if found.converged else "upper",
        proven=value < -found.rounding,
        products=found.products,
    )


def _trace(here: Here) -> Reading:
    found = estimators.trace(here.operator, SIGNS, here.seed)
    return Reading(value=found.value, stderr=found.stderr, products=found.products)


def _diag_share(here: Here) -> Reading:
    if processes.together():
        raise ComputeError("the diagonal share is measured by all processes or by one alone.")
    found = diag_share(here.problem, rows=min(ROWS, here.problem.n_parameters), seed=here.seed)
    return Reading(value=found.diag_share, stderr=found.diag_share_stderr, products=found.hvps)


QUANTITIES: Mapping[str, Callable[[Here], Reading]] = {
    "loss": _loss,
    "gradient_norms": _gradient_norms,
    "lambda_max": _lambda_max,
    "sharpness": _sharpness,
    "negative_curvature": _negative_curvature,
    "trace": _trace,
    "diag_share": _diag_share,
}
WITHOUT_PRODUCTS = ("loss", "gradient_norms")
USUALLY = ("loss", "gradient_norms", "lambda_max", "sharpness")


def measured(here: Here, name: str) -> Reading:
    """One quantity, with the time that it took."""
    began = clock(here.problem.device)
    found = QUANTITIES[name](here)
    return replace(found, seconds=round(clock(here.problem.device) - began, 6))


def probe(here: Here) -> None:
    """One product, to be timed; what is wrong with it is said of what needs products."""
    with contextlib.suppress(Exception):
        here.operator @ here.gradient


def clock(device: torch.device) -> float:
    """The time, once a GPU has done what it was asked."""
    wait(device)
    return time.perf_counter()


def planned(names: tuple[str, ...], optimizer: torch.optim.Optimizer | None) -> int:
    """How many products these quantities will take, about; a search from a random start is content with as few."""
    fixed = {"negative_curvature": DOWNWARD, "trace": SIGNS, "diag_share": SKETCHES + ROWS}
    return WARM * len(tops(names, optimizer)) + sum(products for name, products in fixed.items() if name in names)


def tops(names: tuple[str, ...], optimizer: torch.optim.Optimizer | None) -> set[str]:
    """The largest eigenvalues that these quantities are of."""
    found = {"lambda_max"} & set(names)
    if "sharpness" in names and optimizer is not None:
        found.add("lambda_max" if type(optimizer).__name__.lower() in PLAIN else "sharpness")
    return found
