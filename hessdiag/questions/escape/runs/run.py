"""One run: an optimizer on a copy of one network, until it is out, dead, diverged or at the end of its budget."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import said
from hessdiag.machine.shortage import ran_out
from hessdiag.optimizers.closure import ClosureOptimizer
from hessdiag.optimizers.joint import Jointly
from hessdiag.optimizers.recipe import settings_of
from hessdiag.optimizers.step import Step
from hessdiag.questions.escape.contenders import Entrant
from hessdiag.questions.escape.frozen import training
from hessdiag.questions.escape.result import Outcome, Region, Run, Settings
from hessdiag.questions.escape.runs.counting import Tally
from hessdiag.questions.escape.runs.draws import Order, draws
from hessdiag.questions.escape.runs.looks import Looks, way
from hessdiag.questions.escape.runs.stability import StabilityLooks
from hessdiag.questions.escape.runs.stepping import NeedsGraphError, Take, along_gradients, by_itself
from hessdiag.questions.escape.runs.watch import Watch, shown
from hessdiag.questions.escape.start import Start

AFTERWARDS, SHORTEST = 4, 200  # a run that is out goes on to 4 times what that took, and to 200 backpropagations
SOLVED = 1e-12  # of the level that counts as out: nothing is left of the loss
UNTRUSTED = 0.25  # of rho, below which the quadratic model told less than a quarter of the truth
Tell = Callable[[int], None]  # how many backpropagations are done


@dataclass(frozen=True)
class Rules:
    """What all runs of a race have in common.

    Attributes:
        budget: Backpropagations of each run.
        order: Of samples.
        steps: Of each run, where the task says so: then it goes on to the end.
        score: Shares of the steps over whose losses the mean is taken; `None` where that is not compared.
        deadline: When the time is over that was granted, by `time.monotonic`.
        seed: Of the first run.
        stability: Whether to look at how near a run is to what its optimizer stands.
    """

    budget: int
    order: Order = "shuffled"
    steps: int | None = None
    score: tuple[float, float] | None = None
    deadline: float = math.inf
    seed: int = 0
    stability: bool = True


@dataclass
class Course:
    """How far one run is.

    Attributes:
        start: Where it started.
        rules: Of the race.
        watch: What was seen.
        tally: What it cost.
        told: What each step of an optimizer of this package did.
        losses: Of all steps, where a score is asked for.
        outcome: How it ended; `None` as long as it has not.
        notes: Why it ended.
        settings: Of the optimizer.
        zero: How often in a row no gradient was found.
        stability: Looks at the curvature; `None` where there are none.
    """

    start: Start
    rules: Rules
    watch: Watch
    tally: Tally = field(default_factory=Tally)
    told: list[Step] = field(default_factory=list)
    losses: list[Tensor | float] = field(default_factory=list)
    outcome: Outcome | None = None
    notes: list[str] = field(default_factory=list)
    settings: Settings = field(default_factory=dict)
    zero: int = 0
    stability: StabilityLooks | None = None

    def over(self) -> bool:
        """Whether nothing more is to be done."""
        if self.outcome is not None:
            return True
        steps, spent = self.rules.steps, self.tally.backprops
        if steps is not None:
            return self.tally.steps >= steps
        out = self.watch.escaped
        enough = out is not None and out.since is not None and spent >= max(AFTERWARDS * out.since.backprops, SHORTEST)
        return spent >= self.rules.budget or enough

    def judge(self, model: nn.Module) -> None:
        """After a look: whether the run has ended."""
        if self.watch.diverged:
            self.outcome = "diverged"
            self.notes.append(f"the loss was {self.watch.last:.3g} after {self.tally.steps} steps")
        elif self.watch.unchanged and not self.watch.unchanged & (self.watch.unchanged - 1):  # 1, 2, 4, 8 looks
            at_rest = self.watch.last <= SOLVED * self.watch.levels[0].loss  # a minimum has no gradient either
            self.zero = 0 if at_rest or self.start.moves(model) else self.zero + 1
            if self.zero >= 2:
                self.outcome = "dead"
                self.notes.append(f"every entry of the gradient is exactly 0 after {self.tally.steps} steps")
        elif not self.watch.unchanged:
            self.zero = 0


def run(
    start: Start, entrant: Entrant, rules: Rules, number: int, tell: Tell = lambda backprops: None
) -> tuple[Run, bool]:
    """Let one optimizer run.

    Args:
        start: The network; it is left alone.
        entrant: The optimizer.
        rules: Of the race.
        number: Of the run among those of this optimizer: the order of samples hangs on it.
        tell: Told how many backpropagations are done.

    Returns:
        The run, and whether an interrupt ended it.
    """
    try:
        return _run(start, entrant, rules, number, tell, graph=False)
    except NeedsGraphError:
        return _run(start, entrant, rules, number, tell, graph=True)


def _run(start: Start, entrant: Entrant, rules: Rules, number: int, tell: Tell, *, graph: bool) -> tuple[Run, bool]:
    interrupted = False
    watch = Watch([], start.problem.n_samples, rules.budget)
    course = Course(start, rules, watch)
    with training(start.problem, rules.seed + number) as model:
        try:
            _go(course, entrant, model, number, tell, graph)
        except NeedsGraphError:
            raise
        except KeyboardInterrupt:
            interrupted = True
            course.outcome = "stopped"
            course.notes.append("interrupted")
        except Exception as error:
            course.outcome = "stopped" if ran_out(error) else "diverged"
            course.notes.append(f"after {course.tally.steps} steps it failed: {said(error)}")
    return _result(course, entrant, rules, number), interrupted


def _go(course: Course, entrant: Entrant, model: nn.Module, number: int, tell: Tell, graph: bool) -> None:
    """Step until the run is over."""
    start, rules, watch, tally = course.start, course.rules, course.watch, course.tally
    first = start.loss(model)
    watch.levels[:] = start.levels(first)
    if rules.order != "stream":  # all of a stream at once is no loss that a step sees
        watch.see(first, tally)
    optimizer = entrant.recipe.build(model, [name for name, _ in start.problem.named_parameters])
    course.settings = _settings(entrant, optimizer)
    if isinstance(optimizer, Jointly):
        course.notes.append(optimizer.said)
    take = taking(start, entrant, model, optimizer, tally, course.told, graph=graph)
    how = way(start, entrant, optimizer, rules.order)
    if how == "exact":
        for level in watch.levels:
            level.held = 1  # nothing is drawn: what is below is out
    looks = Looks(start, model, optimizer, watch, tally, how)
    stability = StabilityLooks(start, entrant, model, optimizer) if rules.stability else None
    course.stability = stability
    if stability is not None:
        stability.look(watch, tally)
        looks.resume()
    for draw in draws(start.problem, entrant.samples, rules.order, rules.seed + number):
        loss, looked = looks.step(take, draw)
        if rules.score is not None:
            course.losses.append(loss)
        if looked:
            course.judge(model)
            if stability is not None and course.outcome is None:
                stability.look(watch, tally, last=course.over())
            tell(tally.backprops)
            looks.resume()
        if course.over():
            break
        if time.monotonic() > rules.deadline:
            course.outcome = "stopped"
            course.notes.append("the time that was granted was over")
            break
    if course.outcome != "diverged":
        looks.close()


def taking(
    start: Start,
    entrant: Entrant,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tally: Tally,
    told: list[Step],
    *,
    graph: bool = False,
) -> Take:
    """What takes one step of an entrant, and enters what it cost and did."""
    if isinstance(optimizer, ClosureOptimizer):
        return by_itself(start.problem, model, optimizer, tally, output=entrant.output, told=told)
    return along_gradients(start.problem, model, optimizer, tally, graph=graph)


def _settings(entrant: Entrant, optimizer: torch.optim.Optimizer) -> Settings:
    own: dict[str, Any] = dict(entrant.recipe.known) if entrant.recipe.own is not None else dict(settings_of(optimizer))
    plain = {key: value if isinstance(value, (int, float, str, bool)) else str(value) for key, value in own.items()}
    return {**plain, "batch": entrant.samples}


def _result(course: Course, entrant: Entrant, rules: Rules, number: int) -> Run:
    watch, tally = course.watch, course.tally
    out = watch.escaped if watch.levels else None
    since = out.since if out is not None else None
    if out is not None and since is not None and course.outcome in ("dead", "diverged") and not watch.last <= out.loss:
        course.notes.append(f"it was out after {since.steps} steps, and did not stay there")
        since = None
    losses, at = watch.thinned()
    last = float(watch.last)
    return Run(
        optimizer=entrant.name,
        seed=rules.seed + number,
        settings=course.settings,
        outcome=_outcome(course.outcome, since is not None),
        escaped=since is not None,
        steps=None if since is None else since.steps,
        backprops=None if since is None else since.backprops,
        epochs=None if since is None else since.epochs,
        sample_passes=None if since is None else since.sample_passes,
        seconds=None if since is None else since.seconds,
        milestones=watch.milestones(),
        spent=tally.spent(watch.samples),
        loss=losses,
        at=at,
        final_loss=last,
        best_loss=watch.best if math.isfinite(watch.best) else None,
        score=_score(course.losses, rules),
        region=_region(course.told),
        stability=None if course.stability is None else course.stability.found,
        notes=(*course.notes, *_unlooked(course)),
    )


def _unlooked(course: Course) -> tuple[str, ...]:
    why = course.stability.why if course.stability is not None else ""
    return (f"how near it is to turning unstable was not measured: {why}",) if why else ()


def _outcome(ended: Outcome | None, escaped: bool) -> Outcome:
    """How a run went: out is out, unless that did not last."""
    if ended in (None, "stopped") and escaped:
        return "escaped"
    return ended or "stuck"


def _score(losses: Sequence[Tensor | float], rules: Rules) -> float | None:
    """Mean loss over the window of steps; `None` where the run did not come through it."""
    if rules.score is None or rules.steps is None:
        return None
    start, stop = (round(share * rules.steps) for share in rules.score)
    inside = [float(loss) for loss in losses[start:stop]]
    return sum(inside) / len(inside) if inside and len(losses) >= stop else None


def _region(told: Sequence[Step]) -> Region | None:
    """How the region or the damping went; `None` where there is none."""
    if not any(step.rho is not None for step in told):
        return None
    spent, done = [], 0
    for step in told:
        done += step.backpropagations
        spent.append(done)
    rhos = [step.rho for step in told if step.rho is not None]
    kept = shown(len(told))
    return Region(
        backprops=tuple(spent[index] for index in kept),
        radius=tuple(told[index].radius if told[index].radius is not None else told[index].damping for index in kept),
        rho=tuple(told[index].rho for index in kept),
        exits=dict(Counter(step.exit for step in told)),
        rejected=sum(not step.accepted for step in told),
        untrusted=sum(rho < UNTRUSTED for rho in rhos) / len(rhos),
    )
