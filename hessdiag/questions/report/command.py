"""`hessdiag report MODEL`: everything that applies, under one budget; `hessdiag report FILE`: a saved result, shown."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hessdiag.cli.answer import answer_of_model
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import Budget, Names
from hessdiag.cli.options import Target, model_or_result_options, named_again, output_options, state_option
from hessdiag.cli.output import Output, finish
from hessdiag.cli.script.arguments import Arguments
from hessdiag.cli.settings.spelled import argv
from hessdiag.questions import documents, metrics
from hessdiag.questions.report.asked import PRESETS
from hessdiag.questions.report.result import Preset

if TYPE_CHECKING:
    from types import ModuleType

    from hessdiag.problem.problem import Problem
    from hessdiag.questions.common.runs.progress import Progress
    from hessdiag.questions.report.result import Report

LOADS = {"broken_loss": True}  # `check` says why


@click.command("report", cls=Command, arguments=Arguments(loads=lambda params: LOADS))
@model_or_result_options
@click.option(
    "--preset",
    type=Names(PRESETS),
    default="normal",
    show_default=True,
    help="quick: 20s, fewer rows and probes; normal: 60s; full: no limit.",
)
@click.option("--budget", type=Budget(), metavar="TIME", help="For all questions, once loaded: 60s, 2min, none.")
@click.option("--optimizer", metavar="SPEC", help="Yours, for check and sharpness. Default: adam(lr=1e-3) stands in.")
@click.option(
    "--lr", type=click.FloatRange(min=0, min_open=True), metavar="X", help="Its learning rate; alone, of plain SGD."
)
@state_option("--optimizer")
@output_options
def command(
    targets: tuple[Target, ...],
    saved: str | None,
    preset: Preset,
    budget: float | None,
    optimizer: str | None,
    lr: float | None,
    state: str | None,
    out: Output,
) -> int:
    """What is there to know about this model? Every question that applies, under one budget of time.

    What tells most for its price comes first. What a question takes is announced from products that were timed here;
    one that there is no time for gets cheaper options, or is left out with what it would take and its command.

    With a saved result instead of a MODEL: the same result as text, Markdown, JSON or one HTML page.
    With the log of a hessdiag.Monitor: its curves along training, and what they say.

    \b
    hessdiag report train.py:setup --optimizer adam --lr 1e-3 -o report.html
    hessdiag report train.py:setup --optimizer train.py:make --state ckpt.pt#optimizer
    hessdiag report model.pt --data batch.npz --loss ce --budget 2min
    hessdiag report model.pt --preset quick --fail-if 'eigs.largest > 100'
    hessdiag report r.json -o r.html
    hessdiag report run.jsonl -o run.html
    """  # noqa: D301
    if saved is not None:
        return _rendered(Path(saved), out)
    for gate in out.gates:
        metrics.check(gate.metric, "report", of_model=True)
    scripts: dict[Path, ModuleType] = {}
    named = named_again(click.get_current_context())

    def measure(problem: "Problem", seed: int, progress: "Progress") -> "Report":
        from hessdiag.questions.report.ask import Asking
        from hessdiag.questions.report.measure import report_of

        request = targets[0].request
        asking = Asking(
            problem=problem,
            named=named,
            optimizer=optimizer,
            lr=lr,
            seed=seed,
            report=progress,
            batch_size=request["batch_size"],
            scripts=scripts,
            state=state,
            redrawn=request["weights"] is None and request["model"].startswith("builtin:"),
        )
        return report_of(asking, preset, budget)

    asked = tuple(_broken_too(target) for target in targets)
    return answer_of_model(asked, measure, out, scripts=scripts, costed=False)


def _broken_too(target: Target) -> Target:
    """With a loss that is not finite, too: `check` says why."""
    return Target(target.label, {**target.request, **LOADS})


def _rendered(path: Path, out: Output) -> int:
    doc = documents.load_document(path)
    if documents.is_log(path):
        doc["provenance"]["argv"] = list(argv(click.get_current_context()))
    for gate in out.gates if "records" not in doc["result"] else ():
        metrics.check(gate.metric, doc["command"])
    return finish(doc, out, computed=False)
