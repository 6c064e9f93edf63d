"""A run that has found a minimum has no gradient, and is not dead."""

from hessdiag.problem.load import ProblemRequest, load_problem
from hessdiag.questions.escape.measure import escape


def test_a_minimum_is_not_death():
    problem = load_problem(ProblemRequest("builtin:rosenbrock", device="cpu"))
    (run,) = escape(problem, optimizers="tr-rmsprop", seeds=1).runs
    assert run.outcome == "escaped"
    assert run.spent.steps == 200
    assert run.final_loss < 1e-20
    assert run.score < 1e-20
