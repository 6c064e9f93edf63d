"""`hessdiag.toml`, or `[tool.hessdiag]` in pyproject.toml: defaults for the options of every command.

A file that was merely found in the folder sets numbers and choices. What names code or files, where output goes, what
is overwritten and what is trusted is taken from the command line, or from a file that the user named with `--config`.
"""

import difflib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from hessdiag.cli.kinds import harmless
from hessdiag.cli.speech import say
from hessdiag.errors import SpecError
from hessdiag.problem import spec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROBLEM_KEYS = (
    "model",
    "weights",
    "data",
    "loss",
    "objective",
    "batches",
    "batch_size",
    "device",
    "dtype",
    "seed",
    "layers",
    "train_mode",
    "strict",
    "max_unpacked",
)
SPECS = ("model", "weights", "data", "loss", "objective")
_LARGEST = 1_000_000  # bytes
_NEVER = ("trust_code", "config", "no_config", "traceback", "model", "models")
MODEL, SOURCE = "hessdiag.config_model", "hessdiag.config_source"


def option(function: Any) -> Any:
    """Add `--config` and `--no-config` to a command."""
    config = click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_apply,
        help="Read defaults from this file, which may name code and files.",
    )
    ignore = click.option(
        "--no-config",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_ignore,
        help="Ignore hessdiag.toml.",
    )
    # --no-config stands first, so that it is seen before the file is read.
    return ignore(config(function))


def _ignore(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[SOURCE] = None
        ctx.default_map = None


def _apply(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if SOURCE in ctx.meta or ctx.resilient_parsing:
        return
    found = path or _here()
    if found is None:
        return
    tables = read(found)
    check(tables, _options(ctx), found.name)
    problem, defaults = tables.get("problem", {}), tables.get(ctx.info_name or "", {})
    takes_model = any(parameter.name == "models" for parameter in ctx.command.params)
    problem = problem if takes_model else {}
    if path is None:
        kinds = {parameter.name or "": parameter.type for parameter in ctx.command.params}
        given = (problem, defaults)
        problem, defaults = ({key: table[key] for key in table if _may(kinds.get(key), table[key])} for table in given)
        _say_left_out([key for table in given for key in table if key not in problem | defaults], found.name)
    problem = {key: _relocated(key, value, found.parent) for key, value in problem.items()}
    if takes_model:
        ctx.meta[MODEL] = problem.pop("model", None)
        defaults = problem | defaults
    ctx.meta[SOURCE] = found.name
    repeated = {parameter.name for parameter in ctx.command.params if getattr(parameter, "multiple", False)}
    ctx.default_map = {key: _shaped(key, value, key in repeated, found.name) for key, value in defaults.items()}


def _shaped(key: str, value: Any, repeated: bool, source: str) -> Any:
    """The value as click takes it: a list for an option that may be repeated, else no list and no table."""
    values = value if isinstance(value, list) and repeated else [value]
    if any(isinstance(item, (list, dict)) for item in values):
        raise SpecError(f"{source}: `{key}` takes {'values' if repeated else 'one value'}, not {value!r:.40}.")
    return values if repeated else value


def _may(kind: Any, value: Any) -> bool:
    """Whether a file that nobody named may set an option of this type to this value."""
    return kind is not None and harmless(kind, value)


def _say_left_out(keys: list[str], source: str) -> None:
    """Say what of a file that nobody named is left out: what is neither a number nor a choice."""
    if keys:
        verb = "is" if len(keys) == 1 else "are"
        say(
            f"{source} was found, not named: it sets numbers and choices, and its {', '.join(dict.fromkeys(keys))} "
            f"{verb} left out; --config {source} takes all of it"
        )


def _here() -> Path | None:
    try:
        return find(Path.cwd())
    except FileNotFoundError:
        return None  # the current folder was deleted


def find(folder: Path) -> Path | None:
    """The configuration of a folder: hessdiag.toml, or a pyproject.toml that has a [tool.hessdiag] table."""
    own, project = folder / "hessdiag.toml", folder / "pyproject.toml"
    if own.is_file():
        return own
    try:
        return project if project.is_file() and "[tool.hessdiag" in project.read_text("utf-8", "replace") else None
    except OSError:
        return None  # it is another program's, and may be closed to us


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a configuration file, with underscores in the keys.

    Raises:
        SpecError: if the file is not TOML, or holds anything but tables.
    """
    try:
        if not path.is_file():
            raise SpecError(f"{path} is no file: a configuration is one.", "--config hessdiag.toml")
        if path.stat().st_size > _LARGEST:
            raise SpecError(f"{path.name} is larger than any configuration ({_LARGEST // 1000} kB).", "--no-config")
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SpecError(f"{path.name} cannot be read: {error.strerror}.", "--no-config") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, digits without end
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise SpecError(
            f"{path.name} is not valid TOML: {reason}.", "hessdiag init --force writes a fresh one"
        ) from None
    if path.name == "pyproject.toml":
        tool = content.get("tool")
        content = tool.get("hessdiag", {}) if isinstance(tool, dict) else {}
        content = content if isinstance(content, dict) else {"tool.hessdiag": content}
    for key, table in content.items():
        if not isinstance(table, dict):
            raise SpecError(f"{path.name}: `{key}` stands outside of any table.", f"[problem] above `{key} = ...`")
    return {name: _normal(table) for name, table in content.items()}


def check(tables: Mapping[str, Mapping[str, Any]], options: Mapping[str, Iterable[str]], source: str) -> None:
    """Refuse tables and keys that mean nothing, naming the nearest that does.

    Args:
        tables: As `read` gives them.
        options: Names of the options of each command.
        source: Name of the file, for the message.

    Raises:
        SpecError: for the first table or key that is not known or not allowed.
    """
    known: dict[str, set[str]] = {name: set(names) - set(_NEVER) for name, names in options.items()}
    known["problem"] = set(PROBLEM_KEYS)
    for name, table in tables.items():
        if name not in known:
            raise SpecError(f"{source}: there is no table [{name}].{_near(name, known)}")
        for key in table:
            if key == "trust_code":
                raise SpecError(
                    f"{source}: trust_code cannot stand in a configuration: it must be said each time.",
                    "--trust-code on the command line",
                )
            if key not in known[name]:
                raise SpecError(f"{source}: [{name}] has no key `{key}`.{_near(key, known[name])}")


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean `{near[0]}`?" if near else f" It may hold {', '.join(sorted(known))}."


def _options(ctx: click.Context) -> dict[str, list[str]]:
    group = ctx.find_root().command
    if not isinstance(group, click.Group):
        return {ctx.info_name or "": [parameter.name or "" for parameter in ctx.command.params]}
    commands = ((name, group.get_command(ctx, name)) for name in group.list_commands(ctx))
    return {name: [parameter.name or "" for parameter in command.params] for name, command in commands if command}


def _normal(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in table.items()}


def _relocated(key: str, value: Any, folder: Path) -> Any:
    """A path in the configuration counts from the configuration's own folder."""
    if isinstance(value, list):
        return [_relocated(key, item, folder) for item in value]
    if key not in SPECS or not isinstance(value, str) or folder.resolve() == Path.cwd():
        return value
    try:
        parsed = spec.parse(value)
    except SpecError:
        return value  # a loss by name; what is no spec at all is refused where it is used
    if parsed.kind not in ("file", "script"):
        return value
    return value.replace(parsed.source, str(folder / parsed.source), 1)
