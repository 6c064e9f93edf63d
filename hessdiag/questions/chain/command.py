"""`hessdiag chain`: the width-one network, closed forms beside simulation."""

from typing import TYPE_CHECKING, Literal

import click

from hessdiag.cli.answer import answer
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SEED, Names
from hessdiag.cli.options import output_options
from hessdiag.cli.output import Output

if TYPE_CHECKING:
    from hessdiag.cli.progress import Telling
    from hessdiag.questions.chain.result import Chain


@click.command("chain", cls=Command)
@click.option(
    "--length", type=click.IntRange(min=1), metavar="N", default=10, show_default=True, help="Number of weights."
)
@click.option(
    "--scale",
    type=float,
    metavar="X",
    help="Weights are U[-X, X], or N(0, X²). Default: what keeps the second moment, √3 or 1.",
)
@click.option("--distribution", type=Names(("uniform", "normal")), default="uniform", show_default=True)
@click.option(
    "--seeds", type=click.IntRange(min=2), metavar="N", default=10_000, show_default=True, help="Random chains."
)
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True, help="Which random chains.")
@output_options
def command(
    length: int,
    scale: float | None,
    distribution: Literal["uniform", "normal"],
    seeds: int,
    seed: int,
    out: Output,
) -> int:
    """Which average does an initialization keep, and what does a typical network show?

    The simplest deep network, a product of N random weights: exact medians, means and probabilities of its output,
    gradient and Hessian beside simulation, the signs of its curvature, and how long optimizers stay on its plateau.

    \b
    hessdiag chain --length 10 --scale 1.7320508
    hessdiag chain --length 50 --distribution normal -o chain.html
    """  # noqa: D301

    def measure(progress: "Telling") -> "Chain":
        from hessdiag.questions.chain.measure import chain

        return chain(length=length, scale=scale, distribution=distribution, seeds=seeds, seed=seed, progress=progress)

    return answer(measure, out)
