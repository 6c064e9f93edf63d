"""`hessdiag check MODEL`: why it will not train, and whether a cure helps."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hessdiag.cli import output, weights
from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SWITCH
from hessdiag.cli.options import Target, model_options, output_options
from hessdiag.cli.script.arguments import Arguments
from hessdiag.cli.speech import say
from hessdiag.errors import SpecError

if TYPE_CHECKING:
    from types import ModuleType

    from hessdiag.problem.problem import Problem
    from hessdiag.questions.check.result import Check
    from hessdiag.questions.common.runs.progress import Progress

LOADS = {"broken_loss": True}  # a loss that is not finite is what someone may want to know about


@click.command("check", cls=Command, arguments=Arguments(loads=lambda params: LOADS))
@model_options
@click.option(
    "--optimizer",
    metavar="SPEC",
    help="Yours, with its settings: adam, sgd(momentum=0.9), train.py:make, ckpt.pt#optimizer. Default: adam(lr=1e-3).",
)
@click.option("--lr", type=float, metavar="X", help="Its learning rate; alone, that of plain gradient descent.")
@click.option(
    "--try", "attempt", is_flag=True, type=SWITCH, help="Try the first cure on a copy: train both, show both losses."
)
@click.option("--save", metavar="FILE", help="Write the mended weights to FILE.safetensors or FILE.pt; with --try.")
@output_options
def command(
    targets: tuple[Target, ...],
    optimizer: str | None,
    lr: float | None,
    attempt: bool,
    save: str | None,
    out: output.Output,
) -> int:
    """Why will it not train? The true cause first: which layer, by which number, and what to do.

    One pass forward and back on the actual weights, data, mode and loss, and on small models some steps of the
    optimizer, on a copy. With --try the first cure is tried, too.

    \b
    hessdiag check train.py:setup --optimizer adam --lr 1e-3
    hessdiag check model.pt --data batch.npz --loss ce --try --save mended.pt
    hessdiag check train.py:setup --fail-if 'confidence >= 0.7'
    """  # noqa: D301
    if save is not None and not attempt:
        raise SpecError("--save writes the weights of a cure that was tried.", f"--try --save {shlex.quote(save)}")
    file = None if save is None else weights.destination(Path(save))

    scripts: dict[Path, ModuleType] = {}

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Check":
        from hessdiag.optimizers.saved import recipe_for
        from hessdiag.questions.check.measure import check

        made = recipe_for(problem, optimizer, lr, scripts)
        return check(problem, optimizer=made, attempt=attempt, seed=seed, progress=progress)

    def write(problem: "Problem", found: "Check") -> None:
        if file is not None:
            _saved(found, file)

    asked = tuple(replace(target, request={**target.request, **LOADS}) for target in targets)
    return answer_of_model(asked, measure, out, write, scripts=scripts)


def _saved(found: "Check", to: output.Destination) -> None:
    """Write the weights of a cure that changes some, or say why there are none."""
    if found.trial is None:
        say("nothing was saved: no cure was tried.")
    elif found.trial.mended is None:
        say(f"nothing was saved: the cure ({found.trial.cure}) changes no weights.")
    else:
        weights.write(to, found.trial.mended)
