"""All commands that have settings, with arguments that they need, and a value for each of their options."""

import click

from hessdiag.cli.kinds import Budget, Named, Names, NumberOr, Numbers, Size
from hessdiag.cli.main import COMMANDS, cli
from hessdiag.cli.settings.keys import options

_GROUP = click.Context(cli)
_ARGUMENTS = {"models": ["train.py:f"], "model": ["train.py:f(width={width})"], "results": ["a.json", "b.json"]}
_OF_MODEL = {"vanishing": ["train.py:f(depth={depth})"]}


def _arguments(command):
    (found,) = [one for one in cli.get_command(_GROUP, command).params if isinstance(one, click.Argument)] or [None]
    return [] if found is None else _OF_MODEL.get(command, _ARGUMENTS[found.name])


SETTABLE = {
    command: _arguments(command) for command in COMMANDS if "config" in
    [one.name for one in cli.get_command(_GROUP, command).params]
}  # fmt: skip


def options_of(command):
    return options(cli.get_command(_GROUP, command))


def sample(option):
    """A value that is not the default."""
    kind, default = option.type, option.default
    if option.is_flag:
        return default is not True
    if isinstance(kind, Names | click.Choice):
        return next(name for name in reversed(kind.choices) if name != default)
    if isinstance(kind, Named):
        return "cpu" if "cpu" in kind.choices.pattern else "ce"
    if isinstance(kind, click.FloatRange | click.types.FloatParamType):
        return 0.375
    if isinstance(kind, Numbers):
        return "3,5"
    if isinstance(kind, Budget):
        return 30.5
    if isinstance(kind, Size):
        return 123456
    if isinstance(kind, click.types.IntParamType | NumberOr):
        return 7
    return "20%" if option.name == "max_change" else f"{option.name}.html"


def typed(option, value):
    """How it is typed."""
    if option.is_flag:
        return [(option.opts if value else option.secondary_opts)[-1]]
    return [max(option.opts, key=len), str(value)]
