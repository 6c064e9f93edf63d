"""`hessdiag compare A.json B.json [...]`: saved results against each other."""

import click

from hessdiag.cli.answer import answer
from hessdiag.cli.help import Command
from hessdiag.cli.kinds import SWITCH
from hessdiag.cli.options import output_options
from hessdiag.cli.output import Output
from hessdiag.errors import SpecError
from hessdiag.questions.compare.measure import FEWEST, compare


@click.command("compare", cls=Command)
@click.argument("results", nargs=-1, metavar="RESULT.json...")
@click.option("--by-step", is_flag=True, type=SWITCH, help="Order the results by the number in their names.")
@output_options
def command(results: tuple[str, ...], by_step: bool, out: Output) -> int:
    """What changed between results of one command, in which direction, and beyond the errors of both?

    The first is what was before, the last what is after; more than two are a trajectory. Gates: `significant`
    counts what changed, `worse` what got worse where there is such a thing, `differences` settings that differ.

    \b
    hessdiag compare before.json after.json
    hessdiag compare main.json branch.json --fail-if 'significant > 0'
    hessdiag compare step*.json --by-step -o along.html
    """  # noqa: D301
    if len(results) < FEWEST:
        given = results[0] if results else "before.json"
        raise SpecError("a comparison takes two results or more.", f"hessdiag compare {given} after.json")
    a, b, *more = results
    return answer(lambda progress: compare(a, b, *more, by_step=by_step), out, costed=False)
