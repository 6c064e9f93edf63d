"""`hessdiag.toml`, or `[tool.hessdiag]` in pyproject.toml: defaults for the options of every command.

Command line over environment over the file that was named over the file that was found over defaults, option by option.

A file that was merely found in the folder sets numbers and choices, and so does the environment. What names code or
files, where output goes, what is overwritten and what is trusted is taken from the command line, or from a file that
the user named with `--config`.
"""

import difflib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from hessdiag.cli.kinds import harmless
from hessdiag.cli.settings import environment
from hessdiag.cli.settings.keys import MODEL, ORIGINS, TRUST, UNNAMED, Setting, commands, of_type, options
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
FOUND, NAMED = "found file", "named file"
_ALONE = "hessdiag.config_alone"


class _Config(click.Option):
    """`--config`, which is told of `--no-config` wherever that stands on the line."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Remember whether the command line counts alone, then take the value."""
        ctx.meta[_ALONE] = bool(opts.get("no_config"))
        return super().handle_parse_result(ctx, opts, args)


def option(function: Any) -> Any:
    """Add `--config` and `--no-config` to a command."""
    config = click.option(
        "--config",
        cls=_Config,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_apply,
        help="Read defaults from this file, which may name code and files.",
    )
    ignore = click.option(
        "--no-config",
        is_flag=True,
        expose_value=False,
        help="Take nothing from a found hessdiag.toml or the environment.",
    )
    return ignore(config(function))


def _apply(ctx: click.Context, _: click.Parameter, named: Path | None) -> None:
    """Lay what is set elsewhere under the command line: found file, named file, environment, each over the last."""
    if ctx.resilient_parsing:
        return
    alone = ctx.meta.get(_ALONE, False)
    found = None if alone else _here()
    merged: dict[str, Setting] = {}
    if found is not None and not (named is not None and named.exists() and named.samefile(found)):
        merged |= _of_file(ctx, found, FOUND)
    if named is not None:
        merged |= _of_file(ctx, named, NAMED)
    known = options(ctx.command)
    model = merged.pop("model", None) if "model" not in known else None
    if not alone:
        merged |= environment.settings(ctx)
    for key, setting in merged.items():
        of_type(known[key], setting, key, ctx)
    by_parameter = {known[key].name or "": setting for key, setting in merged.items()}
    ctx.meta[MODEL] = None if model is None else model.value
    ctx.meta[ORIGINS] = by_parameter | ({} if model is None else {"models": model})
    ctx.default_map = {name: setting.value for name, setting in by_parameter.items()}


def _of_file(ctx: click.Context, path: Path, how: str) -> dict[str, Setting]:
    """What a file sets of the command that runs, by key."""
    tables = read(path)
    check(tables, {name: options(command) for name, command in commands(ctx).items()}, path.name)
    takes_model = any(parameter.name == "models" for parameter in ctx.command.params)
    problem, own = tables.get("problem", {}) if takes_model else {}, tables.get(ctx.info_name or "", {})
    known = options(ctx.command)
    if how == FOUND:
        kinds = {key: option.type for key, option in known.items()}
        given = (problem, own)
        problem, own = ({key: table[key] for key in table if _may(kinds.get(key), table[key])} for table in given)
        left = [key for table in given for key in table if key not in problem | own]
        _say_left_out(left, path.name)
        if "model" in left:
            ctx.meta[UNNAMED] = path.name
    values = {key: _relocated(key, value, path.parent) for key, value in problem.items()} | own
    repeated = {key for key, option in known.items() if option.multiple}
    return {
        key: Setting(_shaped(key, value, key in repeated, path.name), path.name, how) for key, value in values.items()
    }


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
            f"{path.name} is not valid TOML: {reason}.",
            "a table and its keys, as `hessdiag init` writes in an empty folder",
        ) from None
    if path.name == "pyproject.toml":
        tool = content.get("tool")
        content = tool.get("hessdiag", {}) if isinstance(tool, dict) else {}
        content = content if isinstance(content, dict) else {"tool.hessdiag": content}
    for key, table in content.items():
        if not isinstance(table, dict):
            raise SpecError(f"{path.name}: `{key}` stands outside of any table.", f"[problem] above `{key} = ...`")
    return {name: _normal(table) for name, table in content.items()}


def check(tables: Mapping[str, Mapping[str, Any]], keys: Mapping[str, Iterable[str]], source: str) -> None:
    """Refuse tables and keys that mean nothing, naming the nearest that does.

    Args:
        tables: As `read` gives them.
        keys: What options of each command are called.
        source: Name of the file, for the message.

    Raises:
        SpecError: for the first table or key that is not known or not allowed.
    """
    known: dict[str, set[str]] = {name: set(names) - {TRUST} for name, names in keys.items()}
    known["problem"] = set(PROBLEM_KEYS)
    for name, table in tables.items():
        if name not in known:
            raise SpecError(f"{source}: there is no table [{name}].{_near(name, known)}")
        for key in table:
            if key == TRUST:
                raise SpecError(
                    f"{source}: trust_code cannot stand in a configuration: it must be said each time.",
                    "--trust-code on the command line",
                )
            if key not in known[name]:
                raise SpecError(f"{source}: [{name}] has no key `{key}`.{_near(key, known[name])}")


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean `{near[0]}`?" if near else f" It may hold {', '.join(sorted(known))}."


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
