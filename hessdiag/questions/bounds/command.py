"""`hessdiag bounds MODEL`: inclusion intervals for the eigenvalues, beside the measured extremes."""

from typing import TYPE_CHECKING

import click

from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.options import MetricText, Target, metric_options, model_options, output_options
from hessdiag.cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from hessdiag.problem.problem import Problem
    from hessdiag.questions.bounds.result import Bounds
    from hessdiag.questions.common.runs.progress import Progress


@click.command("bounds", cls=Command)
@model_options
@metric_options
@output_options
def command(targets: tuple[Target, ...], metric: MetricText | None, out: Output) -> int:
    """Where can the eigenvalues be? Gershgorin's discs and tighter bounds beside the measured extremes.

    Exact up to 10,000 parameters (all bounds up to 5,000). Beyond, the radii come from a random sketch of all rows at
    once, and the largest rows are computed exactly.

    \b
    hessdiag bounds model.pt --data batch.npz --loss ce
    hessdiag bounds builtin:mlp -o bounds.html
    """  # noqa: D301
    scripts: dict[Path, ModuleType] = {}

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Bounds":
        from hessdiag.questions.bounds.measure import bounds
        from hessdiag.questions.common.in_metric import asked_for

        return bounds(problem, seed=seed, progress=progress, metric=asked_for(metric, scripts))

    def unmeasured(problem: "Problem") -> "Bounds":
        from hessdiag.questions.bounds import measure as bounds
        from hessdiag.questions.common.in_metric import asked_for

        return bounds.unmeasured(problem, asked_for(metric))

    return answer_of_model(targets, measure, out, unmeasured=unmeasured, scripts=scripts)
