"""`hessdiag vanishing [MODEL]`: random networks over a grid of depths."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import click

from hessdiag.cli.answer import answer
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SEED, Names, NumberOr, Numbers, Size
from hessdiag.cli.options import DEVICE, DTYPES, LOSS, output_options, resume_option
from hessdiag.cli.output import Output
from hessdiag.cli.script.arguments import Arguments
from hessdiag.errors import SpecError
from hessdiag.nets import ACTIVATIONS, INITS
from hessdiag.questions.common.ensembles.built import Fresh, as_training_starts, builder
from hessdiag.questions.common.result import ModelSubject
from hessdiag.questions.vanishing.place import PLACE, at_depth, check

if TYPE_CHECKING:
    from hessdiag.cli.progress import Telling
    from hessdiag.questions.vanishing.result import Vanishing

OF_MODEL = ("data", "loss", "objective", "dtype", "trust_code", "max_unpacked")
OF_MLP = ("width", "activation")


@dataclass(frozen=True, kw_only=True)
class Asked(Fresh):
    """The options of one command line, by the names of their flags."""

    model: str | None
    depth: int | tuple[int, ...]
    width: int | Literal["same"]
    init: str | None
    distribution: Literal["uniform", "normal"] | None
    activation: str
    seeds: int | None
    hessian_seeds: int | None


ARGUMENTS = Arguments(
    loads=lambda params: as_training_starts(params["batch"]) | {"place": PLACE},
    refuse=lambda params: _refuse_strangers(params["model"]),
)


@click.command("vanishing", cls=Command, arguments=ARGUMENTS)
@click.argument("model", metavar="[MODEL]", required=False)
@click.option(
    "--depth",
    type=Numbers(),
    metavar="N|N,N,...",
    default=32,
    show_default=True,
    help="Deepest network, in weight matrices: powers of two up to it. Several: these depths.",
)
@click.option(
    "--width",
    type=NumberOr("same"),
    metavar="N|same",
    default=32,
    show_default=True,
    help="Units per layer; same: width = depth.",
)
@click.option(
    "--init",
    type=Names(list(INITS)),
    help="Default: he_uniform for relu, else xavier_uniform; with MODEL its own.",
)
@click.option("--distribution", type=Names(("uniform", "normal")), help="Draw from this, at the init's variance.")
@click.option("--activation", type=Names(list(ACTIVATIONS)), default="relu", show_default=True)
@click.option(
    "--seeds",
    type=click.IntRange(min=2),
    metavar="N",
    help="Networks per depth. Default: 200; with MODEL 10.",
)
@click.option(
    "--hessian-seeds",
    type=click.IntRange(min=2),
    metavar="N",
    help="Networks for the Hessian norms. Default: what is quick.",
)
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Samples in the batch.")
@click.option("--data", metavar="SPEC", help="With MODEL: the batch, batch.npz or train.py:loader. Without: synthetic.")
@click.option("--loss", type=LOSS, metavar="NAME|SPEC", help="With MODEL: ce, mse, bce, nll, output, or losses.py:f.")
@click.option("--objective", metavar="SPEC", help="With MODEL: FILE.py:f of (model, batch) -> scalar.")
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True, help="Which random networks.")
@click.option("--device", type=DEVICE, default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda[:i].")
@click.option("--dtype", type=Names(DTYPES), help="With MODEL. Default: float64 for builtins, else the model's own.")
@click.option("--trust-code", is_flag=True, help="With MODEL: run code that lies inside the named files.")
@click.option(
    "--max-unpacked",
    type=Size(),
    metavar="SIZE",
    help="With MODEL: most that a file may unpack to, as 4GB. Default: 16 times its size, and 256 MB if that is more.",
)
@resume_option
@output_options
def command(
    model: str | None,
    depth: int | tuple[int, ...],
    width: int | Literal["same"],
    init: str | None,
    distribution: Literal["uniform", "normal"] | None,
    activation: str,
    seeds: int | None,
    hessian_seeds: int | None,
    batch: int | None,
    data: str | None,
    loss: str | None,
    objective: str | None,
    seed: int,
    device: str,
    dtype: str | None,
    trust_code: bool,
    max_unpacked: int | None,
    resume: str | None,
    out: Output,
) -> int:
    """How do gradient and Hessian norms change with depth, and within the deepest network?

    Without MODEL, draws fully connected networks over a grid of depths up to --depth, and shows medians, means and
    quantiles of the norms beside what theory predicts.

    With MODEL, any spec that has {depth} in it, builds that network at every depth with fresh random weights (or with
    those of --init), in training mode, and measures the same norms on --data or a synthetic batch.

    \b
    hessdiag vanishing --depth 128 --width 32
    hessdiag vanishing --init lecun --activation linear -o vanishing.html
    hessdiag vanishing 'train.py:build(depth={depth})' --depth 16 --data batch.npz --loss ce
    hessdiag vanishing 'builtin:fcn(depth={depth}, channels=8)' --init he_normal
    hessdiag vanishing 'builtin:mlp(depth={depth}, width={depth})' --resume kept
    """  # noqa: D301
    _refuse_strangers(model)
    asked = Asked(
        model=model,
        depth=depth,
        width=width,
        init=init,
        distribution=distribution,
        activation=activation,
        seeds=seeds,
        hessian_seeds=hessian_seeds,
        batch=batch,
        data=data,
        loss=loss,
        objective=objective,
        seed=seed,
        device=device,
        dtype=dtype,
        trust_code=trust_code,
        max_unpacked=max_unpacked,
        resume=resume,
    )
    if model is None:
        return answer(partial(_own, asked), out, unmeasured=partial(_nothing_of_own, asked))
    nothing = partial(_nothing_of_model, asked, model)
    return answer(partial(_of_model, asked, model), out, unmeasured=nothing, costed=False)


def _own(asked: Asked, progress: "Telling") -> "Vanishing":
    """Measure fully connected networks."""
    from hessdiag.questions.vanishing.measure import SAMPLES, SEEDS, vanishing

    return vanishing(
        depth=asked.depth,
        width=asked.width,
        init=asked.init,
        activation=asked.activation,
        seeds=asked.seeds or SEEDS,
        hessian_seeds=asked.hessian_seeds,
        batch=asked.batch or SAMPLES,
        seed=asked.seed,
        device=asked.device,
        distribution=asked.distribution,
        resume=asked.resume,
        progress=progress,
    )


def _nothing_of_own(asked: Asked) -> "Vanishing":
    from hessdiag.questions.common.ensembles.plan import built_in
    from hessdiag.questions.vanishing.measure import SAMPLES, SEEDS, unmeasured

    return unmeasured(
        built_in(asked.device, asked.device, asked.seed),
        width=asked.width,
        init=asked.init,
        distribution=asked.distribution,
        activation=asked.activation,
        seeds=asked.seeds or SEEDS,
        batch=asked.batch or SAMPLES,
    )


def _of_model(asked: Asked, spec: str, progress: "Telling") -> "Vanishing":
    """Measure networks that a spec builds."""
    from hessdiag.questions.vanishing.models import SEEDS, vanishing_of

    found = vanishing_of(
        builder(partial(at_depth, spec), asked),
        depth=asked.depth,
        seeds=asked.seeds or SEEDS,
        hessian_seeds=asked.hessian_seeds,
        init=asked.init,
        distribution=asked.distribution,
        seed=asked.seed,
        resume=asked.resume,
        progress=progress,
    )
    assert isinstance(found.problem, ModelSubject)
    return replace(found, problem=replace(found.problem, spec=spec))


def _nothing_of_model(asked: Asked, spec: str) -> "Vanishing":
    from hessdiag.questions.vanishing.measure import unmeasured
    from hessdiag.questions.vanishing.models import SEEDS

    return unmeasured(asked.subject(spec), seeds=asked.seeds or SEEDS, batch=0)


def _refuse_strangers(model: str | None) -> None:
    """Refuse options that the other of the two forms takes, and a MODEL without a place for the depth.

    Raises:
        SpecError: naming the option and where it belongs.
    """
    ctx = click.get_current_context()
    for name in OF_MLP if model is not None else OF_MODEL:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}"
            if model is None:
                raise SpecError(
                    f"{flag} needs a MODEL; without one, random fully connected networks are measured.",
                    f"hessdiag vanishing 'train.py:build(depth={PLACE})' {flag} ...",
                )
            raise SpecError(
                f"{flag} is for the networks measured without MODEL; {model} has its own.",
                f"no {flag}; in the spec it may grow with the depth: 'builtin:mlp(depth={PLACE}, width={PLACE})'",
            )
    if model is not None:
        check(model)
