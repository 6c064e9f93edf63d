"""What is there to know about this model? Questions asked one after the other, while the budget lasts."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import HessdiagError, LoadError, SpecError
from hessdiag.machine import cost, processes
from hessdiag.machine.once import sharing
from hessdiag.numbers import listed, number, short
from hessdiag.optimizers.preconditioning import preconditioning
from hessdiag.optimizers.saved import recipe_for
from hessdiag.problem.files.optimizer_states import is_file
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.described import described
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Status
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import running_statistics
from hessdiag.questions.report.ask import Answer, Asking, Deadline, asked_one
from hessdiag.questions.report.asked import budget_of
from hessdiag.questions.report.keys import key_numbers
from hessdiag.questions.report.pace import Pace, Sizes, first_pace, pace, sizes
from hessdiag.questions.report.plan import Chosen, Plan, better, planned
from hessdiag.questions.report.plateau import no_plateau
from hessdiag.questions.report.prices import prices
from hessdiag.questions.report.result import NotAnswered, Preset, Report, Section
from hessdiag.questions.report.steps import CURVED, REDRAWN, STEPS, Step, reading_order, step
from hessdiag.questions.report.verdict import findings
from hessdiag.shards.problem import ShardedProblem

OVER = 1.1  # of the budget: where a section is ended that takes longer than announced
TELLING = 0.2  # of its work: from there on the time that a question took tells what all of it takes
MOST_DRIFT = 4.0  # times as much as announced: as much is believed of the machine
BUILT_ANEW = {
    "vanishing": "it compares networks of several depths, not one: MODEL as 'builtin:mlp(depth={depth})'",
    "transfer": "it compares networks of several widths, not one: MODEL as 'builtin:mlp(width={width})'",
}


def full_report(
    problem: Problem | HessianOperator,
    *,
    preset: Preset = "normal",
    budget: float | str | None = None,
    optimizer: Any = None,
    lr: float | None = None,
    state: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Ask of a problem every question that applies to it, in the time that there is.

    What it takes is announced from a few timed products. Questions that tell most for their price come first; where
    time is short they get cheaper options, or are left out with what they would take. Each section is the document of
    the single command with these options, number for number.

    Args:
        problem: A model, its data and its loss.
        preset: "quick" (20 seconds, fewer rows and probes), "normal" (a minute) or "full" (no limit).
        budget: Seconds for all questions together, instead of the preset's: 60, "2min", "none".
        optimizer: What the model is trained with, as `check` and `sharpness` take it.
        lr: Its learning rate.
        state: "ckpt.pt#optimizer", what it had accumulated, as `sharpness` takes it; `precondition` compares its second
            moments.
        seed: Of all that is random.
        progress: Called with (done, total, what).

    Returns:
        The report; after a keyboard interrupt, of the questions that were answered.

    Raises:
        SpecError: if there is no such preset, budget or optimizer, or the problem is spread over processes.
        HessdiagError: what the first question says, if none can be answered.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> data = [(torch.randn(16, 4), torch.randn(16, 1))]
    >>> found = full_report(Problem(model, data=data, loss="mse"), preset="quick")
    >>> [section.command for section in found.sections][:3]
    ['check', 'sharpness', 'eigs']
    """
    named = ("MODEL", *(("--seed", str(seed)) if seed else ()))
    asking = Asking(problem_of(problem), named, optimizer, lr, seed, progress or silent, state=state)
    return report_of(asking, preset, budget)


@recorded
def report_of(asking: Asking, preset: Preset = "normal", budget: float | str | None = None) -> Report:
    """The same, with what a command line knows beside the problem."""
    seconds = budget_of(preset, budget)
    if isinstance(asking.problem, ShardedProblem) or processes.together():
        raise SpecError(
            "a report plans by the clock of one process, and takes no problem that several share.",
            "hessdiag report MODEL without torchrun, or each question by itself, as hessdiag eigs MODEL",
        )
    asking = _with_optimizer(asking)
    run = _Run(asking, seconds, quick=preset == "quick")
    try:
        with sharing():
            run.all()
    except KeyboardInterrupt:
        if not run.sections:
            raise
        run.interrupt()
    if not run.sections:
        raise run.errors[0]
    return _assembled(run, preset)


def _with_optimizer(asking: Asking) -> Asking:
    """With what is known of the optimizer: a typing error is said at once, and not by some question later on.

    Raises:
        SpecError: if there is no such optimizer.
        LoadError: if a file does not hold its state.
    """
    if asking.optimizer is None and asking.state is not None:  # which tells its class
        asking = replace(asking, optimizer=asking.state, state=None)
    recipe_for(asking.problem, asking.optimizer, asking.lr, asking.scripts)
    if asking.state is None and not (isinstance(asking.optimizer, str) and is_file(asking.optimizer)):
        return asking
    try:
        seen = preconditioning(asking.problem, asking.optimizer, asking.lr, state=asking.state, scripts=asking.scripts)
    except (SpecError, LoadError):
        raise
    except HessdiagError:  # of the loss, as `check` says
        return asking
    return replace(asking, moments=seen.diagonal is not None and not seen.plain)


@dataclass
class _Run:
    """A report as it comes to be.

    Attributes:
        asking: Of what.
        budget: Seconds in all.
        quick: Whether no question gets its command's own, dearest options.
        started: By the clock.
        sections: Answered.
        left: Not answered.
        errors: Why, where questions failed.
        products: Spent.
        announced: Seconds that questions with products were to take, those that are over.
        spent: What they took.
        interrupted: By the keyboard.
        waiting: Questions that are still to be asked, in that order.
        rungs: Of those that are answered, with which of their options.
    """

    asking: Asking
    budget: float
    quick: bool
    started: float = field(default_factory=time.perf_counter)
    sections: list[Section] = field(default_factory=list)
    left: dict[str, NotAnswered] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    products: float = 0.0
    announced: float = 0.0
    spent: float = 0.0
    interrupted: bool = False
    waiting: dict[str, Step] = field(default_factory=dict)
    rungs: dict[str, int] = field(default_factory=dict)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.started

    @property
    def drift(self) -> float:
        """What was spent over what was announced, where that was more."""
        return min(max(self.spent / self.announced, 1.0), MOST_DRIFT) if self.announced else 1.0

    @property
    def remaining(self) -> float:
        """Seconds of the budget."""
        return self.budget - self.elapsed

    def all(self) -> None:
        """Ask what fits, anew after each answer; then, with the time that was gained, better what was asked cheaply."""
        self.waiting = {one.command: self._rungs(one) for one in STEPS}
        self._ask(Chosen("check", 0, 0.0), math.inf, known=False)
        self._without()
        size, known = self._paced()
        while self.waiting:
            each = prices(self.waiting, known, size, self.drift)
            plan = planned(each, self.remaining)
            if not plan.chosen:
                self._too_dear(plan.dear)
                break
            later = sum(each[one.command][0] for one in plan.chosen[1:])
            self._tell(plan)
            self._ask(plan.chosen[0], OVER * self.budget - later)
        self.waiting = {}
        while (one := self._better(known, size)) is not None:
            self.asking.report(0, 1, f"{one.command} again, better: about {number(one.seconds, 2)} s")
            self._ask_again(one)

    def _better(self, known: Pace, size: Sizes) -> Chosen | None:
        """What there is time for once more."""
        asked = {one.command: one for one in STEPS if one.command in self.rungs}
        steps = {command: self._rungs(one) for command, one in asked.items()}
        return better(prices(steps, known, size, self.drift), self.rungs, self.remaining)

    def _tell(self, plan: Plan) -> None:
        """What is planned, at first; then what comes next."""
        one, more = plan.chosen[0], listed([later.command for later in plan.chosen[1:]], 12)
        text = f"{one.command}, about {number(one.seconds, 2)} s"
        if not self.announced:
            text += f"; then {more}, about {number(plan.seconds, 2)} s in all" * bool(more)
            text += f"; no time for {listed(list(plan.dear), 12)}" * bool(plan.dear)
        self.asking.report(0, 1, text)

    def interrupt(self) -> None:
        """Note what was not reached."""
        self.interrupted = True
        for command, one in self.waiting.items():
            self.left[command] = NotAnswered(command=command, why="interrupted before", argv=self.asking.argv(one, {}))

    def _rungs(self, one: Step) -> Step:
        return replace(one, rungs=one.rungs[:-1]) if self.quick and len(one.rungs) > 1 else one

    def _without(self) -> None:
        """What does not apply to this model, and what is the last thing to know of it."""
        for command, takes in BUILT_ANEW.items():
            self.left[command] = NotAnswered(command=command, why=takes)
        check = self.sections[0].document["result"] if self.sections else None
        if "escape" in self.waiting and (why := no_plateau(check)) is not None:
            argv = self.asking.argv(self.waiting.pop("escape"), {})
            self.left["escape"] = NotAnswered(command="escape", why=why, argv=argv)
        if REDRAWN in self.waiting and check is not None and check["trained"]:
            self.waiting[REDRAWN] = self.waiting.pop(REDRAWN)

    def _paced(self) -> tuple[Sizes, Pace]:
        """What prices hang on. Where there is no Hessian, questions about it are off the list."""
        problem = self.asking.problem
        found: Pace | None = None
        try:
            found = first_pace(problem, self.remaining)
            if found.checked > self.remaining:
                return sizes(problem, looked_at=False), found
            left = self.remaining - found.checked
            if (timed := self._timed(found, left)) is None:
                return sizes(problem, looked_at=False), found
            return sizes(problem, looked_at=True), timed
        except HessdiagError as error:
            for command in [one for one in CURVED if one in self.waiting]:
                self._fails(self.waiting.pop(command), error)
            return sizes(problem, looked_at=False), found or Pace(0.0, 0.0, 0.0, 0.0, 0.0)

    def _timed(self, first: Pace, left: float) -> Pace | None:
        """The pace of products, after the check of the point; `None` where the budget ended that."""
        over = Deadline(self.started + OVER * self.budget)
        with cost.ledger(lambda _: over.look()) as spent:
            try:
                return pace(self.asking.problem, first, self.asking.seed, left)
            except KeyboardInterrupt:
                if not over.struck:
                    raise
                return None
            finally:
                self._spend(spent)

    def _spend(self, spent: cost.Ledger) -> None:
        """Count products, in the ledger around, too."""
        self.products += spent.products
        cost.enter(spent.products, spent.seconds)

    def _ask(self, one: Chosen, until: float, *, known: bool = True) -> None:
        asked = self.waiting[one.command]
        answer = asked_one(self.asking, asked, asked.rungs[one.rung], self.started + until)
        del self.waiting[one.command]
        self.products += answer.products
        if known:
            self.announced += one.seconds
            self.spent += answer.seconds
        if answer.error is not None:
            self._fails(asked, answer.error)
        elif answer.document is None:
            ended = "interrupted" if answer.interrupted else f"the budget ended it after {short(answer.seconds)},"
            why, argv = f"{ended} before it had a number", self.asking.argv(asked, asked.rungs[one.rung])
            whole = None if answer.interrupted else self._whole(one, answer)
            self.left[one.command] = NotAnswered(command=one.command, why=why, seconds=whole, argv=argv)
        else:
            self.sections.append(self._section(one, answer, announced=one.seconds if known else None))
            if known and answer.document["status"] != "interrupted":
                self.rungs[one.command] = one.rung
        if answer.interrupted:
            raise KeyboardInterrupt

    def _ask_again(self, one: Chosen) -> None:
        """Put a better answer in the place of one that is there, if it comes to its end."""
        asked = step(one.command)
        answer = asked_one(self.asking, asked, asked.rungs[one.rung], self.started + OVER * self.budget)
        del self.rungs[one.command]
        self.products += answer.products
        if answer.document is not None and answer.document["status"] != "interrupted":
            place = next(index for index, section in enumerate(self.sections) if section.command == one.command)
            self.sections[place] = self._section(one, answer, announced=one.seconds)
        if answer.interrupted:
            raise KeyboardInterrupt

    def _whole(self, one: Chosen, answer: Answer) -> float:
        """Seconds to the end of what the budget ended: by what it told of its progress, or else by its price."""
        told = answer.seconds / answer.done if answer.done >= TELLING else 0.0
        return max(told or self.drift * one.seconds, answer.seconds)

    def _section(self, one: Chosen, answer: Answer, announced: float | None) -> Section:
        assert answer.document is not None
        cut = answer.document["status"] == "interrupted" and not answer.interrupted
        return Section(
            command=one.command,
            argv=answer.argv,
            announced_seconds=announced,
            seconds=answer.seconds,
            whole_seconds=self._whole(one, answer) if cut else None,
            document=answer.document,
        )

    def _fails(self, one: Step, error: Exception) -> None:
        self.errors.append(error)
        why = error.what if isinstance(error, HessdiagError) else f"it failed: {type(error).__name__}: {error}"
        argv = () if isinstance(error, SpecError) else self.asking.argv(one, {})
        self.left[one.command] = NotAnswered(command=one.command, why=why, argv=argv)

    def _too_dear(self, dear: Mapping[str, float]) -> None:
        left = max(self.budget - self.elapsed, 0.0)
        for command, seconds in dear.items():
            one = self.waiting[command]
            why = f"there was no time: {number(left, 2)} s of the budget were left"
            argv = self.asking.argv(one, one.rungs[0])
            self.left[command] = NotAnswered(command=command, why=why, seconds=seconds, argv=argv)


def _assembled(run: _Run, preset: Preset) -> Report:
    sections = tuple(sorted(run.sections, key=lambda section: reading_order(section.command)))
    trusted = all(section.trusted for section in sections)
    status: Status = "interrupted" if run.interrupted else "ok" if trusted else "inexact"
    subject = described(run.asking.problem)
    found = Report(
        status=status,
        problem=subject,
        preset=preset,
        budget_seconds=None if run.budget == math.inf else run.budget,
        seconds=run.elapsed,
        products=round(run.products),
        sections=sections,
        left_out=tuple(sorted(run.left.values(), key=lambda one: reading_order(one.command))),
        key_numbers=key_numbers(sections, limits=not running_statistics(subject)),
    )
    return replace(found, findings=tuple(findings(found)))
