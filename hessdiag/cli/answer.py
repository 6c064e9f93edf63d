"""What commands have in common: load, measure, answer."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import click

from hessdiag.cli import crowding, signals
from hessdiag.cli.options import Target
from hessdiag.cli.output import Output, finish
from hessdiag.cli.progress import Telling, reporter
from hessdiag.cli.settings.spelled import argv
from hessdiag.errors import SpecError
from hessdiag.machine.ranks import ranks
from hessdiag.questions.common.provenance import Clock, collect
from hessdiag.questions.common.result import ModelSubject, Result
from hessdiag.questions.common.runs.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from hessdiag.problem.problem import Problem

R = TypeVar("R", bound=Result)


def answer_of_model(
    targets: tuple[Target, ...],
    measure: "Callable[[Problem, int, Progress], R]",
    out: Output,
    save: "Callable[[Problem, R], None] | None" = None,
    *,
    unmeasured: "Callable[[Problem], R] | None" = None,
    scripts: "dict[Path, ModuleType] | None" = None,
    costed: bool = True,
) -> int:
    """Load the one target, measure it, write the document, and give the exit code.

    Args:
        targets: What the command line asked for.
        measure: Given the problem, the seed and a function to report progress to.
        out: Where the answer goes.
        save: Given the problem and what was measured, writes the file of --save.
        unmeasured: What to answer after an interrupt that leaves nothing to be said.
        scripts: Gets the scripts that ran, for a `measure` that looks up more in them.
        costed: As for `answer`.

    Raises:
        SpecError: if there are several targets.
    """
    if len(targets) > 1:
        command = click.get_current_context().info_name
        raise SpecError(
            f"{command} takes one MODEL with one --weights; {len(targets)} were given.",
            f"hessdiag {command} once for each, with -o NAME.json",
        )
    before = crowding.reading()
    (target,) = targets
    loaded: list[Problem] = []

    def load_and_measure(progress: Progress) -> R:
        loaded.append(load(target, before, scripts))
        return measure(loaded[0], target.request["seed"], progress)

    return answer(
        load_and_measure,
        out,
        None if save is None else lambda result: save(loaded[0], result),
        unmeasured=lambda: unmeasured(loaded[0]) if unmeasured is not None and loaded else None,
        costed=costed,
    )


def load(
    target: Target, before: crowding.Reading | None = None, scripts: "dict[Path, ModuleType] | None" = None
) -> "Problem":
    """Load what was asked about; with a reading of the machine, warn where others crowd it."""
    from hessdiag.machine import processes
    from hessdiag.problem.load import Shared
    from hessdiag.shards import agreement
    from hessdiag.shards.load import load_problem
    from hessdiag.shards.problem import ShardedProblem

    processes.meet()  # before one of several may fail, so that the others hear of it
    problem = load_problem(target.load_request(), None if scripts is None else Shared(scripts))
    if not isinstance(problem, ShardedProblem):  # which was compared before it was in pieces
        agreement.same_problem(problem, agreement.DIVIDED)
    if problem.device.type == "cpu":
        crowding.warn(before)
    return problem


def answer(
    measure: Callable[[Telling], R],
    out: Output,
    save: Callable[[R], None] | None = None,
    *,
    unmeasured: Callable[[], R | None] = lambda: None,
    costed: bool = True,
) -> int:
    """Measure, write the document, and give the exit code.

    Args:
        measure: Given a function to report progress to.
        out: Where the answer goes.
        save: Given what was measured, writes the file of --save.
        unmeasured: What to answer after an interrupt that leaves nothing to be said; `None` for no answer.
        costed: Whether products of a given model are what takes time, so that the record says how many there were.
    """
    clock = Clock()
    # What the user's own code prints is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr), signals.computing(), reporter(out.progress) as progress:
        try:
            result = measure(progress)
        except KeyboardInterrupt:
            nothing = None if ranks()[1] > 1 else unmeasured()  # it asks the model, and the others are elsewhere
            if nothing is None:
                raise
            result, save = nothing, None
    _of_all()
    made = replace(
        collect(clock, result.problem, result.resumed_pieces),
        argv=argv(click.get_current_context()),
        cost=progress.ledger.as_dict() if costed and isinstance(result.problem, ModelSubject) else None,
        sharding=result.provenance.sharding,
    )
    result = replace(result, provenance=made)
    return finish(result, out, None if save is None else lambda: save(result))


def _of_all() -> None:
    """Make sure that an answer is that of all processes: a measurement may have caught that one was lost."""
    meeting = sys.modules.get("hessdiag.machine.meeting")  # of processes that have not met none is lost
    if meeting is not None:
        meeting.go_on()
