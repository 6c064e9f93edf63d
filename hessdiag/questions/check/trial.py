"""A cure, tried: the network as it is and a mended copy, trained side by side for a short while."""

from hessdiag.problem.problem import Problem
from hessdiag.questions.check.optimizers import Recipe
from hessdiag.questions.check.result import Check, Trial
from hessdiag.questions.common.runs.progress import Progress


def tried(found: Check, problem: Problem, recipe: Recipe, *, seed: int, progress: Progress) -> Trial | None:
    """Train both; `None` where no cure of the first cause is known."""
    raise NotImplementedError
