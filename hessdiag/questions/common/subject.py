"""What a question may be asked of: a problem, or an operator of one."""

from typing import Any

from torch import nn

from hessdiag.curvature.registry import OperatorName, entry_of
from hessdiag.errors import SpecError
from hessdiag.problem.problem import Problem


def problem_of(subject: Any, instead: str | None = None) -> Problem:
    """The problem whose Hessian is asked about. An operator's graph is dropped, for the answer builds its own.

    Args:
        subject: A problem, or its Hessian as an operator.
        instead: The call that answers for any operator, where there is one.

    Raises:
        SpecError: if it is neither.
    """
    problem, name = matrix_of(subject, "hessian", instead)
    if name != "hessian":
        raise _not_asked_of(subject, instead)
    return problem


def matrix_of(subject: Any, name: OperatorName, instead: str | None = None) -> tuple[Problem, OperatorName]:
    """The problem, and the name of its matrix that is asked about.

    Args:
        subject: A problem, or an operator of one that has a name.
        name: The matrix asked for beside it.
        instead: As for `problem_of`.

    Raises:
        SpecError: if it is neither, or not the matrix asked for.
    """
    if isinstance(subject, Problem):
        return subject, name
    found = entry_of(subject)
    if found is None or getattr(subject, "function", subject) is None:  # the empirical Fisher matrix has no name
        raise _not_asked_of(subject, instead)
    if name not in ("hessian", found.name):
        raise SpecError(f"a {type(subject).__name__} is not operator={name!r}.", "the operator alone, or its problem")
    if getattr(subject, "scale", None) is not None:
        raise SpecError(
            "an operator in a metric is not asked about as such.", "the problem, with metric=; or hessdiag.linalg"
        )
    subject.forget()
    return subject.problem, found.name


def _not_asked_of(subject: Any, instead: str | None) -> SpecError:
    kind = "a model alone" if isinstance(subject, nn.Module) else type(subject).__name__
    return SpecError(
        f"a problem or its HessianOperator is asked about here, not {kind}.",
        instead if hasattr(subject, "__matmul__") else "hessdiag.Problem(model, data=[(x, y)], loss='ce')",
    )
