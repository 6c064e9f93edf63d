"""`hessdiag diag-share MODEL`: options to requests, one measurement each, one answer."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import click

from hessdiag.cli import crowding
from hessdiag.cli.answer import answer, load
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import NumberOr
from hessdiag.cli.options import MetricText, Target, metric_options, output_options, resume_option, trajectory_options
from hessdiag.cli.output import Output
from hessdiag.cli.speech import say
from hessdiag.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from hessdiag.cli.progress import Telling
    from hessdiag.questions.diag_share.result import DiagShare


@click.command("diag-share", cls=Command)
@trajectory_options
@click.option(
    "--rows",
    type=NumberOr("all"),
    metavar="N|all",
    help="Hessian rows to compute. Default: all where that is quick, else 1000.",
)
@metric_options
@resume_option
@output_options
def command(
    targets: tuple[Target, ...],
    rows: int | Literal["all"] | None,
    metric: MetricText | None,
    resume: str | None,
    out: Output,
) -> int:
    """How diagonal is the Hessian, overall and per layer, against Wigner and OLS?

    MODEL is builtin:NAME, FILE.py:FUNCTION, a saved model.pt, hf:NAME or timm:NAME; `hessdiag ls specs` shows
    all forms. Several MODELs, or several --weights, give a trajectory.

    \b
    hessdiag diag-share model.pt
    hessdiag diag-share train.py:build --weights model.safetensors --data batch.npz --loss ce
    hessdiag diag-share step0.pt step100.pt step1000.pt --data batch.npz -o trajectory.html
    hessdiag diag-share model.pt --data batch.npz --rows all --resume kept
    """  # noqa: D301
    before = crowding.reading()
    return answer(lambda progress: _measure(targets, rows, metric, resume, before, progress), out)


def _measure(
    targets: tuple[Target, ...],
    rows: int | Literal["all"] | None,
    metric: MetricText | None,
    resume: str | None,
    before: crowding.Reading | None,
    progress: "Telling",
) -> "DiagShare":
    """One measurement per target, in order; an interruption ends the series with what it has."""
    from hessdiag.problem.files.optimizer_states import is_file
    from hessdiag.questions.common.in_metric import asked_for
    from hessdiag.questions.common.runs.pieces import below
    from hessdiag.questions.diag_share.measure import diag_share
    from hessdiag.questions.diag_share.trajectory import diag_share_along

    if len(targets) > 1 and metric is not None and (metric.state or is_file(metric.spec)):
        raise SpecError(
            f"one state of an optimizer is not that of {len(targets)} checkpoints.",
            "--metric NAME without a state, or each checkpoint with its own state by itself",
        )
    runs: list[tuple[str, DiagShare]] = []
    for index, target in enumerate(targets):
        if len(targets) > 1:
            say(f"{target.label} ({index + 1} of {len(targets)})")
        try:
            scripts: dict[Path, ModuleType] = {}
            problem = load(target, None if runs else before, scripts)
            folder = below(resume, index, len(targets))
            share = diag_share(
                problem,
                rows=rows,
                seed=target.request["seed"],
                resume=folder,
                progress=progress,
                metric=asked_for(metric, scripts),
            )
        except KeyboardInterrupt:
            if not runs:
                raise
            return replace(diag_share_along(runs), status="interrupted")
        runs.append((target.label, share))
        if share.status == "interrupted":
            break
    return diag_share_along(runs)
