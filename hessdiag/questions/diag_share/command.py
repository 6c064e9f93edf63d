"""`hessdiag diag-share MODEL`: options to requests, one measurement each, one document."""

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Literal

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
    from hessdiag.questions.diag_share.measure import DiagShare


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
    _, problem, last = runs[-1]
    from hessdiag.problem.describe import describe

    along, verdict = trajectory(runs)
    statuses = ["interrupted"] * ended + [share.status for _, _, share in runs]
    return finish(
        document(
            "diag-share",
            status=next((status for status in ("interrupted", "inexact") if status in statuses), "ok"),
            problem=describe(problem),
            result=last.to_result() | along,
            theory=last.theory,
            checks=last.checks,
            thresholds=last.thresholds,
            verdict=verdict,
            provenance=collect(
                clock,
                str(problem.device),
                problem.kernels_forced,
                resumed_pieces=sum(share.resumed_pieces for _, _, share in runs),
                cost=progress.ledger.as_dict(),
            ),
        ),
        out,
    )


def _measure(
    targets: tuple[Target, ...],
    rows: int | Literal["all"] | None,
    resume: str | None,
    progress: Reporter,
    before: crowding.Reading | None,
) -> "tuple[list[tuple[str, Problem, DiagShare]], bool]":
    """One measurement per target, in order; an interruption ends the series with what it has. And whether one did."""
    from hessdiag.problem.load import load_problem
    from hessdiag.questions.common.pieces import below
    from hessdiag.questions.diag_share.measure import diag_share

    runs: list[tuple[str, Problem, DiagShare]] = []
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
        runs.append((target.label, problem, share))
        if share.status == "interrupted":
            return runs, True
    return runs, False


def trajectory(runs: "list[tuple[str, Problem, DiagShare]]") -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The shares along several checkpoints and what changes, and the verdict; of one, its own verdict."""
    last = runs[-1][2]
    if len(runs) == 1:
        return {"trajectory": None, "change": None}, last.verdict
    from hessdiag.questions.diag_share import trajectory as along

    checkpoints = [
        along.Checkpoint(label, share.diag_share, share.diag_share_stderr or 0.0, share.trusted)
        for label, _, share in runs
    ]
    points = [
        {
            "label": label,
            "diag_share": share.diag_share,
            "diag_share_stderr": share.diag_share_stderr,
            "diag_share_interval": share.diag_share_interval,
            "layer_block_share": share.layer_block_share,
            "wigner": share.baselines.wigner,
            "ols_gaussian": share.baselines.ols_gaussian,
            "layers": [{"name": layer.name, "diag_share": layer.diag_share} for layer in share.layers],
        }
        for label, _, share in runs
    ]
    change = along.change(checkpoints)
    found = along.verdict(checkpoints, [(label, share.findings) for label, _, share in runs])
    return {"trajectory": points, "change": change and change.as_dict()}, [finding.as_dict() for finding in found]
