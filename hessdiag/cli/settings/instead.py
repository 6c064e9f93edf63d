"""Options that show what a command would do, instead of doing it."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

INSTEAD = "hessdiag.instead"  # in the `meta` of a context: the text that takes the place of the command


def options(function: Any) -> Any:
    """Add `--print-config` and `--show-python` to a command."""
    return _option(
        "--print-config",
        "hessdiag.cli.settings.shown",
        "Print each option's value and where it is from, as TOML; no more.",
    )(
        _option("--show-python", "hessdiag.cli.script.script", "Print the Python script that does the same; no more.")(
            function
        )
    )


def _option(flag: str, module: str, text: str) -> Callable[[Any], Any]:
    """A flag whose text is the function of its name in a module, which is imported where it is asked for."""

    def callback(ctx: click.Context, option: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[INSTEAD] = (module, option.name)

    return click.option(flag, is_flag=True, expose_value=False, callback=callback, help=text)


def text(ctx: click.Context) -> str | None:
    """What is shown instead of the command's work; `None` where the command is to run."""
    if INSTEAD not in ctx.meta:
        return None
    module, name = ctx.meta[INSTEAD]
    shown: str = getattr(import_module(module), name)(ctx)
    return shown
