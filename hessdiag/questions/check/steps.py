"""What the optimizer does with a network: its first step, the curvature along it, and a few more where time allows."""

from hessdiag.problem.problem import Problem
from hessdiag.questions.check.optimizers import Recipe
from hessdiag.questions.check.result import Check


def stepped(found: Check, problem: Problem, recipe: Recipe, *, seed: int) -> Check:
    """The same with `step`, `trains`, and each layer's `update_ratio` and `epsilon_share`."""
    raise NotImplementedError
