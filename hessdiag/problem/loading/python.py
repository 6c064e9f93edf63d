"""Python specs: `train.py:setup(width=32)` and `pkg.mod:f`. This runs code that the user named."""

import difflib
import importlib
import importlib.util
import inspect
import itertools
import shlex
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from hessdiag.errors import HessdiagError, LoadError, SpecError
from hessdiag.machine.shortage import ran_out, sentence
from hessdiag.packages import distribution
from hessdiag.problem import nearby
from hessdiag.problem.files.checkpoint import existing
from hessdiag.problem.spec import RESERVED, Spec

_LIBRARIES = (
    *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")},
    str(Path(__file__).parents[2]),
    "<frozen",
)

_serial = itertools.count()


def load_object(spec: Spec, scripts: dict[Path, ModuleType]) -> Any:
    """What a spec of kind `script` or `module` names: the object as it is, or the result of the spec's call.

    Args:
        spec: The spec.
        scripts: Scripts that were run before; this one is added, so that MODEL and `--data` share one run.

    Raises:
        LoadError: if the file or module is not there, or its code raises; with the user's own file and line.
        SpecError: if there is no such attribute, or the function does not take these arguments.
    """
    module = _script(spec, scripts) if spec.kind == "script" else _module(spec)
    found: Any = module
    for name in spec.attribute.split("."):
        if not hasattr(found, name):
            raise _no_attribute(spec, found, name)
        found = getattr(found, name)
    return found if spec.arguments is None else call(spec, found)


def load_value(spec: Spec, scripts: dict[Path, ModuleType]) -> Any:
    """Like `load_object`, and a function or class that the spec names without parentheses is called."""
    found = load_object(spec, scripts)
    callable_itself = callable(found) and not isinstance(found, nn.Module)
    return call(spec, found) if spec.arguments is None and callable_itself else found


def call(spec: Spec, function: Callable[..., Any]) -> Any:
    """Call user code with the spec's arguments."""
    if not callable(function):
        raise SpecError(f"{spec.attribute} in {spec.source} is a {type(function).__name__}, which cannot be called.")
    try:
        return function(**spec.keywords)
    except TypeError as error:
        if getattr(error.__traceback__, "tb_next", None) is None:  # raised by the call itself, not inside the function
            raise SpecError(f"{spec.text}: {error}", _called_so(spec, function)) from error
        raise _user_error(spec, error) from error
    except HessdiagError:
        raise
    except (Exception, SystemExit) as error:
        raise _user_error(spec, error) from error


def _called_so(spec: Spec, function: Callable[..., Any]) -> str:
    """How to name a function with the arguments that it needs, and all that it takes."""
    takes = f"{spec.attribute or spec.source}{_signature(function)}"
    needed = [name for name in nearby.needed(function) if name not in spec.keywords]
    if not needed or spec.kind not in ("script", "module"):
        return takes
    given = [f"{name}={value!r}" for name, value in spec.keywords.items()]
    word = f"{spec.source}:{spec.attribute}({', '.join([*given, *(f'{name}=...' for name in needed)])})"
    return f"{shlex.quote(word)}, of {takes}"


def _signature(function: Callable[..., Any]) -> str:
    """What a function takes, without the types."""
    try:
        full = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    plain = [parameter.replace(annotation=parameter.empty) for parameter in full.parameters.values()]
    return str(full.replace(parameters=plain, return_annotation=full.empty))


def _script(spec: Spec, scripts: dict[Path, ModuleType]) -> ModuleType:
    path = existing(spec.source).resolve()
    if path in scripts:
        return scripts[path]
    if not path.is_file():
        raise LoadError(f"{spec.source} is a folder, not a script.")
    name = f"hessdiag_script_{next(_serial)}_{path.stem}"  # so that a json.py of the user's is not the library's
    description = importlib.util.spec_from_file_location(name, path)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module  # pickles and dataclasses look their classes up there
    _on_path(path.parent)
    try:
        description.loader.exec_module(module)
    except HessdiagError:
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _user_error(spec, error) from error
    scripts[path] = module
    return module


def _module(spec: Spec) -> ModuleType:
    _on_path(Path.cwd())
    importlib.invalidate_caches()
    try:
        return importlib.import_module(spec.source)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{spec.source}.".startswith(f"{error.name}."):
            raise _user_error(spec, error) from error
        what = f"there is no module {error.name!r} in the current directory or installed."
        raise LoadError(what, _elsewhere(spec)) from error
    except HessdiagError:
        raise
    except (Exception, SystemExit) as error:
        raise _user_error(spec, error) from error


def _elsewhere(spec: Spec) -> str:
    """What may be meant by a module that is not there."""
    if close := difflib.get_close_matches(spec.source, RESERVED, n=1):
        return f"{close[0]}:{spec.attribute}"
    file = f"{spec.source.replace('.', '/')}.py"
    if any(Path("src", one).is_file() for one in (file, f"{file.removesuffix('.py')}/__init__.py")):
        return f"PYTHONPATH=src hessdiag ... {spec.source}:{spec.attribute}"
    return f"{file}:{spec.attribute}, if it is a file"


def _on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _no_attribute(spec: Spec, owner: Any, name: str) -> SpecError:
    public = [entry for entry in dir(owner) if not entry.startswith("_")]
    close = difflib.get_close_matches(name, public, n=3)
    own = [
        entry
        for entry in public
        if getattr(getattr(owner, entry, None), "__module__", None) == getattr(owner, "__name__", "")
    ]
    likely = nearby.models_in(spec.source)[:3] if spec.kind == "script" else ()
    hint = " or ".join(f"{spec.source}:{entry}" for entry in close or likely or own[:4]) or None
    return SpecError(f"{spec.source} has no {name!r}.", hint)


def _user_error(spec: Spec, error: BaseException) -> LoadError:
    """One line with the exception and the user's own file and line, not ours or a library's."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)  # its place is said at the end
    lines = message.strip().splitlines() or ["no message"]
    hint = None
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"pip install {distribution(error.name)}, or run where it can be imported"
    if isinstance(error, ImportError) and spec.kind == "script" and "relative import" in lines[0]:
        hint = _as_module(spec)
    if isinstance(error, SystemExit):  # as argparse leaves, which reads the arguments of hessdiag
        hint = f"{spec.source}:NAME of a function or class that builds the model and reads no command line"
    if isinstance(error, Exception) and ran_out(error):
        return LoadError(f"{sentence(error)} ({_place(spec, error)})", "a smaller model or batch, or more memory")
    return LoadError(f"{spec.source} raised {type(error).__name__}: {lines[0]} ({_place(spec, error)})", hint)


def _as_module(spec: Spec) -> str:
    """How to name a file of a package as the module that it is, where its own relative imports work."""
    path = Path(spec.source)
    top = path.resolve().parent
    while (top / "__init__.py").is_file():
        top = top.parent
    inside = top.relative_to(Path.cwd()) if top.is_relative_to(Path.cwd()) else top
    name = ".".join(path.resolve().with_suffix("").relative_to(top).parts)
    front = "" if inside == Path() else f"PYTHONPATH={shlex.quote(str(inside))} "
    return f"{front}hessdiag ... {name}:{spec.attribute}"


def _place(spec: Spec, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [frame for frame in frames if not frame[0].startswith(_LIBRARIES)]
    filename, line = (own or frames or [(spec.source, 0)])[-1]
    return f"{filename}:{line}"
