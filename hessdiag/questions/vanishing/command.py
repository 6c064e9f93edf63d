"""`hessdiag vanishing [MODEL]`: random networks over a grid of depths."""

import contextlib
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import click

from hessdiag.cli import signals
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SEED, Names, NumberOr, Numbers, Size
from hessdiag.cli.options import DEVICE, DTYPES, LOSS, output_options, resume_option
from hessdiag.cli.output import Output, finish
from hessdiag.cli.progress import reporter
from hessdiag.cli.provenance import Clock, collect
from hessdiag.errors import SpecError
from hessdiag.nets import ACTIVATIONS, INITS
from hessdiag.problem import spec
from hessdiag.report.document import document

if TYPE_CHECKING:
    from hessdiag.questions.vanishing.result import Vanishing

PLACE = "{depth}"
OF_MODEL = ("data", "loss", "objective", "dtype", "trust_code", "max_unpacked")
OF_MLP = ("width", "activation")
DEPTH_OF = {"mlp": "depth", "fcn": "depth", "resnet": "depth", "chain": "length"}  # what builtins call it


@click.command("vanishing", cls=Command)
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
    seed: int,
    device: str,
    resume: str | None,
    out: Output,
    **of_model: Any,
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
    clock = Clock()
    common: dict[str, Any] = {
        "depth": depth,
        "init": init,
        "distribution": distribution,
        "hessian_seeds": hessian_seeds,
        "seed": seed,
        "resume": resume,
    }
    if seeds is not None:
        common["seeds"] = seeds
    _refuse_strangers(model)
    if model is not None:
        request = {"samples": batch, "device": device, **of_model}
        return _of_model(model, request, common, out, clock)
    from hessdiag.problem.device import notes as device_notes
    from hessdiag.questions.vanishing.measure import SAMPLES, SEEDS, unmeasured, vanishing

    own: dict[str, Any] = {"width": width, "activation": activation, "device": device}
    if batch is not None:
        own["batch"] = batch
    with signals.computing(), reporter(out.progress) as progress:
        try:
            measured = vanishing(**common, **own, progress=progress)
        except KeyboardInterrupt:
            own |= {"init": init, "distribution": distribution, "seeds": seeds or SEEDS, "batch": batch or SAMPLES}
            measured = unmeasured(seed=seed, **own)
    problem = {"model": "builtin:mlp", "device": measured.device, "dtype": "float64", "seed": seed}
    problem["notes"] = list(device_notes(device, measured.device))
    return _answer(measured, problem, out, clock)


def _refuse_strangers(model: str | None) -> None:
    """Refuse options that the other of the two forms takes.

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
    if model is not None and PLACE not in model:
        raise SpecError(
            f"{model!r} is one network, and depth is what is varied: its spec must have {PLACE} in it.",
            f"hessdiag vanishing {shlex.quote(_with_place(spec.parse(model)))}",
        )


def _with_place(model: spec.Spec) -> str:
    """A spec with the place for the depth in it, as like the given one as can be."""
    if model.kind in ("script", "module"):
        head = f"{model.source}:{model.attribute}"
    elif model.kind == "builtin" and model.source in DEPTH_OF:
        head = f"builtin:{model.source}"
    else:
        return f"train.py:build(depth={PLACE})"
    name = DEPTH_OF.get(model.source, "depth")
    others = "".join(f", {key}={value!r}" for key, value in model.keywords.items() if key != name)
    return f"{head}({name}={PLACE}{others})"


def _of_model(model: str, request: Mapping[str, Any], common: Mapping[str, Any], out: Output, clock: Clock) -> int:
    """Measure networks that a spec builds."""
    spec.parse(model.replace(PLACE, "1"))  # a typing error is said before torch is loaded
    # What the user's own code prints is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr), signals.computing(), reporter(out.progress) as progress:
        from hessdiag.problem.describe import describe
        from hessdiag.problem.load import ProblemRequest, Shared, load_problem
        from hessdiag.problem.problem import Problem
        from hessdiag.questions.vanishing.measure import unmeasured
        from hessdiag.questions.vanishing.models import SEEDS, vanishing_of

        shared = Shared()

        def build(depth: int, seed: int) -> Problem:
            # In training mode: the running statistics of a fresh BatchNorm have seen no data.
            text = model.replace(PLACE, str(depth))
            return load_problem(ProblemRequest(text, seed=seed, batches=1, train_mode=True, **request), shared)

        try:
            measured = vanishing_of(build, progress=progress, **common)
        except KeyboardInterrupt:
            seeds, place = common.get("seeds", SEEDS), request["device"]
            measured = unmeasured(seeds=seeds, batch=0, seed=common["seed"], device=place)
        described: dict[str, Any] = {
            "model": model, "device": measured.device, "dtype": request["dtype"] or "its own"
        }  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            if measured.depths:
                described = describe(build(measured.depths[-1].depth, common["seed"]))
    described |= {"spec": model, "seed": common["seed"], "weights_sha256": None}
    if described.get("synthetic"):
        described["data_sha256"] = None  # one batch for each network
    return _answer(measured, described, out, clock)


def _answer(measured: "Vanishing", problem: Mapping[str, Any], out: Output, clock: Clock) -> int:
    return finish(
        document(
            "vanishing",
            status=measured.status,
            problem=problem,
            result=measured.to_result(),
            theory=measured.theory,
            checks=measured.checks,
            thresholds=measured.thresholds,
            verdict=measured.verdict,
            provenance=collect(
                clock, measured.device, problem.get("kernels_forced", ()), resumed_pieces=measured.resumed_pieces
            ),
        ),
        out,
    )
