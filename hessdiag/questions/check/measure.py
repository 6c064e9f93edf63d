"""Why will it not train? One pass forward and back on the actual weights, a few steps, and the causes they show."""

from dataclasses import replace
from typing import Any

from hessdiag.optimizers.recipe import of_gradients
from hessdiag.optimizers.saved import recipe_for
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.causes.ranking import causes
from hessdiag.questions.check.result import Check
from hessdiag.questions.check.steps import stepped
from hessdiag.questions.check.trial import tried
from hessdiag.questions.check.verdict import findings
from hessdiag.questions.check.watch import passed
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
    """Say why a network does not train: causes, ranked, each with its layer, its number and its threshold.

    One pass forward and back over the first batch, in the model's own mode and with its own weights, and the
    optimizer's first step on a copy; on small models some more steps. What is handed over stays as it is.

    Args:
        problem: A model, its data and its loss.
        optimizer: "adam", "sgd(momentum=0.9)", "train.py:make", "ckpt.pt#optimizer" for the settings that a checkpoint
            holds, a `torch.optim.Optimizer` that the model is trained with, or a function of its parameters; `None`
            for `adam(lr=1e-3)`, which stands in.
        lr: Its learning rate, instead of its own; alone, that of plain gradient descent.
        attempt: Try the first cure: train a copy with it, beside one of the network as it is.
        seed: Of random numbers that the model draws, and of the trial.
        progress: Told of the steps of a trial.

    Raises:
        SpecError: if there is no such optimizer, or it does not take these settings.
        ComputeError: if model, batch and loss do not fit.

    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> _ = nn.init.constant_(model[0].bias, -9.0)
    >>> data = [(torch.randn(64, 8), torch.randint(3, (64,)))]
    >>> found = check(Problem(model, data=data, loss="ce"), optimizer="sgd", lr=0.1)
    >>> [(cause.id, cause.layer, cause.value) for cause in found.causes]
    [('dead_units', '0', 1.0)]
    """
    problem = problem_of(problem)
    made = of_gradients(recipe_for(problem, optimizer, lr))
    found, slope = passed(problem, seed=seed)
    found = stepped(found, problem, made, seed=seed, slope=slope)
    ranked = causes(found)
    found = replace(found, causes=ranked, confidence=ranked[0].confidence if ranked else 0.0)
    if attempt:
        try:
            found = replace(found, trial=tried(found, problem, made, seed=seed, progress=progress))
        except KeyboardInterrupt:  # the causes are known all the same
            found = replace(found, status="interrupted")
    return replace(found, findings=tuple(findings(found)))
