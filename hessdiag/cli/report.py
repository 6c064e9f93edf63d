"""`hessdiag report FILE`: render a saved result, on a machine that need not have torch."""

from pathlib import Path

import click

from hessdiag.cli.help import Command
from hessdiag.cli.options import output_options
from hessdiag.cli.output import Output, finish
from hessdiag.errors import SpecError
from hessdiag.questions import documents, metrics


@click.command("report", cls=Command)
@click.argument("result", metavar="RESULT.json")
@output_options
def command(result: str, out: Output) -> int:
    """Render a saved result as text, Markdown, JSON or one self-contained HTML page.

    \b
    hessdiag diag-share model.pt --json > result.json
    hessdiag report result.json -o result.html
    """  # noqa: D301
    if not result.lower().endswith(".json") and not Path(result).is_file():
        raise SpecError(
            f"{result} is not a saved result (a .json file).", f"hessdiag diag-share {result} -o report.html"
        )
    doc = documents.load_document(Path(result))
    for gate in out.gates:
        metrics.check(gate.metric, doc["command"])
    return finish(doc, out, computed=False)
