"""A cure, tried: the network as it is and a mended copy, trained side by side for a short while."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from hessdiag.errors import ComputeError, HessdiagError
from hessdiag.machine.shortage import ran_out
from hessdiag.optimizers.recipe import Recipe
from hessdiag.problem.copies import copied
from hessdiag.problem.evaluation import privately
from hessdiag.problem.measuring import measuring
from hessdiag.problem.problem import Problem
from hessdiag.problem.seeds import sow
from hessdiag.questions.check.comparison import Outcome, compared
from hessdiag.questions.check.cures.choice import cures_of
from hessdiag.questions.check.cures.cure import Cure, Setup
from hessdiag.questions.check.effort import affordable, step_seconds
from hessdiag.questions.check.result import Check, Trial
from hessdiag.questions.check.training import FEWEST, SECONDS, STEPS, trained
from hessdiag.questions.common.runs.progress import Progress

_FAILURES = (HessdiagError, RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError)


@dataclass(frozen=True)
class _Race:
    """What all runs of a trial have in common."""

    found: Check
    problem: Problem
    recipe: Recipe
    seed: int
    progress: Progress

    def setup(self) -> Setup:
        """A copy of everything that training or a cure changes."""
        problem = self.problem
        model = copied(problem.model)
        if model is None:
            raise ComputeError("the model cannot be copied.")
        model.zero_grad(set_to_none=True)
        if problem.train_mode:
            model.train()
        kind = problem.criterion.kind if problem.criterion is not None else None
        return Setup(model, tuple(problem.data), problem.objective_function, self.recipe, kind=kind)

    @cached_property
    def steps(self) -> int:
        """How many there is time for in each run."""
        return max(FEWEST, affordable(SECONDS, step_seconds(self.found, self.problem), STEPS))

    def run(self, setup: Setup, number: int) -> Outcome:
        """Train a setup: run `number` of at least two."""

        def tell(done: int, planned: int) -> None:
            what = "training it with a cure" if number else "training it as it is"
            self.progress(number * planned + done, max(number + 1, 2) * planned, what)

        return trained(setup, self.problem.batch_weights, seed=self.seed, steps=self.steps, tell=tell)


def tried(found: Check, problem: Problem, recipe: Recipe, *, seed: int, progress: Progress) -> Trial | None:
    """Train the network as it is, and a copy with the cure; up to three cures of the first cause, until one helps.

    The user's objects stay as they are. All runs take the same samples in the same order with the same random numbers,
    300 steps or what there is time for.

    Args:
        found: What was read off the network, and its causes.
        problem: The network, its data and its loss.
        recipe: The optimizer.
        seed: Of all runs.
        progress: Told of every step.

    Returns:
        The cure that helped, or else the one that came closest; `None` where the first cause has none that could be
        done outside the user's own code, and where the network could not be trained at all.
    """
    if not found.causes:
        return None
    race = _Race(found, problem, recipe, seed, progress)
    with measuring(problem.device), privately.own_draws(problem.device, seed):
        try:
            return _first_that_helps(race)
        except _FAILURES as error:
            if ran_out(error):
                raise
            return None


def _first_that_helps(race: _Race) -> Trial | None:
    cures = cures_of(race.found, race.found.causes[0], race.setup())
    if not cures:
        return None
    before = race.run(cures[0].judged(race.setup()), 0)
    best: Trial | None = None
    for number, cure in enumerate(cures, 1):
        try:
            trial = _tried(race, cure, before, number)
        except _FAILURES as error:
            if ran_out(error):
                raise
            continue
        if trial.helped:
            return trial
        if best is None or _final(trial) < _final(best):
            best = trial
    return best


def _tried(race: _Race, cure: Cure, before: Outcome, number: int) -> Trial:
    """Train with one cure, and compare."""
    cause, output = race.found.causes[0], race.found.output
    sow(race.seed, race.problem.device)
    mended = cure.apply(race.setup())
    state = mended_state(cure, mended)
    after = race.run(mended, number)
    helped, because = compared(before, after, output.chance if output is not None else None, race.steps)
    return Trial(
        cure=cure.name,
        cause=cause.id,
        layer=cause.layer,
        says=cure.says,
        code=cure.code,
        optimizer=race.recipe.name,
        steps=race.steps,
        before=before.run,
        after=after.run,
        helped=helped,
        because=because,
        mended=state,
    )


def mended_state(cure: Cure, mended: Setup) -> Mapping[str, Tensor] | None:
    """The state of a model that was mended and not trained yet, on the CPU; `None` where none of it changed."""
    if not cure.weights:
        return None
    cure.settle(mended)
    return {name: value.detach().cpu().clone() for name, value in mended.model.state_dict().items()}


def _final(trial: Trial) -> float:
    final = trial.after.final
    return final if final is not None and math.isfinite(final) else math.inf
