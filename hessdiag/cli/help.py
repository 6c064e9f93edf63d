"""What `--help` of a command shows: options in groups, those that are rarely needed last, and examples at the end."""

import inspect
from collections.abc import Sequence
from typing import Any

import click

from hessdiag.cli.completes import completing
from hessdiag.cli.script.arguments import Arguments
from hessdiag.cli.settings import instead
from hessdiag.errors import ExitCode

WIDTH = 80
COMPLETE_VARIABLE = "_HESSDIAG_COMPLETE"  # by which a shell asks what may come next
LONGEST_CHOICE = 12  # characters of a choice's names beside an option; longer lists stand in its text
COLUMN = 26  # widest column of options

_MODEL = "weights data loss objective batches batch_size layers device dtype seed train_mode"
_OUTPUT = "as_json form file force fail_if baseline max_change exit_zero allow_inexact save resume"
_RARE = "strict trust_code max_unpacked color no_progress no_config config print_config show_python traceback help"
_COMPUTED = "What to compute"
GROUPS = {
    "Model and data": _MODEL.split(),
    _COMPUTED: [],  # whatever is of no other group
    "Output": _OUTPUT.split(),
    "Rarely needed": _RARE.split(),
}
_VERBATIM = "\b\n"  # click's sign that the next lines are to be left as they are


class Command(click.Command):
    """A command whose help is in groups, and which can say what it would do instead of doing it."""

    def __init__(self, *given: Any, arguments: Arguments = Arguments(), **named: Any) -> None:  # noqa: B008
        super().__init__(*given, **named)
        self.arguments = arguments
        completing(self.params)

    def invoke(self, ctx: click.Context) -> int:
        """Run the command, or print what was asked for in its place."""
        shown = instead.text(ctx)
        if shown is None:
            code: int = super().invoke(ctx)
            return code
        from hessdiag.cli.output import speaks, write

        if speaks():
            write(shown)
        return ExitCode.OK

    def get_help(self, ctx: click.Context) -> str:
        """The help, in 80 columns wherever there are as many."""
        formatter = click.HelpFormatter(width=min(ctx.terminal_width or WIDTH, WIDTH))
        self.format_help(ctx, formatter)
        return formatter.getvalue().rstrip("\n")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command does; examples come at the end."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(self._parts()[0])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group."""
        options = {_name(param): _row(param, ctx) for param in self.get_params(ctx) if isinstance(param, click.Option)}
        grouped = {name for names in GROUPS.values() for name in names}
        column = min(max(len(left) for left, _ in options.values()), COLUMN)
        for title, names in GROUPS.items():
            members = [name for name in options if name not in grouped] if title == _COMPUTED else names
            rows = [(left.ljust(column), text) for left, text in (options[name] for name in members if name in options)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=COLUMN)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        examples = self._parts()[1]
        if examples:
            with formatter.section("Examples"):
                for example in examples.splitlines():
                    formatter.write_text(_VERBATIM + "\n".join(_folded(example, formatter.width - 4)))

    def _parts(self) -> tuple[str, str]:
        """The text about the command, and its examples."""
        text, _, examples = inspect.cleandoc(self.help or "").partition(_VERBATIM)
        return text.strip(), examples.strip()


def _name(option: click.Option) -> str:
    return "help" if "--help" in option.opts else option.name or ""


def _folded(command: str, width: int) -> list[str]:
    r"""A command over as many lines as it needs, broken before options as a shell takes it.

    >>> _folded("hessdiag eigs model.pt --data batch.npz", 30)
    ['hessdiag eigs model.pt \\', '    --data batch.npz']
    """
    head, place = command, 0
    while len(command) > width and (place := head.rfind(" -", 1)) > 0:
        head = command[:place]
        if len(head) + 2 <= width:
            return [f"{head} \\", *(f"    {line}" for line in _folded(command[place + 1 :], width - 4))]
    return [command]


def _row(option: click.Option, ctx: click.Context) -> tuple[str, str]:
    """An option and its text, without the range of its numbers: a wrong one is answered by an error."""
    names: Sequence[str] = option.type.choices if isinstance(option.type, click.Choice) else ()
    record = option.get_help_record(ctx) or ("", "")
    left, text = record[0], option.help or ""
    joined = "|".join(names)
    if len(joined) > LONGEST_CHOICE:
        left = left.replace(f"[{joined}]", "NAME")
        text = f"{text} One of {', '.join(names)}.".strip()
    default = option.get_help_extra(ctx).get("default")
    return left, f"{text}  [default: {default}]" if default else text
