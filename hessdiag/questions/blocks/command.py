"""`hessdiag blocks MODEL`: the layer-by-layer norms of the Hessian, of its Gauss-Newton part and of the rest."""

from typing import TYPE_CHECKING

import click

from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.options import Target, model_options, output_options, resume_option, shard_option
from hessdiag.cli.output import Output

if TYPE_CHECKING:
    from hessdiag.problem.problem import Problem
    from hessdiag.questions.blocks.by.result import BlocksBy
    from hessdiag.questions.blocks.result import Blocks
    from hessdiag.questions.common.runs.progress import Progress


@click.command("blocks", cls=Command)
@model_options
@shard_option
@click.option(
    "--probes",
    type=click.IntRange(min=2),
    metavar="N",
    help="Random vectors per layer, with --by per block. Default: exact where that takes seconds, else 32 (16).",
)
@click.option(
    "--by",
    metavar="layer|tensor|head|neuron|class|embedding-row|GLOB,...",
    help="Ask instead how block-diagonal the Hessian is, in which norm, with these blocks.",
)
@resume_option
@output_options
def command(targets: tuple[Target, ...], probes: int | None, by: str | None, resume: str | None, out: Output) -> int:
    """Which layers curve, and how do they couple? Norms of all layer blocks, Gauss-Newton part and residual apart.

    Exact up to 5,000 parameters, and for fully connected networks mostly to 60,000 and more. Beyond, random vectors on
    one layer at a time, with standard errors.

    With --by: what share of the Hessian is inside blocks, of its squares and of its absolute mass, what its block
    diagonal makes of the extreme eigenvalues, and how much the blocks' spectra differ.

    \b
    hessdiag blocks model.pt --data batch.npz --loss ce
    hessdiag blocks builtin:lenet --probes 128 -o blocks.html
    hessdiag blocks 'builtin:gpt(layers=1, width=12, heads=2, vocabulary=16)' --by head
    """  # noqa: D301

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Blocks | BlocksBy":
        from hessdiag.questions.blocks.measure import blocks

        return blocks(problem, by=by, probes=probes, seed=seed, resume=resume, progress=progress)

    def unmeasured(problem: "Problem") -> "Blocks | BlocksBy":
        from hessdiag.questions.blocks import measure as blocks

        return blocks.unmeasured(problem, by)

    return answer_of_model(targets, measure, out, unmeasured=unmeasured)
