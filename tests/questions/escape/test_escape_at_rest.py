"""Tasks that are compared by a score: a minimum is no death, and a stream is seen by the losses of its steps."""

import pytest

from hessdiag.problem.load import ProblemRequest, load_problem
from hessdiag.questions.escape.measure import escape


def test_a_minimum_is_not_death():
    problem = load_problem(ProblemRequest("builtin:rosenbrock", device="cpu"))
    (run,) = escape(problem, optimizers="tr-rmsprop", seeds=1).runs
    assert run.outcome == "escaped"
    assert run.spent.steps == 200
    assert run.final_loss < 1e-20
    assert run.score < 1e-20


def test_a_stream_is_seen_by_its_steps():
    problem = load_problem(ProblemRequest("builtin:bowl(dim=5, steps=40)", device="cpu"))
    found = escape(problem, optimizers="sgd(lr=0.5)", seeds=1)
    (run,) = found.runs
    first = float(problem.evaluate(problem.data[0]).detach())
    assert run.loss[0] == pytest.approx(first, rel=1e-9)  # and not that of all centres, which no step sees
    assert (run.at[0].steps, run.at[-1].steps) == (1, 40)
    losses, x = [], problem.model.position.detach().clone()
    for centre, _ in problem.data:
        g = problem.model.hessian @ (x - centre[0])
        losses.append(float((x - centre[0]) @ g / 2))
        x = x - 0.5 * g
    assert run.score == pytest.approx(sum(losses[36:]) / 4, rel=1e-9)
    assert any("mean loss of Newton's method" in note for note in found.problem.notes)
    (start,) = found.plateaus
    assert start.lowest is None  # 40 batches a product, for what nobody asks here
