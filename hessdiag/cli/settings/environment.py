"""`HESSDIAG_SEED`, `HESSDIAG_EIGS_TOL`: options from the environment.

The same rule holds as for a file that was merely found: numbers and choices. A variable outlives the command that it
was meant for and is seen by none who reads the next one, so code, files, output and what is overwritten or forgiven
are named on the command line, or in a file that is named there.
"""

import os
import re
from collections.abc import Mapping

import click

from hessdiag.cli.kinds import harmless
from hessdiag.cli.settings.keys import ASIDE, TRUST, Setting, commands, options
from hessdiag.cli.speech import say
from hessdiag.errors import SpecError
from hessdiag.suggest import question

PREFIX = "HESSDIAG_"
HOW = "environment"


def settings(ctx: click.Context) -> dict[str, Setting]:
    """What the environment sets of the options of the command that runs, by key; of two variables the longer.

    Raises:
        SpecError: for trust, which is said on each command line.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith(PREFIX) and value.strip()}
    if not given:
        return {}
    own = options(ctx.command)
    for variable in (f"{PREFIX}{TRUST.upper()}", variable_of(TRUST, ctx.info_name)):
        if variable in given:
            raise SpecError(
                f"{variable} is set, and trust is no matter of the environment: it must be said each time.",
                f"unset {variable}, and --trust-code on the command line",
            )
    found, left = {}, []
    for name, option in own.items():
        for variable in (variable_of(name), variable_of(name, ctx.info_name)):
            if variable not in given:
                continue
            if harmless(option.type, given[variable]):
                value = re.split(r"[\s,]+", given[variable].strip()) if option.multiple else given[variable]
                found[name] = Setting(value, variable, HOW)
            else:
                left.append(variable)
    _say_left_out(left)
    known = {variable_of(name, of) for name in own for of in (None, ctx.info_name)}
    if strange := sorted(given.keys() - known):
        _say_strange(strange, ctx)
    return found


def variable_of(name: str, command: str | None = None) -> str:
    """The variable of an option, of all commands or of one.

    >>> variable_of("seed"), variable_of("rows", "diag-share")
    ('HESSDIAG_SEED', 'HESSDIAG_DIAG_SHARE_ROWS')
    """
    return PREFIX + "_".join(filter(None, (command, name))).replace("-", "_").upper()


def variables(known: Mapping[str, click.Command]) -> set[str]:
    """All that some command takes or leaves out."""
    return {
        variable_of(name, of) for command, kind in known.items() for name in options(kind) for of in (None, command)
    }


def _say_left_out(left: list[str]) -> None:
    if left:
        verb = "is" if len(left) == 1 else "are"
        say(
            f"the environment sets numbers and choices, and {', '.join(left)} {verb} left out; "
            "say it on the command line, or in a file given with --config"
        )


def _say_strange(strange: list[str], ctx: click.Context) -> None:
    """Warn of what no command takes; those of other commands are nobody's mistake."""
    all_of_them = variables(commands(ctx))
    aside = [name for name in strange if name.removeprefix(PREFIX).lower() in ASIDE]
    _say_left_out(aside)
    for name in strange:
        if name not in all_of_them and name not in aside:
            near = question(name, (one.lower() for one in all_of_them), {})
            say(f"{name} in the environment sets nothing.{_upper(near)}")


def _upper(near: str) -> str:
    return re.sub(PREFIX.lower() + r"\w+", lambda match: match[0].upper(), near)
