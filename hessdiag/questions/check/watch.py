"""One pass forward and back, watched: what goes through each layer, and what comes back."""

from hessdiag.problem.problem import Problem
from hessdiag.questions.check.result import Check


def watched(problem: Problem, *, seed: int) -> Check:
    """What one pass over the first batch shows, and the batch itself: all of `Check` but steps and causes."""
    raise NotImplementedError
