"""What commands that measure one problem have in common: load, measure, answer."""

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hessdiag.cli import crowding, signals
from hessdiag.cli.options import Target
from hessdiag.cli.output import Output, finish
from hessdiag.cli.progress import Reporter, reporter
from hessdiag.cli.provenance import Clock, collect
from hessdiag.errors import SpecError
from hessdiag.report.document import document

if TYPE_CHECKING:
    from hessdiag.problem.problem import Problem


class Measurement(Protocol):
    """The parts of a document that a diagnostic gives."""

    @property
    def status(self) -> str:
        """One of "ok", "inexact" and "interrupted"."""

    @property
    def theory(self) -> Mapping[str, Any] | None:
        """What closed forms predict."""

    @property
    def checks(self) -> Mapping[str, Any]:
        """Self-checks by name."""

    @property
    def thresholds(self) -> Mapping[str, float]:
        """What they allow."""

    @property
    def verdict(self) -> list[dict[str, str]]:
        """The findings."""

    def to_result(self) -> dict[str, Any]:
        """The command's own numbers."""


M = TypeVar("M", bound=Measurement)


def answer(
    command: str,
    targets: tuple[Target, ...],
    measure: "Callable[[Problem, int, Reporter], M]",
    out: Output,
    save: "Callable[[Problem, int, M], None] | None" = None,
    *,
    unmeasured: "Callable[[Problem], M] | None" = None,
) -> int:
    """Load the one target, measure it, write the document, and give the exit code.

    Args:
        command: Name of the command.
        targets: What the command line asked for.
        measure: Given the problem, the seed and a function to report progress to.
        out: Where the answer goes.
        save: Given the problem, the seed and what was measured, writes the file of --save.
        unmeasured: What to answer after an interrupt that leaves nothing to be said.

    Raises:
        SpecError: if there are several targets.
    """
    if len(targets) > 1:
        raise SpecError(
            f"{command} takes one MODEL with one --weights; {len(targets)} were given.",
            f"hessdiag {command} once for each, with -o NAME.json",
        )
    clock, before = Clock(), crowding.reading()
    (target,) = targets
    # What the user's own code prints is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr), signals.computing(), reporter(out.progress) as progress:
        from hessdiag.problem.load import load_problem

        problem = load_problem(target.load_request())
        if problem.device.type == "cpu":
            crowding.warn(before)
        seed = target.request["seed"]
        try:
            measured = measure(problem, seed, progress)
        except KeyboardInterrupt:
            if unmeasured is None:
                raise
            measured, save = unmeasured(problem), None
    from hessdiag.problem.describe import describe

    return finish(
        document(
            command,
            status=measured.status,
            problem=describe(problem),
            result=measured.to_result(),
            theory=measured.theory,
            checks=measured.checks,
            thresholds=measured.thresholds,
            verdict=measured.verdict,
            provenance=collect(
                clock,
                str(problem.device),
                problem.kernels_forced,
                resumed_pieces=getattr(measured, "resumed_pieces", 0),  # of commands that take --resume
                cost=progress.ledger.as_dict(),
            ),
        ),
        out,
        None if save is None else lambda: save(problem, seed, measured),
    )
