"""From what was asked of `--metric` to the metric of a problem: its diagonal, and its name in results."""

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from hessdiag.curvature.metric import in_metric
from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.curvature.support import Support
from hessdiag.errors import HessdiagError, SpecError
from hessdiag.optimizers.preconditioning import Preconditioning, Spec, preconditioning
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.metric import Metric
from hessdiag.questions.common.runs.pieces import digest
from hessdiag.theory.stability import why_not

M = TypeVar("M", bound=CurvatureOperator[Any])


@dataclass(frozen=True)
class Asked:
    """Texts of the command line, and the scripts that ran already.

    Attributes:
        spec: The optimizer, or the file that holds its state.
        state: That file, beside the optimizer's name.
        scripts: Those that ran.
    """

    spec: str
    state: str | None = None
    scripts: dict[Path, ModuleType] = field(default_factory=dict)


MetricSpec: TypeAlias = Spec | Tensor | Preconditioning | Asked


@dataclass(frozen=True, eq=False)
class InMetric:
    """A metric of a problem, or none.

    Attributes:
        diagonal: P, (N,), infinite where an entry is not moved; `None` for the matrix itself.
        named: As results hold it.
    """

    diagonal: Tensor | None = None
    named: Metric | None = None

    def operator(self, operator: M, part: Support) -> M:
        """An operator of the parameters that the batches touch, taken into it."""
        return operator if self.diagonal is None else in_metric(operator, part.metric(self.diagonal))

    @property
    def key(self) -> str | None:
        """What a run that goes on must have been asked for: gradients are those of the same problem."""
        if self.diagonal is None or self.named is None:
            return None
        if self.named.state == "gradients":
            return self.named.optimizer
        return f"{self.named.optimizer} {digest(self.diagonal.double().cpu().numpy())}"

    @property
    def scale(self) -> Tensor | None:
        """P^(-1/2), (N,): an eigenvector v is the direction scale * v in the parameters."""
        return None if self.diagonal is None else self.diagonal.rsqrt()


def asked_for(text: tuple[str, str | None] | None, scripts: dict[Path, ModuleType] | None = None) -> Asked | None:
    """What the command line says: an optimizer and its state."""
    return None if text is None else Asked(*text, scripts or {})


def metric_of(problem: Problem, spec: MetricSpec) -> InMetric:
    """The metric that was asked for.

    Args:
        problem: Whose parameters it is of.
        spec: "adam", "adam(lr=1e-4)", the state in a checkpoint; in Python also an optimizer, live or as a function,
            or the diagonal P itself, (N,), positive. `None` for none.

    Raises:
        SpecError: if there is no such optimizer, its metric is not diagonal, or the numbers are no metric.

    >>> import torch
    >>> data = [(torch.ones(1, 2).double(), torch.zeros(1, 1).double())]
    >>> problem = Problem(torch.nn.Linear(2, 1, bias=False).double(), data=data, loss="mse")
    >>> metric_of(problem, torch.tensor([1.0, 4.0])).named.largest
    4.0
    """
    if spec is None:
        return InMetric()
    if isinstance(spec, Tensor):
        return _given(problem, spec)
    if isinstance(spec, Asked):
        made = _made(problem, spec)
    else:
        made = spec if isinstance(spec, Preconditioning) else preconditioning(problem, spec)
    diagonal = made.metric(problem)
    if diagonal is None:
        why = why_not(made.kind) or "it divides by more than a diagonal"
        raise SpecError(
            f"{made.optimizer} has no diagonal metric: {why}.", "--metric adam, or hessdiag sharpness MODEL"
        )
    moved = diagonal[diagonal.isfinite()]
    rates = made.rates
    decay = made.weight_decay
    named = Metric(
        optimizer=made.optimizer,
        kind=made.kind,
        state=made.state,
        lr=made.lr,
        rates_differ=isinstance(rates, Tensor) and float(rates[rates > 0].min()) < made.lr,
        threshold=made.threshold,
        weight_decay=float(decay.max()) if isinstance(decay, Tensor) else decay,
        coupled=made.coupled,
        smallest=float(moved.min()),
        largest=float(moved.max()),
        held=len(diagonal) - len(moved),
        notes=made.notes,
    )
    return InMetric(diagonal, named)


def _made(problem: Problem, asked: Asked) -> Preconditioning:
    """What the command line names, with its options in the hints."""
    try:
        return preconditioning(problem, asked.spec, state=asked.state, scripts=asked.scripts)
    except HessdiagError as error:
        if error.hint is None or error.hint.startswith("hessdiag "):  # of another command, with its own options
            raise
        raise type(error)(error.what, error.hint.replace("--optimizer", "--metric")) from error


def _given(problem: Problem, diagonal: Tensor) -> InMetric:
    n = problem.n_parameters
    wide = diagonal.detach().to(problem.device)
    if wide.shape != (n,) or not bool((wide > 0).all()) or not bool(wide.isfinite().all()):
        raise SpecError(
            f"a metric is a vector of {n:,} positive numbers, one for each parameter.",
            "metric=torch.ones(problem.n_parameters), or metric='adam'",
        )
    smallest, largest = float(wide.min()), float(wide.max())
    return InMetric(
        wide, Metric(optimizer="given numbers", kind="given", state="given", smallest=smallest, largest=largest)
    )


def named_only(spec: MetricSpec) -> Metric | None:
    """What to say of a metric where an interrupt came before it was known."""
    if spec is None:
        return None
    if isinstance(spec, Asked | str):
        return Metric(optimizer=spec.spec if isinstance(spec, Asked) else spec)
    return Metric(optimizer=type(spec).__name__)
