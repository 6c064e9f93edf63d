"""`hessdiag diag-share MODEL`: options to requests, one measurement each, one document."""

import contextlib
import sys
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from hessdiag.cli import crowding, signals
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import NumberOr
from hessdiag.cli.options import Target, output_options, resume_option, trajectory_options
from hessdiag.cli.output import Output, finish
from hessdiag.cli.progress import Reporter, reporter
from hessdiag.cli.provenance import Clock, collect
from hessdiag.cli.speech import say
from hessdiag.report.document import document

if TYPE_CHECKING:
    from hessdiag.problem.problem import Problem
    from hessdiag.questions.diag_share.result import DiagShare


@click.command("diag-share", cls=Command)
@trajectory_options
@click.option(
    "--rows",
    type=NumberOr("all"),
    metavar="N|all",
    help="Hessian rows to compute. Default: all where that is quick, else 1000.",
)
@resume_option
@output_options
def command(targets: tuple[Target, ...], rows: int | Literal["all"] | None, resume: str | None, out: Output) -> int:
    """How diagonal is the Hessian, overall and per layer, against Wigner and OLS?

    MODEL is builtin:NAME, FILE.py:FUNCTION, a saved model.pt, hf:NAME or timm:NAME; `hessdiag ls specs` shows
    all forms. Several MODELs, or several --weights, give a trajectory.

    \b
    hessdiag diag-share model.pt
    hessdiag diag-share train.py:build --weights model.safetensors --data batch.npz --loss ce
    hessdiag diag-share step0.pt step100.pt step1000.pt --data batch.npz -o trajectory.html
    hessdiag diag-share model.pt --data batch.npz --rows all --resume kept
    """  # noqa: D301
    clock, before = Clock(), crowding.reading()
    # What the user's own code prints is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr), signals.computing(), reporter(out.progress) as progress:
        runs, ended = _measure(targets, rows, resume, progress, before)
    from hessdiag.problem.describe import describe
    from hessdiag.questions.diag_share.trajectory import diag_share_along

    problem = runs[-1].problem
    found = diag_share_along((run.label, run.share) for run in runs)
    return finish(
        document(
            "diag-share",
            status="interrupted" if ended else found.status,
            problem=describe(problem),
            result=found.to_result(),
            theory=found.theory,
            checks=found.checks,
            thresholds=found.thresholds,
            verdict=found.verdict,
            provenance=collect(
                clock,
                str(problem.device),
                problem.kernels_forced,
                resumed_pieces=found.resumed_pieces,
                cost=progress.ledger.as_dict(),
            ),
        ),
        out,
    )


class _Run(NamedTuple):
    """One checkpoint's measurement."""

    label: str
    problem: "Problem"
    share: "DiagShare"


def _measure(
    targets: tuple[Target, ...],
    rows: int | Literal["all"] | None,
    resume: str | None,
    progress: Reporter,
    before: crowding.Reading | None,
) -> tuple[list[_Run], bool]:
    """One measurement per target, in order; an interruption ends the series with what it has. And whether one did."""
    from hessdiag.problem.load import load_problem
    from hessdiag.questions.common.pieces import below
    from hessdiag.questions.diag_share.measure import diag_share

    runs: list[_Run] = []
    for index, target in enumerate(targets):
        if len(targets) > 1:
            say(f"{target.label} ({index + 1} of {len(targets)})")
        try:
            problem = load_problem(target.load_request())
            if not runs and problem.device.type == "cpu":
                crowding.warn(before)
            folder = below(resume, index, len(targets))
            share = diag_share(problem, rows=rows, seed=target.request["seed"], resume=folder, progress=progress)
        except KeyboardInterrupt:
            if not runs:
                raise
            return runs, True
        runs.append(_Run(target.label, problem, share))
        if share.status == "interrupted":
            return runs, True
    return runs, False
