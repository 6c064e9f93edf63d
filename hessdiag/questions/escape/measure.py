"""Which optimizers leave this plateau, when, and at what cost?"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from hessdiag.curvature.measurement import ensemble, measurement
from hessdiag.errors import SpecError
from hessdiag.nets.initializers import source
from hessdiag.nets.tasks.task import Task
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.described import described
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.escape import frozen as freezing
from hessdiag.questions.escape import summary
from hessdiag.questions.escape.contenders import Entrant, entrants, task_of
from hessdiag.questions.escape.effort import look_seconds
from hessdiag.questions.escape.foretold.notes import contender_notes
from hessdiag.questions.escape.foretold.plateau import GRADIENTS, plateau_of
from hessdiag.questions.escape.landscape import landscape as around
from hessdiag.questions.escape.plan import planned
from hessdiag.questions.escape.race import Race
from hessdiag.questions.escape.result import Contender, Escape, Plateau, Spent
from hessdiag.questions.escape.runs.run import Rules
from hessdiag.questions.escape.start import FEW, WATCHED, Start
from hessdiag.questions.escape.verdict import findings
from hessdiag.theory.optimizer_floors import floor_of

SEEDS, SECONDS, THRESHOLD = 3, 60.0, 0.9
FORESIGHT = 0.2  # of the time, for a look at where the runs start
LOOK = 0.01  # seconds that a look at the loss may take, by counting
ENDS = 60  # products that the ends of a spectrum take, about
GRADIENT, PRODUCT = 3.0, 7.0  # what they take, over an evaluation
NOTHING = Plateau(
    seed=0,
    loss=0.0,
    constant_loss=None,
    reference=0.0,
    gradient_norm=0.0,
    gradient_median=None,
    gradient_zeros=0.0,
)


@recorded
@measurement(less="--optimizer sgd --optimizer adam")
def escape(
    problem: Problem,
    *,
    optimizers: Any = None,
    lr: float | Mapping[str, float] | None = None,
    init: str | None = None,
    seeds: int = SEEDS,
    budget: int | None = None,
    time_budget: float = SECONDS,
    threshold: float | None = None,
    batch_size: int | None = None,
    landscape: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Escape:
    """Race optimizers off a plateau, on copies of a network.

    The network is frozen but for its weights: running statistics of BatchNorm and no dropout. Each run ends at its
    budget, or when it has been out for three times as long as that took. Learning rates are searched on the first
    network for a third of the budget each, and that cost is told apart.

    Args:
        problem: The network, its data and its loss.
        optimizers: Names or specs, see `hessdiag.optimizers.recipe`; `None` for the usual ones, or the task's.
        lr: Learning rate of all that take one, or a mapping by name; `None` to search.
        init: Draw the weights of each run's network anew by this initialization; `None` for the weights as they are.
        seeds: Runs of each optimizer: networks where they are drawn anew, and orders of samples.
        budget: Backpropagations (gradients and products with curvature) of each run; `None` for 1,000, or as many as
            there is time for, by counting.
        time_budget: Seconds for all of it. What runs then is stopped.
        threshold: Share of the reference loss below which a run is out; `None` for the task's own, or 0.9.
        batch_size: Samples in a minibatch; `None` for 128, and 512 with curvature.
        landscape: Whether to compute the loss around the first start.
        seed: Of everything random.
        progress: Called with (done, total, what).

    Raises:
        SpecError: if an optimizer, an initialization or a number is none, before anything runs.
        ComputeError: if the model cannot be copied or differentiated.

    >>> import torch
    >>> from hessdiag.nets.mlp import MLP
    >>> chain = MLP(depth=5, width=1, activation="linear")
    >>> for parameter in chain.parameters(): _ = torch.nn.init.constant_(parameter, 0.5)
    >>> one = torch.ones(1, 1).double()
    >>> found = escape(Problem(chain, data=[(one, one)], loss="mse"), optimizers="sgd", lr=0.05, threshold=0.5)
    >>> found.runs[0].outcome, found.runs[0].steps
    ('escaped', 23)
    """
    problem = problem_of(problem)
    task = task_of(problem)

    def network(number: int) -> Problem:
        return freezing.frozen(problem, init, source(seed, number) if init is not None else None)

    return _escape(
        problem,
        network,
        freezing.said(problem.model, init),
        fresh=init is not None,
        asked=(optimizers, lr, batch_size),
        limits=_limits(seeds, budget, time_budget, threshold, task),
        landscape=landscape,
        seed=seed,
        progress=progress,
    )


@recorded
@ensemble(less="--optimizer sgd --optimizer adam")
def escape_of(
    build: Callable[[int], Problem],
    *,
    optimizers: Any = None,
    lr: float | Mapping[str, float] | None = None,
    seeds: int = SEEDS,
    budget: int | None = None,
    time_budget: float = SECONDS,
    threshold: float | None = None,
    batch_size: int | None = None,
    landscape: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Escape:
    """The same for networks that a function of the seed makes, each with its own data.

    Args:
        build: Gives the problem of a seed: `seed`, `seed + 1`, ...
        optimizers: As in `escape`, and so are the others.
        lr: Learning rates.
        seeds: How many networks.
        budget: Backpropagations of each run.
        time_budget: Seconds for all of it.
        threshold: Share of the reference loss.
        batch_size: Samples in a minibatch.
        landscape: Whether to compute the loss around the first start.
        seed: Of the first network.
        progress: Called with (done, total, what).
    """
    first = build(seed)

    def network(number: int) -> Problem:
        return freezing.frozen(build(seed + number) if number else first)

    return _escape(
        first,
        network,
        freezing.said(first.model, None),
        fresh=True,
        asked=(optimizers, lr, batch_size),
        limits=_limits(seeds, budget, time_budget, threshold, task_of(first)),
        landscape=landscape,
        seed=seed,
        progress=progress,
    )


@dataclass(frozen=True)
class _Limits:
    """Numbers that bound a race."""

    seeds: int
    budget: int | None
    seconds: float
    threshold: float


def _limits(seeds: int, budget: int | None, seconds: float, threshold: float | None, task: Task) -> _Limits:
    level = threshold if threshold is not None else task.level if task.level is not None else THRESHOLD
    if seeds < 1:
        raise SpecError(f"--seeds must be at least 1, not {seeds}.", f"--seeds {SEEDS}")
    if budget is not None and budget < 1:
        raise SpecError(f"--budget must be at least 1, not {budget}.", "--budget 1000")
    if not 0 < level < 1:
        raise SpecError(f"--threshold is a share between 0 and 1, not {level:g}.", f"--threshold {THRESHOLD}")
    if not seconds > 0:
        raise SpecError(f"--time-budget must be positive, not {seconds:g}.", f"--time-budget {SECONDS:g}")
    return _Limits(seeds, budget, seconds, level)


def _escape(
    subject: Problem,
    network: Callable[[int], Problem],
    frozen: tuple[str, ...],
    *,
    fresh: bool,
    asked: tuple[Any, Any, int | None],
    limits: _Limits,
    landscape: bool,
    seed: int,
    progress: Progress,
) -> Escape:
    """The race, on networks by their number."""
    deadline = time.monotonic() + limits.seconds
    task = task_of(subject)
    problem = network(0)
    wanted = entrants(problem, *asked)
    start = _start(problem, seed, task, limits)
    plan = planned(
        start, wanted, task.order, seeds=limits.seeds, fresh=fresh, budget=limits.budget, seconds=limits.seconds
    )
    rules = Rules(plan.budget, task.order, _steps(subject, task), task.score, deadline, seed)
    race = Race(plan, rules, progress)
    plateaus = [start.plateau]
    seen = around(start.problem, seed=seed) if landscape else None
    try:
        race.on(start, 0)
        for number in range(1, max(plan.seeds.values())):
            if race.interrupted or time.monotonic() > deadline:
                break
            if fresh:
                start = _start(network(number), seed + number, task, limits)
                plateaus.append(start.plateau)
            race.on(start, number)
    except KeyboardInterrupt:
        if not race.runs:
            raise
        race.interrupted = True
    if not race.runs:
        raise KeyboardInterrupt
    measured = Escape(
        status="interrupted" if race.interrupted else "ok",
        problem=described(subject.like(notes=(*subject.notes, *task.said))),
        threshold=limits.threshold,
        budget=plan.budget,
        named=asked[0] is not None,
        escaped=sum(run.escaped for run in race.runs) / len(race.runs),
        score_window=task.score,
        plateaus=tuple(plateaus),
        contenders=_contenders(race, plateaus, str(subject.dtype).removeprefix("torch.")),
        runs=tuple(race.runs),
        landscape=seen,
        frozen=frozen,
        too_slow=(*plan.too_slow, *race.late),
    )
    return replace(measured, findings=tuple(findings(measured)))


def _start(problem: Problem, seed: int, task: Task, limits: _Limits) -> Start:
    """A network with its plateau, as far as there is time to look at that."""
    bare = Start(problem, seed, NOTHING, task.floor, limits.threshold)
    look = look_seconds(bare)
    most = WATCHED if look <= LOOK else max(FEW, int(bare.watched.samples * LOOK / look))
    look *= problem.n_samples / bare.watched.samples
    foreseen = task.score is None  # what is compared by its losses leaves no plateau, and nothing is foretold of it
    granted = FORESIGHT * limits.seconds / limits.seeds if foreseen else 0.0
    plateau = plateau_of(
        problem,
        seed=seed,
        floor=task.floor,
        spectrum=ENDS * PRODUCT * look <= granted,
        gradients=min(GRADIENTS, int(granted / (GRADIENT * look))),
        threshold=limits.threshold,
        deadline=time.monotonic() + granted,
    )
    return replace(bare, plateau=plateau, most=most)


def _steps(problem: Problem, task: Task) -> int | None:
    """How many each run takes, where the task says so."""
    if task.order == "stream":
        return len(problem.data) if task.steps is None else min(task.steps, len(problem.data))
    return task.steps


def _contenders(race: Race, plateaus: Sequence[Plateau], dtype: str) -> tuple[Contender, ...]:
    """The optimizers in the order of their escapes; by their score, where that is compared."""
    ran = [entrant for entrant in race.plan.entrants if entrant.name in race.chosen]
    found = [_contender(race, entrant, plateaus, dtype) for entrant in ran]

    def key(one: Contender) -> tuple[float, float, float]:
        own = [run for run in race.runs if run.optimizer == one.optimizer]
        scores = [math.inf if run.score is None else run.score for run in own]
        score = sum(scores) / len(scores) if scores and race.rules.score is not None else 0.0
        ends = [run.final_loss if run.final_loss is not None else math.inf for run in own]
        return score, one.backprops if one.backprops is not None else math.inf, median(ends) if ends else math.inf

    return tuple(sorted(found, key=key))


def _contender(race: Race, entrant: Entrant, plateaus: Sequence[Plateau], dtype: str) -> Contender:
    own = [run for run in race.runs if run.optimizer == entrant.name]
    settings = own[0].settings if own else {}
    epsilon = settings.get("eps")
    floor = floor_of(entrant.title, epsilon=epsilon if isinstance(epsilon, float) else None, dtype=dtype)
    named = entrant.title if ":" in entrant.name else entrant.name
    return Contender(
        optimizer=entrant.name,
        kind=entrant.kind,
        settings=settings,
        searched=race.tried.get(entrant.name, ()),
        search=race.search.get(entrant.name, Spent()),
        escaped=sum(run.escaped for run in own),
        runs=len(own),
        backprops=summary.median(run.backprops for run in own if summary.ended(run)),
        floor=floor.floor if floor is not None and 0 < floor.floor < math.inf else None,
        notes=contender_notes(named, settings, plateaus, dtype),
    )
