"""`hessdiag vanishing`: random networks over a grid of depths."""

from typing import Literal

import click

from hessdiag.cli.options import SEED, Names, count_or, output_options
from hessdiag.cli.output import Output, finish
from hessdiag.cli.progress import reporter
from hessdiag.cli.provenance import Clock, collect
from hessdiag.nets import ACTIVATIONS, INITS
from hessdiag.report.document import document


@click.command("vanishing")
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    metavar="N",
    default=32,
    show_default=True,
    help="Deepest network, in weight matrices.",
)
@click.option(
    "--width",
    type=count_or("same"),
    metavar="N|same",
    default=32,
    show_default=True,
    help="Units per layer; same: width = depth.",
)
@click.option("--init", type=Names(list(INITS)), help="Default: he_uniform for relu, else xavier_uniform.")
@click.option("--distribution", type=Names(("uniform", "normal")), help="Draw from this, at the init's variance.")
@click.option("--activation", type=Names(list(ACTIVATIONS)), default="relu", show_default=True)
@click.option(
    "--seeds",
    type=click.IntRange(min=2),
    metavar="N",
    default=200,
    show_default=True,
    help="Networks per depth.",
)
@click.option(
    "--hessian-seeds",
    type=click.IntRange(min=2),
    metavar="N",
    help="Networks for the Hessian norms. Default: what is quick.",
)
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Samples in the batch.")
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True, help="Which random networks.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda[:i].")
@output_options
def command(
    depth: int,
    width: int | Literal["same"],
    init: str | None,
    distribution: Literal["uniform", "normal"] | None,
    activation: str,
    seeds: int,
    hessian_seeds: int | None,
    batch: int | None,
    seed: int,
    device: str,
    out: Output,
) -> int:
    """How do gradient and Hessian norms change with depth, and within the deepest network?

    Draws fully connected networks over a grid of depths up to --depth, and shows medians, means and quantiles
    of the norms beside what theory predicts. Needs no model and no data.

    \b
    hessdiag vanishing --depth 128 --width 32
    hessdiag vanishing --init lecun --activation linear -o vanishing.html
    """  # noqa: D301
    clock = Clock()
    from hessdiag.diagnostics.vanishing import vanishing

    with reporter(out.progress) as progress:
        measured = vanishing(
            depth=depth,
            width=width,
            init=init,
            distribution=distribution,
            activation=activation,
            seeds=seeds,
            hessian_seeds=hessian_seeds,
            seed=seed,
            device=device,
            progress=progress,
            **({} if batch is None else {"batch": batch}),
        )
    return finish(
        document(
            "vanishing",
            status=measured.status,
            problem={"model": "builtin:mlp", "device": measured.device, "dtype": "float64", "seed": seed},
            result=measured.to_result(),
            theory=measured.theory,
            checks=measured.checks,
            verdict=measured.verdict,
            provenance=collect(clock, measured.device),
        ),
        out,
    )
