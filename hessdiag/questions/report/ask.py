"""One question of a report: asked as its command asks it, ended by the budget as by Ctrl-C, kept as its document."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from hessdiag.machine import cost
from hessdiag.problem.problem import Problem
from hessdiag.questions import documents
from hessdiag.questions.common.result import Result
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.report.steps import CURVED, OF_MOMENTS, OF_OPTIMIZER, Options, Step, words


@dataclass(frozen=True)
class Asking:
    """Of what all questions are asked.

    Attributes:
        problem: Loaded once.
        named: Its part of a command line, after the command.
        optimizer: What it is trained with; `None` where nobody said.
        lr: Its learning rate.
        seed: Of all that is random.
        report: Called with (done, total, what).
        batch_size: Samples of a batch, as the command line has them.
        scripts: Scripts of the user's that ran already.
        redrawn: Whether the problem is one of those that a seed makes, as its command line says.
        state: The file with what the optimizer had accumulated, where `optimizer` is not that file.
        moments: Whether there are second moments among that, beside which preconditioners are compared.
    """

    problem: Problem
    named: tuple[str, ...]
    optimizer: Any
    lr: float | None
    seed: int
    report: Progress
    batch_size: int | None = None
    scripts: dict[Path, ModuleType] = field(default_factory=dict)
    redrawn: bool = False
    state: str | None = None
    moments: bool = False

    def of_optimizer(self, command: str) -> dict[str, Any]:
        """What a question takes of it."""
        takes = (OF_MOMENTS if self.moments else OF_OPTIMIZER).get(command, ())
        return {name: getattr(self, name) for name in takes}

    def argv(self, step: Step, options: Options) -> tuple[str, ...]:
        """The single command that gives the same numbers."""
        own = {
            name: value if isinstance(value, (str, float)) else "OPTIMIZER"
            for name, value in self.of_optimizer(step.command).items()
            if value is not None
        }
        return ("hessdiag", step.command, *self.named, *words(own), *words(options))


@dataclass(frozen=True)
class Answer:
    """What became of a question.

    Attributes:
        document: Its whole document; `None` where it failed, or was ended before it had a number.
        argv: The single command.
        seconds: What it took.
        products: That it spent.
        error: Why it failed.
        interrupted: Whether the keyboard ended it.
        done: Share of its work that was behind it when it was ended, as it told; 0 where it told nothing.
    """

    document: dict[str, Any] | None
    argv: tuple[str, ...]
    seconds: float
    products: float
    error: Exception | None = None
    interrupted: bool = False
    done: float = 0.0


class Deadline:
    """Ends work once, as Ctrl-C would: what it has by then is a true partial result.

    Args:
        at: By `time.perf_counter`.

    Attributes:
        struck: Whether it did.
    """

    def __init__(self, at: float) -> None:
        self.at, self.struck = at, False

    def look(self) -> None:
        """End it, if it is time."""
        if not self.struck and time.perf_counter() > self.at:
            self.struck = True
            raise KeyboardInterrupt


def asked_one(asking: Asking, step: Step, options: Options, until: float) -> Answer:
    """Ask one question.

    Args:
        asking: Of what.
        step: Which.
        options: How.
        until: When it is ended, by `time.perf_counter`.
    """
    argv, deadline = asking.argv(step, options), Deadline(until)
    started = time.perf_counter()
    result: Result | None = None
    error: Exception | None = None
    stopped, shares = False, [0.0]

    def told(done: int, total: int, what: str) -> None:
        shares.append(done / total if 0 < done < total else 0.0)
        if step.command not in CURVED:  # those others are looked at after every product, where what they have is kept
            deadline.look()
        if done:
            asking.report(done, total, what)

    with cost.ledger(lambda _: deadline.look()) as spent:
        try:
            result = _measured(asking, step, options, told)
        except KeyboardInterrupt:
            stopped = True
        except Exception as failure:  # which must not lose the others
            error = failure
    seconds = time.perf_counter() - started
    cost.enter(spent.products, spent.seconds)  # in the ledger around
    stopped = stopped or (result is not None and result.interrupted)
    document = None
    if result is not None:
        made = replace(result.provenance, argv=argv, cost=spent.as_dict())
        document = documents.document(replace(result, provenance=made))
    by_keyboard = stopped and not deadline.struck
    return Answer(document, argv, seconds, spent.products, error, interrupted=by_keyboard, done=shares[-1])


def _measured(asking: Asking, step: Step, options: Options, told: Progress) -> Result:
    given: dict[str, Any] = {"seed": asking.seed, "progress": told, **options, **asking.of_optimizer(step.command)}
    if step.command in ("sharpness", "precondition"):
        given["scripts"] = asking.scripts
    if step.command == "escape":
        given["batch_size"] = asking.batch_size
    if step.command == "escape" and asking.redrawn:  # from the first seed's network alone
        one: Result = replace(step, function="escape_of").measure()(lambda seed: asking.problem, **given)
        return one
    found: Result = step.measure()(asking.problem, **given)
    return found
