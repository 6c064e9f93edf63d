"""`hessdiag spectrum MODEL`: the density of eigenvalues, with error bars."""

from typing import TYPE_CHECKING, Any

import click

from hessdiag.cli.help import Command
from hessdiag.cli.kinds import Names
from hessdiag.cli.measure import Measurement, answer
from hessdiag.cli.options import Target, model_options, output_options, resume_option
from hessdiag.cli.output import Output
from hessdiag.curvature import registry

if TYPE_CHECKING:
    from hessdiag.cli.progress import Reporter
    from hessdiag.problem.problem import Problem


@click.command("spectrum", cls=Command)
@model_options
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
@resume_option
@output_options
def command(
    targets: tuple[Target, ...], probes: int, steps: int, operator: Any, resume: str | None, out: Output
) -> int:
    """How are the eigenvalues distributed? Density, trace, Frobenius norm and moments, with error bars.

    Exact up to 1,500 parameters (7,500 on a GPU). Beyond, the extreme eigenvalues are exact to their residuals, and the
    rest comes from random vectors.

    \b
    hessdiag spectrum model.pt --data batch.npz --loss ce
    hessdiag spectrum builtin:lenet --operator ggn --steps 120 -o spectrum.html
    """  # noqa: D301

    def measure(problem: "Problem", seed: int, progress: "Reporter") -> Measurement:
        from hessdiag.questions.spectrum.measure import spectrum

        options: dict[str, Any] = {"probes": probes, "steps": steps, "operator": operator, "resume": resume}
        return spectrum(problem, seed=seed, progress=progress, **options)

    def unmeasured(problem: "Problem") -> Measurement:
        from hessdiag.questions.spectrum import measure as spectrum

        return spectrum.unmeasured(problem, operator)

    return answer("spectrum", targets, measure, out, unmeasured=unmeasured)
