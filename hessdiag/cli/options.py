"""Groups of options that mean the same in every command."""

import functools
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hessdiag.cli import config, output
from hessdiag.cli.kinds import SEED, SWITCH, Named, Names, NumberOr, Size
from hessdiag.cli.settings import instead
from hessdiag.cli.settings.keys import MODEL, UNNAMED, origins
from hessdiag.cli.speech import say
from hessdiag.errors import SpecError
from hessdiag.problem import spec
from hessdiag.questions import documents
from hessdiag.report.formats import FORMATS

if TYPE_CHECKING:
    from hessdiag.problem.load import ProblemRequest

LOSS = Named("ce|mse|bce|nll|output")
DEVICE = Named(r"auto|cpu|mps|cuda(:\d+)?")
DTYPES = ("float64", "float32", "bfloat16", "float16")

Decorator = Callable[[Callable[..., int]], Callable[..., int]]


@dataclass(frozen=True)
class Target:
    """One problem that a command is asked about, with the name it has in a trajectory."""

    label: str
    request: dict[str, Any]

    def load_request(self) -> "ProblemRequest":
        """The request as the loader takes it."""
        from hessdiag.problem.batches.data import ALL
        from hessdiag.problem.load import ProblemRequest

        batches = ALL if self.request["batches"] == "all" else self.request["batches"]
        return ProblemRequest(**self.request | {"batches": batches})


_MODEL = (
    click.option(
        "--data",
        metavar="SPEC",
        help="Batches: batch.npz, train.py:loader, images/, table.csv#y, builtin:digits. Without: synthetic.",
    ),
    click.option(
        "--loss", type=LOSS, metavar="NAME|SPEC", help="ce, mse, bce, nll, output, or losses.py:f of (output, target)."
    ),
    click.option("--objective", metavar="SPEC", help="FILE.py:f of (model, batch) -> scalar, instead of a loss."),
    click.option(
        "--batches", type=NumberOr("all"), metavar="N|all", help="How many batches of --data to average over."
    ),
    click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Samples per batch."),
    click.option(
        "--device", type=DEVICE, default="auto", show_default=True, metavar="NAME", help="auto, cpu or cuda[:i]."
    ),
    click.option("--dtype", type=Names(DTYPES), help="Default: float64 for builtins, else the model's own."),
    click.option("--seed", type=SEED, default=0, show_default=True, metavar="N", help="For all that is drawn."),
    click.option("--layers", metavar="GLOB", help="Only the parameters whose names match."),
    click.option(
        "--train-mode", is_flag=True, type=SWITCH, help="Evaluate as in training: BatchNorm by batch, dropout on."
    ),
    click.option(
        "--strict/--no-strict",
        type=SWITCH,
        default=True,
        help="Whether --weights must fit by all names and shapes. Without: what does not is left out, and said.",
    ),
    click.option("--trust-code", is_flag=True, help="Run code that lies inside the named files."),
    click.option(
        "--max-unpacked",
        type=Size(),
        metavar="SIZE",
        help="Most that a file may unpack to, as 4GB. Default: 16 times its size, and 256 MB if that is more.",
    ),
)

_OUTPUT = (
    click.option(
        "--json", "as_json", is_flag=True, type=SWITCH, help="The whole result as JSON: short for --format json."
    ),
    click.option("--format", "form", type=Names(FORMATS), help="What to print. Default: text."),
    click.option("-o", "--output", "file", metavar="FILE", help="Also write FILE: .html, .json, .md or .txt."),
    click.option("--force", is_flag=True, help="Overwrite FILE."),
    click.option("--color", type=Names(("auto", "always", "never")), default="auto", help="Colour in the text."),
    click.option("--no-progress", is_flag=True, type=SWITCH, help="No progress on stderr."),
    click.option("--allow-inexact", is_flag=True, help="Exit 0 even where the numbers are not trustworthy."),
    click.option(
        "--fail-if",
        multiple=True,
        metavar="GATE",
        help="Exit 1 if METRIC OP NUMBER holds; see hessdiag ls metrics. Repeatable.",
    ),
    click.option("--baseline", metavar="FILE", help="Exit 1 if headline numbers moved away from this result."),
    click.option("--max-change", default="10%", show_default=True, metavar="P%", help="How far they may move."),
    click.option("--exit-zero", is_flag=True, help="Say which of these gates are violated, and exit 0."),
)

resume_option = click.option(
    "--resume", metavar="DIR", help="Keep finished pieces in DIR; the same command then goes on where it stopped."
)


def shard_option(function: Callable[..., int]) -> Callable[..., int]:
    """Add --shard, under `model_options`; the targets of the command then ask for it."""

    @functools.wraps(function)
    def command(**values: Any) -> int:
        if values.pop("shard"):
            values["targets"] = tuple(replace(one, request=one.request | {"shard": True}) for one in values["targets"])
        return function(**values)

    shown = (
        "Keep a piece of each parameter and vector in each of torchrun's processes. One process needs less memory, too."
    )
    return _stack(command, (click.option("--shard", is_flag=True, type=SWITCH, help=shown),))


def model_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add MODEL and all that belongs to it; the command gets `targets`, a tuple of `Target`."""
    return _of_model(function, "MODEL", "Weights for MODEL.")


def trajectory_options(function: Callable[..., int]) -> Callable[..., int]:
    """As `model_options`, for a command that takes several MODELs, or several weights of one."""
    return _of_model(function, "MODEL...", "Weights for MODEL; repeat for a trajectory.")


def optional_model_options(function: Callable[..., int]) -> Callable[..., int]:
    """As `model_options`, for a command that also works without MODEL: `targets` may be empty."""
    return _of_model(function, "[MODEL]", "Weights for MODEL.")


def model_or_result_options(function: Callable[..., int]) -> Callable[..., int]:
    """As `model_options`, for a command that also takes a saved result: `saved`, and `targets` is empty then."""

    @functools.wraps(function)
    def command(**values: Any) -> int:
        return function(**{"saved": None, **values})

    return _of_model(command, "MODEL|FILE", "Weights for MODEL.")


OF_PROBLEM = ("models", "weights", *config.PROBLEM_KEYS[2:], "trust_code")


def named_again(ctx: click.Context) -> tuple[str, ...]:
    """The words of this command line that name the problem, for the command line of another command."""
    words: list[str] = []
    for parameter in ctx.command.params:
        if parameter.name not in OF_PROBLEM or _source(ctx, parameter.name) is not _TYPED:
            continue
        held = ctx.params[parameter.name]
        for value in held if isinstance(held, tuple) else (held,):
            if isinstance(parameter, click.Argument):
                words.append(value)
            elif isinstance(value, bool):
                words.append((parameter.opts if value else parameter.secondary_opts)[-1])
            else:
                words += [parameter.opts[-1], str(value)]
    typed = ctx.meta.get("hessdiag.argv", ())
    for flag, takes in (("--config", True), ("--no-config", False)):
        if flag in typed:
            start = typed.index(flag)
            words += typed[start : start + 1 + takes]
    return tuple(words)


def _of_model(function: Callable[..., int], shown: str, weights: str) -> Callable[..., int]:
    names = OF_PROBLEM

    @functools.wraps(function)
    def command(**values: Any) -> int:
        ctx = click.get_current_context()
        taken = {name: values.pop(name) for name in names}
        if "FILE" in shown and (saved := saved_result(ctx, taken["models"])) is not None:
            return function(targets=(), saved=saved, **values)
        asked = taken["models"] or ctx.meta.get(MODEL) or not shown.startswith("[")
        return function(targets=targets(ctx, **taken) if asked else (), **values)

    own = (
        click.argument("models", nargs=-1, metavar=shown),
        click.option("--weights", multiple=True, metavar="PATH[#KEY]", help=weights),
    )
    return _stack(command, (*own, *_MODEL))


def state_option(of: str) -> Decorator:
    """--state, the file with what the optimizer that another option names had accumulated."""
    return click.option(
        "--state",
        metavar="PATH[#KEY]",
        help=f"What the optimizer had accumulated: ckpt.pt#optimizer; train.py:make as {of} tells its order.",
    )


class MetricText(NamedTuple):
    """What the command line says of a metric.

    Attributes:
        spec: The optimizer, or the file that holds its state.
        state: That file, beside the optimizer's name.
    """

    spec: str
    state: str | None = None


def metric_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add --metric and the state that goes with it; the command gets `metric`, a `MetricText` or `None`."""

    @functools.wraps(function)
    def command(**values: Any) -> int:
        spec, state = values.pop("metric"), values.pop("state")
        if state is not None and spec is None:
            raise SpecError("--state is of the optimizer in whose metric it is taken.", f"--metric {state}")
        return function(metric=None if spec is None else MetricText(spec, state), **values)

    own = (
        click.option(
            "--metric",
            metavar="SPEC",
            help="Take it in an optimizer's metric, P^(-1/2) H P^(-1/2): adam, 'adam(lr=1e-4)', ckpt.pt#optimizer.",
        ),
        state_option("--metric"),
    )
    return _stack(command, own)


def output_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add all that concerns the answer; the command gets `out`, an `Output` that was checked already."""
    names = tuple(inspect.signature(output.prepare).parameters)

    @functools.wraps(function)
    def command(**values: Any) -> int:
        taken = {name: values.pop(name) for name in names}
        return function(out=output.prepare(**taken), **values)

    show = click.option("--traceback", is_flag=True, expose_value=False, help="Show the traceback of an error.")
    return _stack(config.option(instead.options(show(command))), _OUTPUT)


def _stack(command: Callable[..., int], decorators: tuple[Decorator, ...]) -> Callable[..., int]:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def targets(ctx: click.Context, models: tuple[str, ...], weights: tuple[str, ...], **common: Any) -> tuple[Target, ...]:
    """What MODEL..., --weights and the configuration ask for, as one target per checkpoint.

    Raises:
        SpecError: if there is no model, or both several models and several weights.
    """
    models, weights = named(ctx, models, weights)
    if not models:
        found = ctx.meta.get(UNNAMED)
        usual = f"{ctx.command_path} builtin:lenet, {ctx.command_path} train.py:setup, or hessdiag init"
        why = f": that of {found} counts where the file is named" if found else ""
        raise SpecError(f"no MODEL was given{why}.", f"{ctx.command_path} --config {found}" if found else usual)
    if len(models) > 1 and len(weights) > 1:
        raise SpecError("a trajectory takes several MODELs or several --weights, not both.")
    for text in models:
        spec.parse(text)  # a typing error in the last one is said before the first is measured
    _announce_config(ctx, models, common)
    pairs = [(model, weight) for model in models for weight in (weights or (None,))]
    varying = [weight if len(weights) > 1 and weight else model for model, weight in pairs]
    return tuple(
        Target(label, {"model": model, "weights": weight, **common})
        for (model, weight), label in zip(pairs, _labels(varying), strict=True)
    )


def named(
    ctx: click.Context, models: tuple[str, ...], weights: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Models and weights: with a model in the configuration, files on the command line are weights for it.

    Raises:
        SpecError: if weights are given twice.
    """
    configured = ctx.meta.get(MODEL)
    if not configured:
        return models, weights
    if models and all(_is_file(model) for model in models):
        if ctx.get_parameter_source("weights") is click.core.ParameterSource.COMMANDLINE:
            raise SpecError(
                f"{origins(ctx)['models'].where} names the model {configured}, so {models[0]} would be its weights, "
                "and --weights gives others.",
                "--no-config, or only one of the two",
            )
        return (configured,), models
    return models or (configured,), weights


def saved_result(ctx: click.Context, models: tuple[str, ...]) -> str | None:
    """The path, where a saved result was given in the place of a model.

    Raises:
        SpecError: if options of a model were given with it.
    """
    if len(models) != 1 or not documents.is_document(models[0]):
        return None
    stray = next((name for name in OF_PROBLEM[1:] if _source(ctx, name) is _TYPED), None)
    if stray is not None:
        raise SpecError(
            f"--{stray.replace('_', '-')} is of a MODEL, and {models[0]} is a saved result.",
            f"hessdiag report {models[0]}",
        )
    return models[0]


_TYPED = click.core.ParameterSource.COMMANDLINE


def _source(ctx: click.Context, name: str | None) -> click.core.ParameterSource | None:
    return ctx.get_parameter_source(name or "")


def _is_file(text: str) -> bool:
    try:
        return spec.parse(text).kind == "file"
    except SpecError:
        return False  # said where it is loaded


def _labels(texts: list[str]) -> list[str]:
    """File names alone, or the arguments that differ between calls of one function, where those tell models apart."""
    names = [PurePath(text).name if _is_file(text) else text for text in texts]
    return next((labels for labels in (_arguments(texts), names) if len(set(labels)) == len(texts)), texts)


def _arguments(texts: list[str]) -> list[str]:
    """Of calls of one function, the arguments that are not the same in all; nothing for other texts."""
    try:
        calls = [spec.parse(text) for text in texts]
    except SpecError:
        return []
    if any(call.arguments is None for call in calls) or len({(call.source, call.attribute) for call in calls}) > 1:
        return []
    given = [call.keywords for call in calls]
    varying = [key for key in dict.fromkeys(itertools.chain(*given)) if len({str(one.get(key)) for one in given}) > 1]
    return [", ".join(f"{key}={one[key]}" for key in varying if key in one) for one in given]


def _announce_config(ctx: click.Context, models: tuple[str, ...], common: dict[str, Any]) -> None:
    """Say which code and data come from the configuration: a file must not choose them in silence."""
    used = {"models": models[0]} if models == (ctx.meta.get(MODEL),) else {}
    for name in ("weights", "data", "loss", "objective"):
        if ctx.get_parameter_source(name) is click.core.ParameterSource.DEFAULT_MAP:
            used[name] = common.get(name) or ctx.params[name]
    if "weights" in used:
        used["weights"] = ", ".join(used["weights"])
    places = {name: origins(ctx)[name].where for name in used}
    for where in dict.fromkeys(places.values()):
        said = [
            f"{name.removesuffix('s') if name == 'models' else name} = {used[name]}"
            for name in used
            if places[name] == where
        ]
        say(f"using {where} ({', '.join(said)})")
