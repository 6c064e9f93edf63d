"""Options as they are typed, and the command line that says all by itself."""

from typing import Any

import click

from hessdiag.cli.settings.keys import options, origins

OF_THE_ANSWER = ("as_json", "form", "color", "no_progress")  # nothing that is measured depends on them
CARRIED = "named file"  # whose --config is on the command line already


def is_given(ctx: click.Context, option: click.Option) -> bool:
    """Whether an option is not at its default, wherever it was set."""
    value = ctx.params[option.name or ""]
    if value in (None, ()) or (option.is_flag and not value and option.default is not True):
        return False
    return bool(value != option.default)


def typed(option: click.Option, value: Any) -> list[str]:
    """The words of an option.

    >>> typed(click.Option(["--seed"], type=int), 3), typed(click.Option(["--strict/--no-strict"]), False)
    (['--seed', '3'], ['--no-strict'])
    """
    flag = max(option.secondary_opts if value is False else option.opts, key=len)
    if isinstance(value, bool):
        return [flag]
    values = value if option.multiple else (",".join(map(str, value)),) if isinstance(value, tuple) else (value,)
    return [word for one in values for word in (flag, str(one))]


def argv(ctx: click.Context) -> tuple[str, ...]:
    """The command line, with what the environment and a found file set: typed elsewhere, it measures the same."""
    given = list(ctx.meta.get("hessdiag.argv", ()))
    found = {name for name, setting in origins(ctx).items() if setting.how != CARRIED}
    more = [
        word
        for option in options(ctx.command).values()
        if option.name in found and option.name not in OF_THE_ANSWER and is_given(ctx, option)
        if ctx.get_parameter_source(option.name) is click.core.ParameterSource.DEFAULT_MAP
        for word in typed(option, ctx.params[option.name])
    ]
    names = [word.replace("_", "-") for word in given]
    place = names.index(ctx.info_name) + 1 if ctx.info_name in names else len(given)
    return (*given[:place], *more, *given[place:])
