"""`hessdiag forward`: what becomes of a signal in random networks, under several initializations."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hessdiag.cli import output, signals
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SWITCH, Names
from hessdiag.cli.measure import answer
from hessdiag.cli.options import Target, optional_model_options, output_options, resume_option
from hessdiag.cli.output import Output, finish
from hessdiag.cli.progress import reporter
from hessdiag.cli.provenance import Clock, collect
from hessdiag.errors import SpecError
from hessdiag.nets import ACTIVATIONS, INITS
from hessdiag.report.document import document

if TYPE_CHECKING:
    from hessdiag.cli.progress import Reporter
    from hessdiag.problem.problem import Problem
    from hessdiag.questions.forward.result import Forward

OWN_NETWORKS = ("depth", "width", "activation")
OF_A_MODEL = ("weights", "data", "loss", "objective", "batches", "batch_size", "dtype", "layers", "train_mode")


@click.command("forward", cls=Command)
@optional_model_options
@click.option("--depth", type=click.IntRange(min=1), metavar="N", default=128, show_default=True, help="Layers.")
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
    "--seeds", type=click.IntRange(min=2), metavar="N", help="Networks per init. Default: 2,000; 200 of a MODEL."
)
@click.option(
    "--solve", type=Names(("median", "rms")), help="Find the gain that makes this 1 at the last layer, and try it."
)
@click.option(
    "--per-layer",
    is_flag=True,
    type=SWITCH,
    help="With --solve: a gain for each layer, so that this is 1 after every one.",
)
@click.option("--save", metavar="FILE.safetensors", help="Write weights drawn with the gains that --solve found.")
@resume_option
@output_options
def command(
    targets: tuple[Target, ...],
    depth: int,
    width: int,
    inits: tuple[str, ...],
    distribution: Literal["uniform", "normal"] | None,
    activation: str,
    seeds: int | None,
    solve: Literal["median", "rms"] | None,
    per_layer: bool,
    save: str | None,
    resume: str | None,
    out: Output,
) -> int:
    """What is left of a signal after so many layers, typically and on average?

    Without MODEL: fully connected networks, and the norm of every layer's activations relative to the input's,
    beside exact values. With MODEL: its Linear and Conv layers are initialized anew, many times.

    \b
    hessdiag forward --depth 128 --width 32
    hessdiag forward --init he_normal --solve median --per-layer
    hessdiag forward train.py:build --data batch.npz --init he_uniform -o forward.html
    """  # noqa: D301
    ctx = click.get_current_context()
    typed = {name for name in ctx.params if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    file = None if save is None else _weights_file(Path(save), inits, solve, force=ctx.params["force"])
    options: dict[str, Any] = {"distribution": distribution, "solve": solve, "per_layer": per_layer, "resume": resume}
    options |= ({"init": inits} if inits else {}) | ({"seeds": seeds} if seeds else {})
    own = [name for name in OWN_NETWORKS if name in typed]
    if targets and not (own and "models" not in typed):
        if own:
            raise SpecError(
                f"--{own[0]} is for networks that are made up; MODEL has its own.", "leave out MODEL, or the option"
            )

        def measure(problem: "Problem", seed: int, progress: "Reporter") -> "Forward":
            from hessdiag.questions.forward.model import forward_model

            return forward_model(problem, seed=seed, progress=progress, **options)

        def write(problem: "Problem", seed: int, measured: "Forward") -> None:
            from hessdiag.questions.forward.model_weights import initialized

            if file is not None and not measured.interrupted:
                _write(file, initialized(problem, measured.inits[0], seed))

        def nothing(problem: "Problem") -> "Forward":
            from hessdiag.questions.forward.assemble import unmeasured

            return unmeasured(targets[0].request["seed"], str(problem.device))

        return answer("forward", targets, measure, out, write, unmeasured=nothing)
    for name in OF_A_MODEL:
        if name in typed:
            raise SpecError(f"--{name.replace('_', '-')} needs a MODEL.", f"{ctx.command_path} builtin:lenet")
    clock, seed = Clock(), ctx.params["seed"]
    from hessdiag.problem.device import notes as device_notes
    from hessdiag.questions.forward.assemble import unmeasured
    from hessdiag.questions.forward.measure import forward, initialized

    with signals.computing(), reporter(out.progress) as progress:
        try:
            measured = forward(
                depth=depth,
                width=width,
                activation=activation,
                seed=seed,
                device=ctx.params["device"],
                progress=progress,
                **options,
            )
        except KeyboardInterrupt:
            measured = unmeasured(seed, ctx.params["device"])

    def save_weights() -> None:
        if file is not None and not measured.interrupted:
            _write(file, initialized(measured.inits[0], seed))

    return finish(
        document(
            "forward",
            status=measured.status,
            problem={
                "model": "builtin:mlp",
                "device": measured.device,
                "dtype": "float64",
                "seed": seed,
                "notes": list(device_notes(ctx.params["device"], measured.device)),
            },
            result=measured.to_result(),
            theory=measured.theory,
            checks=measured.checks,
            thresholds=measured.thresholds,
            verdict=measured.verdict,
            provenance=collect(clock, measured.device, resumed_pieces=measured.resumed_pieces),
        ),
        out,
        save_weights,
    )


def _weights_file(path: Path, inits: tuple[str, ...], solve: str | None, *, force: bool) -> output.Target:
    if len(set(inits)) != 1 or solve is None:
        raise SpecError(
            "--save writes the weights of one initialization with the gain that was solved for.",
            f"--init he_normal --solve median --save {shlex.quote(str(path))}",
        )
    if path.suffix.lower() != ".safetensors":
        better = output.beside(path, "weights.safetensors")
        raise SpecError(f"weights are saved as .safetensors, not as {path.name}.", f"--save {better}")
    return output.writable(path, "safetensors", force=force, option="--save", usual="weights.safetensors")


def _write(target: output.Target, state: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    content = save(dict(state))
    output.save(target, lambda stream: stream.write(content), "--save")
