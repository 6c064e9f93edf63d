"""`hessdiag spectrum MODEL`: the density of eigenvalues, with error bars."""

from typing import TYPE_CHECKING

import click

from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import Names
from hessdiag.cli.options import (
    MetricText,
    Target,
    metric_options,
    model_options,
    output_options,
    resume_option,
    shard_option,
)
from hessdiag.cli.output import Output
from hessdiag.curvature import registry

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from hessdiag.curvature.registry import OperatorName
    from hessdiag.problem.problem import Problem
    from hessdiag.questions.common.runs.progress import Progress
    from hessdiag.questions.spectrum.result import Spectrum


@click.command("spectrum", cls=Command)
@model_options
@shard_option
@click.option(
    "--probes", type=click.IntRange(min=2), metavar="N", default=10, show_default=True, help="Random vectors."
)
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    metavar="N",
    default=80,
    show_default=True,
    help="Lanczos steps from each: finer detail.",
)
@click.option(
    "--operator",
    type=Names(registry.NAMES),
    default="hessian",
    show_default=True,
    help=f"T{registry.listed()[1:]}.",
)
@metric_options
@resume_option
@output_options
def command(
    targets: tuple[Target, ...],
    probes: int,
    steps: int,
    operator: "OperatorName",
    metric: MetricText | None,
    resume: str | None,
    out: Output,
) -> int:
    """How are the eigenvalues distributed? Density, trace, Frobenius norm and moments, with error bars.

    Exact up to 1,500 parameters (7,500 on a GPU). Beyond, the extreme eigenvalues are exact to their residuals, and the
    rest comes from random vectors.

    \b
    hessdiag spectrum model.pt --data batch.npz --loss ce
    hessdiag spectrum builtin:lenet --operator ggn --steps 120 -o spectrum.html
    """  # noqa: D301
    scripts: dict[Path, ModuleType] = {}

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Spectrum":
        from hessdiag.questions.common.in_metric import asked_for
        from hessdiag.questions.spectrum.measure import spectrum

        return spectrum(
            problem,
            probes=probes,
            steps=steps,
            operator=operator,
            seed=seed,
            progress=progress,
            resume=resume,
            metric=asked_for(metric, scripts),
        )

    def unmeasured(problem: "Problem") -> "Spectrum":
        from hessdiag.questions.common.in_metric import asked_for
        from hessdiag.questions.spectrum import measure as spectrum

        return spectrum.unmeasured(problem, operator, asked_for(metric))

    return answer_of_model(targets, measure, out, unmeasured=unmeasured, scripts=scripts)
