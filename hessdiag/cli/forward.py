"""`hessdiag forward`: what becomes of a signal in random networks, under several initializations."""

from typing import Literal

import click

from hessdiag.cli.options import SEED, Names, output_options
from hessdiag.cli.output import Output, finish
from hessdiag.cli.progress import reporter
from hessdiag.cli.provenance import Clock, collect
from hessdiag.nets import ACTIVATIONS, INITS
from hessdiag.report.document import document


@click.command("forward")
@click.option(
    "--depth", type=click.IntRange(min=1), metavar="N", default=128, show_default=True, help="Weight matrices."
)
@click.option(
    "--width", type=click.IntRange(min=1), metavar="N", default=32, show_default=True, help="Units per layer."
)
@click.option(
    "--init",
    "inits",
    type=Names(list(INITS)),
    multiple=True,
    help="Repeatable. Default: lecun, xavier_normal and he_normal.",
)
@click.option("--distribution", type=Names(("uniform", "normal")), help="Draw from this, at the init's variance.")
@click.option("--activation", type=Names(list(ACTIVATIONS)), default="relu", show_default=True)
@click.option(
    "--seeds", type=click.IntRange(min=2), metavar="N", default=2000, show_default=True, help="Networks per init."
)
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True, help="Which random networks.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda[:i].")
@click.option(
    "--solve", type=Names(("median", "rms")), help="Find the gain that makes this 1 at the last layer, and try it."
)
@output_options
def command(
    depth: int,
    width: int,
    inits: tuple[str, ...],
    distribution: Literal["uniform", "normal"] | None,
    activation: str,
    seeds: int,
    seed: int,
    device: str,
    solve: Literal["median", "rms"] | None,
    out: Output,
) -> int:
    """What is left of a signal after so many layers, typically and on average?

    Draws fully connected networks and shows the norm of every layer's activations relative to the input's:
    median, mean and root mean square, beside their exact values. Needs no model and no data.

    \b
    hessdiag forward --depth 128 --width 32
    hessdiag forward --init he_normal --solve median
    hessdiag forward --init he_normal --init orthogonal --activation tanh -o forward.html
    """  # noqa: D301
    clock = Clock()
    from hessdiag.diagnostics.forward import INITS as DEFAULT
    from hessdiag.diagnostics.forward import forward

    with reporter(out.progress) as progress:
        measured = forward(
            depth=depth,
            width=width,
            init=inits or DEFAULT,
            distribution=distribution,
            activation=activation,
            seeds=seeds,
            seed=seed,
            device=device,
            solve=solve,
            progress=progress,
        )
    return finish(
        document(
            "forward",
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
