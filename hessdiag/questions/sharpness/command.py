"""`hessdiag sharpness MODEL`: how large a step will my optimizer take here?"""

from typing import TYPE_CHECKING

import click

from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.options import Target, model_options, output_options, shard_option, state_option
from hessdiag.cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from hessdiag.problem.problem import Problem
    from hessdiag.questions.common.runs.progress import Progress
    from hessdiag.questions.sharpness.result import Sharpness


@click.command("sharpness", cls=Command)
@model_options
@shard_option
@click.option(
    "--optimizer",
    metavar="SPEC",
    help="Yours: adam(lr=1e-3), sgd(momentum=0.9), ckpt.pt#optimizer, train.py:make. Default: adam(lr=1e-3).",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Its learning rate; alone, that of plain gradient descent.",
)
@state_option("--optimizer")
@click.option("--tol", type=float, metavar="R", default=1e-2, show_default=True, help="Relative residual to reach.")
@output_options
def command(
    targets: tuple[Target, ...], optimizer: str | None, lr: float | None, state: str | None, tol: float, out: Output
) -> int:
    """How large a step will my optimizer take here? The curvature that it sees, over what it can take.

    The largest eigenvalue in the optimizer's own metric beside its threshold, at its learning rate, momentum, betas,
    epsilon and weight decay; the curvature along its next step; critical sharpness from at most 10 forward passes;
    adaptive sharpness; and the gradient noise scale. Each with its error.

    \b
    hessdiag sharpness model.pt --data batch.npz --loss ce --optimizer 'adamw(lr=3e-4)'
    hessdiag sharpness train.py:setup --optimizer ckpt.pt#optimizer -o sharp.html
    hessdiag sharpness train.py:setup --optimizer train.py:make --state ckpt.pt#optimizer
    hessdiag sharpness train.py:setup --lr 0.1 --fail-if 'ratio > 1'
    """  # noqa: D301
    scripts: dict[Path, ModuleType] = {}

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Sharpness":
        from hessdiag.questions.sharpness.measure import sharpness

        return sharpness(
            problem, optimizer=optimizer, lr=lr, state=state, tol=tol, seed=seed, progress=progress, scripts=scripts
        )

    def unmeasured(problem: "Problem") -> "Sharpness":
        from hessdiag.questions.sharpness import measure as sharp

        return sharp.unmeasured(problem)

    return answer_of_model(targets, measure, out, unmeasured=unmeasured, scripts=scripts)
