"""`hessdiag forward`: what becomes of a signal in random networks, under several initializations."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from hessdiag.cli import output, weights
from hessdiag.cli.answer import answer, answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SWITCH, Names
from hessdiag.cli.options import Target, optional_model_options, output_options, resume_option
from hessdiag.cli.output import Output
from hessdiag.cli.script.arguments import Arguments
from hessdiag.errors import SpecError
from hessdiag.nets import ACTIVATIONS, INITS

if TYPE_CHECKING:
    from hessdiag.cli.progress import Telling
    from hessdiag.problem.problem import Problem
    from hessdiag.questions.common.runs.progress import Progress
    from hessdiag.questions.forward.result import Forward

OWN_NETWORKS = ("depth", "width", "activation")
OF_A_MODEL = ("weights", "data", "loss", "objective", "batches", "batch_size", "dtype", "layers", "train_mode")


@click.command("forward", cls=Command, arguments=Arguments(of_model=lambda has: _is_of_model(has)))
@optional_model_options
@click.option("--depth", type=click.IntRange(min=1), metavar="N", default=128, show_default=True, help="Layers.")
@click.option(
    "--width", type=click.IntRange(min=1), metavar="N", default=32, show_default=True, help="Units per layer."
)
@click.option(
    "--init",
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
    init: tuple[str, ...],
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
    file = None if save is None else _weights_file(Path(save), init, solve)
    options = _Options(init, seeds, distribution, solve, per_layer, resume, file)
    if _is_of_model(bool(targets)):
        return _of_model(targets, options, out)
    return _of_built_in(depth, width, activation, options, out)


@dataclass(frozen=True)
class _Options:
    """What may be asked of a model and of built-in networks alike; `inits` and `seeds` have defaults of their own."""

    inits: tuple[str, ...]
    seeds: int | None
    distribution: Literal["uniform", "normal"] | None
    solve: Literal["median", "rms"] | None
    per_layer: bool
    resume: str | None
    save: output.Destination | None


def _is_of_model(has_model: bool) -> bool:
    """Whether a MODEL is asked about: one of a configuration gives way to options of networks that are made up.

    Raises:
        SpecError: if options of the other kind are on the command line.
    """
    typed = _typed()
    made_up = [name for name in OWN_NETWORKS if name in typed]
    if not has_model or (made_up and "models" not in typed):
        stray = [name for name in OF_A_MODEL if name in typed]
        if stray:
            path = click.get_current_context().command_path
            raise SpecError(f"--{stray[0].replace('_', '-')} needs a MODEL.", f"{path} builtin:lenet")
        return False
    if made_up:
        raise SpecError(
            f"--{made_up[0]} is for networks that are made up; MODEL has its own.", "leave out MODEL, or the option"
        )
    return True


def _typed() -> set[str]:
    """The options and arguments that are on the command line."""
    ctx = click.get_current_context()
    return {name for name in ctx.params if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}


def _of_model(targets: tuple[Target, ...], options: _Options, out: Output) -> int:
    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Forward":
        from hessdiag.questions.forward.asked import INITS
        from hessdiag.questions.forward.model import MODEL_SEEDS, forward_model

        return forward_model(
            problem,
            init=options.inits or INITS,
            seeds=options.seeds or MODEL_SEEDS,
            seed=seed,
            distribution=options.distribution,
            solve=options.solve,
            per_layer=options.per_layer,
            resume=options.resume,
            progress=progress,
        )

    def save(problem: "Problem", measured: "Forward") -> None:
        from hessdiag.questions.forward.model_weights import initialized

        if options.save is not None and not measured.interrupted:
            weights.write(options.save, initialized(problem, measured.inits[0], targets[0].request["seed"]))

    def unmeasured(problem: "Problem") -> "Forward":
        from hessdiag.questions.common.described import described
        from hessdiag.questions.forward.assemble import unmeasured

        return unmeasured(described(problem))

    return answer_of_model(targets, measure, out, save, unmeasured=unmeasured)


def _of_built_in(depth: int, width: int, activation: str, options: _Options, out: Output) -> int:
    params = click.get_current_context().params
    device, seed = params["device"], params["seed"]

    def measure(progress: "Telling") -> "Forward":
        from hessdiag.questions.forward.asked import INITS
        from hessdiag.questions.forward.measure import SEEDS, forward

        return forward(
            depth=depth,
            width=width,
            init=options.inits or INITS,
            activation=activation,
            seeds=options.seeds or SEEDS,
            seed=seed,
            device=device,
            distribution=options.distribution,
            solve=options.solve,
            per_layer=options.per_layer,
            resume=options.resume,
            progress=progress,
        )

    def save(measured: "Forward") -> None:
        from hessdiag.questions.forward.measure import initialized

        if options.save is not None and not measured.interrupted:
            weights.write(options.save, initialized(measured.inits[0], seed))

    def unmeasured() -> "Forward":
        from hessdiag.questions.common.ensembles.plan import built_in
        from hessdiag.questions.forward.assemble import unmeasured

        return unmeasured(built_in(device, device, seed))

    return answer(measure, out, save, unmeasured=unmeasured)


def _weights_file(path: Path, inits: tuple[str, ...], solve: str | None) -> output.Destination:
    if len(set(inits)) != 1 or solve is None:
        raise SpecError(
            "--save writes the weights of one initialization with the gain that was solved for.",
            f"--init he_normal --solve median --save {shlex.quote(str(path))}",
        )
    return weights.destination(path, (".safetensors",))
