"""`hessdiag precondition MODEL`: which preconditioner is worth its memory."""

from typing import TYPE_CHECKING

import click

from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.options import Target, model_options, output_options, resume_option, state_option
from hessdiag.cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from hessdiag.problem.problem import Problem
    from hessdiag.questions.common.runs.progress import Progress
    from hessdiag.questions.precondition.result import Precondition


@click.command("precondition", cls=Command)
@model_options
@click.option(
    "--optimizer",
    metavar="SPEC",
    help="Whose second moments to compare: adam, rmsprop(alpha=0.9), ckpt.pt#optimizer, train.py:make. Default: adam.",
)
@state_option("--optimizer")
@click.option(
    "--damping",
    type=float,
    metavar="R",
    default=1e-2,
    show_default=True,
    help="Added to curvature and preconditioner, over the largest eigenvalue.",
)
@click.option(
    "--tol",
    type=float,
    metavar="R",
    default=1e-3,
    show_default=True,
    help="Relative error at which conjugate gradients end.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    metavar="N",
    default=200,
    show_default=True,
    help="Lanczos steps, of more than 1,500 parameters.",
)
@click.option(
    "--probes",
    type=click.IntRange(min=2),
    metavar="N",
    default=4,
    show_default=True,
    help="Random vectors, there, for each effective dimension.",
)
@resume_option
@output_options
def command(
    targets: tuple[Target, ...],
    optimizer: str | None,
    state: str | None,
    damping: float,
    tol: float,
    steps: int,
    probes: int,
    resume: str | None,
    out: Output,
) -> int:
    """Which preconditioner is worth its memory? The condition number under each, and the numbers it holds.

    None, diagonals, Adam's v, layer blocks, K-FAC, EK-FAC, Shampoo and its square, SOAP: the condition number of the
    damped Hessian, its effective dimension, and the iterations that conjugate gradients would take. Exact up to 1,500
    parameters; beyond, Lanczos with intervals.

    \b
    hessdiag precondition model.pt --data batch.npz --loss ce
    hessdiag precondition builtin:lenet --damping 1e-3 --steps 400 -o precondition.html
    hessdiag precondition train.py:setup --optimizer ckpt.pt#optimizer
    hessdiag precondition train.py:setup --optimizer train.py:make --state ckpt.pt#optimizer
    """  # noqa: D301
    scripts: dict[Path, ModuleType] = {}

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Precondition":
        from hessdiag.questions.precondition.measure import precondition

        return precondition(
            problem,
            optimizer=optimizer,
            state=state,
            damping=damping,
            tol=tol,
            steps=steps,
            probes=probes,
            seed=seed,
            progress=progress,
            resume=resume,
            scripts=scripts,
        )

    def unmeasured(problem: "Problem") -> "Precondition":
        from hessdiag.questions.precondition import measure as preconditioned

        return preconditioned.unmeasured(problem, damping, tol)

    return answer_of_model(targets, measure, out, unmeasured=unmeasured, scripts=scripts)
