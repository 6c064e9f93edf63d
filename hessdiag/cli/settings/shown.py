"""`--print-config`: the value of each option and where it came from, as a file that says the same."""

import json
from collections.abc import Iterator
from typing import Any

import click

from hessdiag.cli.config import PROBLEM_KEYS
from hessdiag.cli.kinds import harmless
from hessdiag.cli.options import named
from hessdiag.cli.settings.keys import MODEL, TRUST, options, origins
from hessdiag.report.visible import is_hidden, visible

HEAD = """\
# What `{command}` goes by here, and where from. Saved to a file, `{command} --config FILE` goes by the same;
# as hessdiag.toml, found and not named, it sets numbers and choices alone.
"""
COLUMN = 40


def print_config(ctx: click.Context) -> str:
    """All options of the command that runs, as TOML; what has no value, or cannot stand in a file, as comments.

    Raises:
        SpecError: if weights are given twice.
    """
    of_model = "models" in ctx.params
    known = options(ctx.command)
    above = [key for key in PROBLEM_KEYS if key in known] if of_model else []
    lines = [HEAD.format(command=ctx.command_path)]
    if of_model:
        lines += ["[problem]", *_model(ctx), *(_line(ctx, key, known[key]) for key in above if key != "weights"), ""]
    else:
        lines += _arguments(ctx)
    rest = [_line(ctx, key, option) for key, option in known.items() if key not in above]
    return "\n".join([*lines, f"[{ctx.info_name}]", *rest, ""])


def _model(ctx: click.Context) -> Iterator[str]:
    """MODEL and its weights, as `targets` has them."""
    models, weights = named(ctx, ctx.params["models"], ctx.params["weights"])
    files = weights and weights is not ctx.params["weights"]  # arguments that are weights of a configured model
    origin = "command line" if models else "default"
    if models == (ctx.meta.get(MODEL),):
        origin = _elsewhere(ctx, "models")
    if len(models) > 1:
        yield _commented("model", list(models), f"{origin}; a file names one")
    else:
        yield _assigned("model", models[0] if models else None, origin)
    held = weights[0] if len(weights) == 1 else list(weights) or None
    yield _assigned("weights", held, "command line" if files else _origin(ctx, "weights"))


def _arguments(ctx: click.Context) -> Iterator[str]:
    """Arguments that no file can give."""
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if isinstance(parameter, click.Argument) and value is not None:
            yield f"# {parameter.make_metavar(ctx)}: {visible(str(value))}  (each time on the command line)"


def _line(ctx: click.Context, key: str, option: click.Option) -> str:
    name = option.name or ""
    value = ctx.params[name]
    origin = _origin(ctx, name)
    if key == TRUST:
        return _commented(key, value, f"{origin}; said each time, never in a file")
    if origin == "default" and not harmless(option.type, value):
        return _commented(key, value, origin)  # a found file may not set it, and need not
    if isinstance(value, tuple) and not option.multiple:
        value = ",".join(map(str, value))  # as it is typed
    return _assigned(key, value, origin)


def _origin(ctx: click.Context, name: str) -> str:
    if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
        return "command line"
    return _elsewhere(ctx, name)


def _elsewhere(ctx: click.Context, name: str) -> str:
    setting = origins(ctx).get(name)
    if setting is None:
        return "default"
    return visible(f"{setting.how}, {setting.where}")


def _assigned(key: str, value: Any, origin: str) -> str:
    if value in (None, ()) or not _is_text(value):
        return _commented(key, value, origin)
    return f"{f'{key} = {toml(value)}':<{COLUMN}} # {origin}"


def _commented(key: str, value: Any, origin: str) -> str:
    said = "" if value in (None, ()) else f" {visible(toml(value))}"
    return f"{f'# {key} ={said}':<{COLUMN}} # {origin}"


def _is_text(value: Any) -> bool:
    """Whether a file in UTF-8 can hold it: names of files may be any bytes."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def toml(value: Any) -> str:
    r"""A value in TOML's notation; characters that are not seen by their codes.

    >>> toml("C:\\x\n\x7f"), toml(1e-05), toml((1, 2)), toml(True)
    ('"C:\\\\x\\n\\u007f"', '1e-05', '[1, 2]', 'true')
    """
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        return "".join(
            f"\\U{ord(one):08x}" if ord(one) > 0xFFFF else f"\\u{ord(one):04x}" if is_hidden(one) else one
            for one in quoted
        )
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
