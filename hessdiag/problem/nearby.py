"""What a script could mean by a model, read and not run: for what errors advise. Imports no torch."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LARGEST = 1_000_000  # bytes of a script that is read for advice
_MAKE = ("setup", "build", "make", "create", "get_model")  # how functions that return a model begin


def models_in(path: str) -> tuple[str, ...]:
    """Functions and classes at the top of a script that look most as if they gave a model.

    Args:
        path: Of the script; one that cannot be read has none.

    >>> models_in("no-such-script.py")
    ()
    """
    try:
        file = Path(path)
        tree = ast.parse(file.read_bytes()) if file.stat().st_size <= _LARGEST else ast.Module([], [])
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    top = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    ranked = [(rank, node.name) for node in top if (rank := _rank(node)) is not None]
    return tuple(name for rank, name in ranked if rank == min(ranked)[0])


def needed(function: Callable[..., Any]) -> list[str]:
    """Arguments that a call must give by name.

    >>> needed(lambda width, depth=2, *more: None)
    ['width']
    """
    try:
        takes = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one.name for one in takes if one.kind in named and one.default is one.empty]


def _rank(node: ast.FunctionDef | ast.ClassDef) -> int | None:
    """How likely a statement defines a model that can be called as it is: 0 is likeliest, `None` does not."""
    if isinstance(node, ast.FunctionDef):
        return (0 if not _required(node) else 3) if node.name.startswith(_MAKE) else None
    if not any(ast.unparse(base).endswith("Module") for base in node.bases):
        return None
    methods = {one.name: one for one in node.body if isinstance(one, ast.FunctionDef)}
    if "__init__" in methods and _required(methods["__init__"]) > 1:
        return 3
    return 1 if "forward" in methods and _required(methods["forward"]) == 2 else 2  # a loss takes two besides itself


def _required(function: ast.FunctionDef) -> int:
    """How many arguments have no default, `self` among them."""
    given = function.args
    positional = len(given.posonlyargs) + len(given.args) - len(given.defaults)
    return positional + sum(default is None for default in given.kw_defaults)
