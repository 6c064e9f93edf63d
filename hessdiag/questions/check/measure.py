"""Why will it not train? One pass forward and back on the actual weights, a few steps, and the causes they show."""

from dataclasses import replace
from typing import Any

from hessdiag.problem.problem import Problem
from hessdiag.questions.check.causes.ranking import causes
from hessdiag.questions.check.optimizers import recipe
from hessdiag.questions.check.result import Check
from hessdiag.questions.check.steps import stepped
from hessdiag.questions.check.trial import tried
from hessdiag.questions.check.verdict import findings
from hessdiag.questions.check.watch import watched
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.subject import problem_of


@recorded
def check(
    problem: Problem,
    *,
    optimizer: Any = None,
    lr: float | None = None,
    attempt: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Check:
    """Say why a network does not train: causes, ranked, each with its layer, its number and its threshold."""
    problem = problem_of(problem)
    made = recipe(optimizer, lr, model=problem.model)
    found = watched(problem, seed=seed)
    found = stepped(found, problem, made, seed=seed)
    found = replace(found, causes=causes(found))
    if attempt and found.causes:
        found = replace(found, trial=tried(found, problem, made, seed=seed, progress=progress))
    return replace(found, findings=tuple(findings(found)))
