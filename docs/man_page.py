"""The manual page, from the commands themselves; `generate_reference.py` writes it, and the wheel brings it along."""

import inspect
import re

import click

from hessdiag.cli.main import COMMANDS, cli
from hessdiag.version import __version__

HEAD = f"""\
.\\" Written by docs/generate_reference.py from the commands.
.TH HESSDIAG 1 "" "hessdiag {__version__}" "User Commands"
.SH NAME
hessdiag \\- exact Hessian diagnostics of PyTorch networks
.SH SYNOPSIS
.B hessdiag
.I COMMAND
.RI [ OPTIONS ]
.RI [ ARGUMENTS ]
"""
TAIL = """\
.SH ENVIRONMENT
.TP
.B HESSDIAG_\\fIOPTION\\fR, \\fBHESSDIAG_\\fICOMMAND\\fB_\\fIOPTION\\fR
A number or a choice, for all commands that have the option or for one. The command line wins.
.TP
.B NO_COLOR, FORCE_COLOR, COLUMNS
Whether the text has colour, and how wide it is.
.SH FILES
.TP
.B hessdiag.toml
Numbers and choices for the commands that run in its folder; with
.B \\-\\-config
code and files, too.
.SH EXIT STATUS
0 done; 1 a gate is violated; 2 usage; 3 could not load or compute; 4 not trustworthy; 130 interrupted; 143 terminated.
"""
_VERBATIM = "\b\n"


def man_page() -> str:
    """The page in roff, in the macros of man(7)."""
    lines = [HEAD, ".SH DESCRIPTION", *_text(cli.help or ""), ".SH COMMANDS"]
    group = click.Context(cli, info_name="hessdiag")
    for name in COMMANDS:
        command = cli.get_command(group, name)
        assert command is not None
        lines += _command(command, click.Context(command, info_name=name, parent=group))
    return "\n".join([*lines, TAIL]).replace("\n\n", "\n")


def _command(command: click.Command, ctx: click.Context) -> list[str]:
    usage = " ".join(["hessdiag", ctx.info_name or "", *command.collect_usage_pieces(ctx)])
    lines = [f'.SS "{_escaped(usage)}"', *_text(command.help or "")]
    for option in command.get_params(ctx):
        record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
        if record is not None:
            lines += [".TP", f".B {_escaped(record[0])}", _line(record[1]) or "\\&"]
    return lines


def _text(text: str) -> list[str]:
    """Paragraphs, and lines that are left as they are."""
    said, _, examples = inspect.cleandoc(text).partition(_VERBATIM)
    lines = [line for paragraph in said.split("\n\n") for line in (".PP", _line(" ".join(paragraph.split())))]
    shown = [_line(example) for example in examples.splitlines()]
    return lines + ([".PP", ".nf", *shown, ".fi"] if shown else [])


def _line(text: str) -> str:
    r"""A line of text, which roff does not take for a request.

    >>> _line(".html"), _line("a\\b --c")
    ('\\&.html', 'a\\eb \\-\\-c')
    """
    escaped = _escaped(text)
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _escaped(text: str) -> str:
    plain = (
        text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("^", "\\(ha").replace("~", "\\(ti")
    )
    return re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", plain.replace("`", "\\(ga"))
