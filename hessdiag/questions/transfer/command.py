"""`hessdiag transfer 'MODEL(width={width})'`: networks of several sizes, and what the optimizer sees of each."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from hessdiag.cli.answer import answer
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SEED, Names, Numbers, Size
from hessdiag.cli.options import DEVICE, DTYPES, LOSS, output_options, resume_option
from hessdiag.cli.output import Output
from hessdiag.cli.script.arguments import Arguments, Params
from hessdiag.questions.common.ensembles.built import Fresh, as_training_starts, builder
from hessdiag.questions.transfer.result import Transfer
from hessdiag.questions.transfer.template import USUAL, at_size, refuse_single, varied

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from hessdiag.cli.progress import Telling


@dataclass(frozen=True, kw_only=True)
class Asked(Fresh):
    """The options of one command line, by the names of their flags."""

    model: str
    widths: int | tuple[int, ...] | None
    depths: int | tuple[int, ...] | None
    optimizer: str | None
    lr: float | None
    multipliers: Literal["groups", "mup"] | None
    seeds: int
    steps: int
    tolerance: float

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths or depths, as the spec leaves open."""
        return sizes(self.model, self.widths, self.depths)


def sizes(model: str, widths: int | tuple[int, ...] | None, depths: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """Widths or depths, as the spec leaves open."""
    of = varied(model)
    given = depths if of == "depth" else widths
    return USUAL[of] if given is None else (given,) if isinstance(given, int) else given


def _loads(params: Params) -> dict[str, Any]:
    return as_training_starts(params["batch"]) | {"place": f"{{{varied(params['model'])}}}"}


def _passes(params: Params) -> dict[str, Any]:
    of = varied(params["model"])
    given = params["depths"] if of == "depth" else params["widths"]
    usual = of == "width" and given is None
    return {} if usual else {"widths": sizes(params["model"], params["widths"], params["depths"]), "varied": of}


def _refuse(params: Params) -> None:
    """Refuse a spec without a place, sizes of the other kind, and fewer than two.

    Raises:
        SpecError: with what would work.
    """
    from hessdiag.errors import SpecError

    model = params["model"]
    of = varied(model)
    other = params["depths"] if of == "width" else params["widths"]
    if other is not None:
        wrong = "depth" if of == "width" else "width"
        raise SpecError(
            f"--{wrong}s are values of {{{wrong}}}, and {model!r} has {{{of}}}.",
            f"--{of}s {','.join(map(str, USUAL[of]))}",
        )
    refuse_single(sizes(model, params["widths"], params["depths"]), of)


ARGUMENTS = Arguments(_loads, _passes, takes=("widths", "depths"), refuse=_refuse)


@click.command("transfer", cls=Command, arguments=ARGUMENTS)
@click.argument("model", metavar="MODEL")
@click.option("--widths", type=Numbers(), metavar="N,N,...", help="Values of {width}. Default: 64,128,256.")
@click.option("--depths", type=Numbers(), metavar="N,N,...", help="Values of {depth}. Default: 4,8,16.")
@click.option(
    "--optimizer",
    metavar="SPEC",
    help="Yours: adam, sgd(momentum=0.9), train.py:make, whose groups have their own lr. Default: gradient descent.",
)
@click.option("--lr", type=float, metavar="X", help="Base learning rate. Default: the optimizer's; else chosen small.")
@click.option(
    "--multipliers",
    type=Names(("groups", "mup")),
    help="Learning rates: of the optimizer's groups, or muP's table. Default: mup for builtins in it, else groups.",
)
@click.option(
    "--seeds", type=click.IntRange(min=2), metavar="N", default=5, show_default=True, help="Networks per size."
)
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", default=4, show_default=True, help="Of the optimizer."
)
@click.option(
    "--tolerance", type=float, metavar="X", default=0.2, show_default=True, help="Slopes up to this count as none."
)
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Samples in the batch.")
@click.option("--data", metavar="SPEC", help="The batch, batch.npz or train.py:loader. Without: synthetic.")
@click.option("--loss", type=LOSS, metavar="NAME|SPEC", help="ce, mse, bce, nll, output, or losses.py:f.")
@click.option("--objective", metavar="SPEC", help="FILE.py:f of (model, batch) -> scalar.")
@click.option("--seed", type=SEED, metavar="N", default=0, show_default=True, help="Which random networks.")
@click.option("--device", type=DEVICE, default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda[:i].")
@click.option("--dtype", type=Names(DTYPES), help="Default: float64 for builtins, else the model's own.")
@click.option("--trust-code", is_flag=True, help="Run code that lies inside the named files.")
@click.option(
    "--max-unpacked",
    type=Size(),
    metavar="SIZE",
    help="Most that a file may unpack to, as 4GB. Default: 16 times its size, and 256 MB if that is more.",
)
@resume_option
@output_options
def command(
    model: str,
    widths: int | tuple[int, ...] | None,
    depths: int | tuple[int, ...] | None,
    optimizer: str | None,
    lr: float | None,
    multipliers: Literal["groups", "mup"] | None,
    seeds: int,
    steps: int,
    tolerance: float,
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
    """Will a learning rate that was tuned on a small network hold on a large one?

    MODEL is any spec that has {width} or {depth} in it, in quotes. Networks of every size and seed are built as
    training starts: how do the largest eigenvalue of the Hessian, the same weighted by the learning rates (what the
    optimizer sees), and the change of every layer's weights and outputs in a few steps go with the size? Each power
    has a standard error; what drifts is named, with what would mend it.

    \b
    hessdiag transfer 'train.py:build(width={width})' --widths 64,256,1024 --optimizer train.py:make -o r.html
    hessdiag transfer 'train.py:build(layers={depth})' --depths 2,4,8 --optimizer adam --lr 3e-4
    hessdiag transfer 'builtin:mlp(width={width}, in_features=64, out_features=1)'
    hessdiag transfer 'builtin:gpt(width={width})' --optimizer adam --multipliers mup
    """  # noqa: D301
    asked = Asked(
        model=model,
        widths=widths,
        depths=depths,
        optimizer=optimizer,
        lr=lr,
        multipliers=multipliers,
        seeds=seeds,
        steps=steps,
        tolerance=tolerance,
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
    _refuse(click.get_current_context().params)
    return answer(partial(_measured, asked), out, unmeasured=partial(_nothing, asked), costed=False)


def _measured(asked: Asked, progress: "Telling") -> Transfer:
    """Measure networks that the spec builds."""
    from hessdiag.questions.transfer.measure import transfer

    scripts: dict[Path, ModuleType] = {}
    found = transfer(
        builder(partial(at_size, asked.model), asked, scripts),
        widths=asked.sizes,
        varied=varied(asked.model),
        optimizer=asked.optimizer,
        lr=asked.lr,
        multipliers=asked.multipliers,
        seeds=asked.seeds,
        steps=asked.steps,
        tolerance=asked.tolerance,
        seed=asked.seed,
        resume=asked.resume,
        scripts=scripts,
        progress=progress,
    )
    return replace(found, problem=replace(found.problem, spec=asked.model))


def _nothing(asked: Asked) -> Transfer:
    """The result of a run that was interrupted before a size was done."""
    from hessdiag.questions.transfer.verdict import findings

    result = Transfer(
        status="interrupted",
        problem=asked.subject(asked.model),
        varied=varied(asked.model),
        asked=tuple(sorted(asked.sizes)),
        seeds=asked.seeds,
        steps=asked.steps,
        optimizer=asked.optimizer or "gradient descent",
        tolerance=asked.tolerance,
    )
    return replace(result, findings=tuple(findings(result)))
