"""`hessdiag escape [MODEL]`: which optimizer leaves this plateau, when, and why."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SWITCH, Names
from hessdiag.cli.options import Target, optional_model_options, output_options
from hessdiag.cli.output import Output, speaks
from hessdiag.cli.script.arguments import Arguments, Params
from hessdiag.cli.speech import say
from hessdiag.errors import ExitCode, SpecError
from hessdiag.nets import INITS
from hessdiag.numbers import counted

if TYPE_CHECKING:
    from hessdiag.problem.problem import Problem
    from hessdiag.questions.common.runs.progress import Progress
    from hessdiag.questions.escape.result import Escape

SECONDS, SECONDS_OF_PAPER = 60.0, 180.0  # the paper's network is deeper than most
PAPER = "builtin:deep_mlp(depth=128, width=32)"
OF_A_MODEL = ("weights", "data", "loss", "objective", "batches", "layers")


def _is_drawn(model: str, weights: object, init: str | None) -> bool:
    """Whether a seed makes the network, so that each race is run on one of its own."""
    return not weights and model.startswith("builtin:") and init is None


def _passed(params: Params) -> dict[str, Any]:
    """Arguments of the race that are not options as they are typed."""
    return {
        "optimizers": params["optimizers"] or (None if params["lr"] is None else ("sgd",)),
        "budget": params["budget"] or params["check"],
        "time_budget": params["time_budget"] or (SECONDS if params["models"] else SECONDS_OF_PAPER),
    }


ARGUMENTS = Arguments(
    loads=lambda params: {} if params["models"] else {"model": PAPER},
    passes=_passed,
    refuse=lambda params: _refuse(params["optimizers"], params["lr"], params["budget"], params["check"]),
    builds=lambda params: _is_drawn((*params["models"], PAPER)[0], params["weights"], params["init"]),
)


@click.command("escape", cls=Command, arguments=ARGUMENTS)
@optional_model_options
@click.option(
    "--optimizer",
    "optimizers",
    multiple=True,
    metavar="SPEC",
    help="Who runs: adam(lr=1e-3), tr-rmsprop, train.py:make, pkg.mod:Class(lr=1). Repeatable. Default: the usual.",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Its learning rate; alone, that of plain gradient descent. Default: searched.",
)
@click.option("--init", type=Names(list(INITS)), help="Draw the weights anew for each seed. Default: as they are.")
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", default=3, show_default=True, help="Runs of each.")
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="N",
    help="Backpropagations of a run. Default: what time there is for.",
)
@click.option(
    "--time-budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="For all of it. Default: 60, and 180 without MODEL.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    metavar="X",
    help="Share of the plateau's loss below which a run is out. Default: 0.9.",
)
@click.option("--landscape", is_flag=True, type=SWITCH, help="Also the loss in the plane of gradient and curvature.")
@click.option(
    "--check",
    type=click.IntRange(min=1),
    metavar="N",
    help="Exit 1 unless the named optimizer is out within N backpropagations in every run.",
)
@output_options
def command(
    targets: tuple[Target, ...],
    optimizers: tuple[str, ...],
    lr: float | None,
    init: str | None,
    seeds: int,
    budget: int | None,
    time_budget: float | None,
    threshold: float | None,
    landscape: bool,
    check: int | None,
    out: Output,
) -> int:
    """Which optimizer leaves this plateau, when, and why?

    Races optimizers from the same start, counts gradients and products with curvature, and puts what was predicted
    beside what was measured. The model is copied, and stays as it is.

    Without MODEL: the ReLU network of 128 layers of 32 units that the paper's gradients vanish in.

    \b
    hessdiag escape
    hessdiag escape train.py:setup --optimizer adam --lr 1e-3 --check 200
    hessdiag escape builtin:deep_mlp --init lecun --seeds 5 -o race.html
    hessdiag escape train.py:setup --optimizer 'rmsprop(eps=1e-30)' --optimizer tr-rmsprop
    """  # noqa: D301
    _refuse(optimizers, lr, budget, check)
    made: list[Escape] = []
    asked = {
        "lr": lr,
        "seeds": seeds,
        "threshold": threshold,
        "landscape": landscape,
        **_passed({**click.get_current_context().params, "models": targets}),
    }

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Escape":
        made.append(_race(target, problem, init, asked, seed, progress))
        return made[0]

    target = (targets or (_of_paper(),))[0]
    code = answer_of_model(targets or (target,), measure, out)
    return code if check is None or code != ExitCode.OK else _checked(made[0], check)


def _refuse(optimizers: Sequence[str], lr: float | None, budget: int | None, check: int | None) -> None:
    """Refuse what cannot be meant.

    Raises:
        SpecError: saying what can.
    """
    if lr is not None and optimizers:
        from hessdiag.questions.escape.contenders import split

        named = [one for text in optimizers for one in split(text)]
        if len(named) > 1:
            raise SpecError(
                f"--lr is of one optimizer, and {len(named)} are named.",
                f"each with its own: --optimizer '{named[0].partition('(')[0]}(lr={lr:g})'",
            )
    if check is not None and not optimizers and lr is None:
        raise SpecError("--check needs the optimizer that it is about.", f"--optimizer 'adam(lr=1e-3)' --check {check}")
    if check is not None and budget is not None and budget < check:
        raise SpecError(f"--check {check} cannot be seen in a --budget of {budget}.", f"--check {check}, which sets it")


def _of_paper() -> Target:
    """What is raced without MODEL, with the options that apply to it.

    Raises:
        SpecError: if others were given.
    """
    ctx = click.get_current_context()
    stray = next(
        (name for name in OF_A_MODEL if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE), None
    )
    if stray is not None:
        raise SpecError(f"--{stray} needs a MODEL.", f"{ctx.command_path} train.py:setup")
    taken = ("batch_size", "device", "dtype", "seed", "train_mode")
    nothing = dict.fromkeys(("data", "loss", "objective", "batches", "layers", "max_unpacked"))
    common = {**nothing, "strict": True, "trust_code": False, **{name: ctx.params[name] for name in taken}}
    return Target(PAPER, {"model": PAPER, "weights": None, **common})


def _race(
    target: Target, problem: "Problem", init: str | None, asked: dict[str, Any], seed: int, progress: "Progress"
) -> "Escape":
    """One race; of networks that a seed makes, each on one of its own."""
    from hessdiag.problem.load import load_problem
    from hessdiag.questions.escape.measure import escape, escape_of

    request = target.load_request()
    asked = {**asked, "batch_size": request.batch_size, "seed": seed, "progress": progress}
    if _is_drawn(request.model, request.weights, init):
        return escape_of(lambda own: problem if own == seed else load_problem(replace(request, seed=own)), **asked)
    return escape(problem, init=init, **asked)


def _checked(result: "Escape", most: int) -> int:
    """The exit code by --check, with a line on what violates it."""
    late = [run for run in result.runs if run.backprops is None or run.backprops > most]
    if result.runs and not late:
        return ExitCode.OK
    if speaks():
        for name in dict.fromkeys(run.optimizer for run in late):
            own = [run for run in result.runs if run.optimizer == name]
            out = [run.backprops for run in own if run.backprops is not None]
            how = f"out in {len(out)} of {counted(len(own), 'run')}"
            slowest = f", at the latest after {counted(max(out), 'backpropagation')}" if out else ""
            say(f"gate: {name} is {how}{slowest}; --check allows {most:,}")
        if not result.runs:
            say(f"gate: no run was made, and --check {most:,} needs one")
    return ExitCode.GATE
