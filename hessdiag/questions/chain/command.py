"""`hessdiag chain`: the width-one network, closed forms beside simulation."""

from typing import Literal

import click

from hessdiag.cli import signals
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SEED, Names
from hessdiag.cli.options import output_options
from hessdiag.cli.output import Output, finish
from hessdiag.cli.progress import reporter
from hessdiag.cli.provenance import Clock, collect
from hessdiag.report.document import document


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
    clock = Clock()
    from hessdiag.questions.chain.measure import chain

    with signals.computing(), reporter(out.progress) as progress:
        measured = chain(
            length=length, scale=scale, distribution=distribution, seeds=seeds, seed=seed, progress=progress
        )
    return finish(
        document(
            "chain",
            status=measured.status,
            problem={"model": "builtin:chain", "device": "cpu", "dtype": "float64", "seed": seed},
            result=measured.to_result(),
            theory={"assumes": "independent weights; one sample, x = y = 1; loss (v - 1)²/2", "exact": True},
            checks=measured.checks,
            thresholds=measured.thresholds,
            verdict=measured.verdict,
            provenance=collect(clock, "cpu"),
        ),
        out,
    )
