"""What options are called in files and in the environment, and where a value came from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import click

ASIDE = ("config", "no_config", "print_config", "show_python", "traceback", "help")  # of the command line by nature
TRUST = "trust_code"
ORIGINS, MODEL = "hessdiag.config_origins", "hessdiag.config_model"  # in the `meta` of a context
UNNAMED = "hessdiag.config_unnamed"  # there, too: the found file whose model was left out


class Setting(NamedTuple):
    """A value from elsewhere than the command line.

    Attributes:
        value: As it stands there.
        where: The file or the variable.
        how: "environment", "named file" or "found file".
    """

    value: Any
    where: str
    how: str


def key(option: click.Option) -> str:
    """What an option is called in a file: its flag, with underscores.

    >>> key(click.Option(["-o", "--output", "file"])), key(click.Option(["--batch-size"]))
    ('output', 'batch_size')
    """
    flag = max(option.opts, key=len)
    return flag.lstrip("-").replace("-", "_")


def options(command: click.Command) -> dict[str, click.Option]:
    """The options of a command by their keys, without those that only a command line can have."""
    found = {key(option): option for option in command.params if isinstance(option, click.Option)}
    return {name: option for name, option in found.items() if name not in ASIDE}


def origins(ctx: click.Context) -> Mapping[str, Setting]:
    """What was set elsewhere than on the command line, by parameter."""
    found: Mapping[str, Setting] = ctx.meta.get(ORIGINS, {})
    return found


def commands(ctx: click.Context) -> dict[str, click.Command]:
    """All commands, which are imported for it; the one alone that runs, where it runs without the group."""
    group = ctx.find_root().command
    if not isinstance(group, click.Group):
        return {ctx.info_name or "": ctx.command}
    named = ((name, group.get_command(ctx, name)) for name in group.list_commands(ctx))
    return {name: command for name, command in named if command}


def of_type(option: click.Option, setting: Setting, name: str, ctx: click.Context) -> None:
    """Refuse a value that the option cannot have, naming where it stands.

    Raises:
        SpecError: in the words of the option's type.
    """
    from hessdiag.errors import SpecError

    try:
        option.type_cast_value(ctx, setting.value)
    except click.BadParameter as error:
        said = setting.where if setting.how == "environment" else f"{setting.where}: `{name}`"
        raise SpecError(f"{said}: {error.message}", f"{ctx.command_path} --help") from None
