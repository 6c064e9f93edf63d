"""What public functions take, read from their sources: importing them would import torch."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from hessdiag.questions.registry import QUESTIONS


class Signature(NamedTuple):
    """The parameters of a function.

    Attributes:
        function: Its name in `hessdiag`.
        first: The first that may be given by position; `None` where there is none.
        many: Whether any number may be given by position.
        names: Those that are given by name.
    """

    function: str
    first: str | None
    many: bool
    names: frozenset[str]


@cache
def signature(function: str) -> Signature:
    """The parameters of a public function.

    >>> found = signature("vanishing_of")
    >>> found.first, "hessian_seeds" in found.names
    ('build', True)
    """
    home = next(f"{asked.package}.{asked.public[function]}" for asked in QUESTIONS if function in asked.public)
    spec = find_spec(home)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    made = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    takes = made.args
    first = (*takes.posonlyargs, *takes.args)[:1] or ([takes.vararg] if takes.vararg else [])
    return Signature(
        function,
        first[0].arg if first else None,
        takes.vararg is not None,
        frozenset(one.arg for one in takes.kwonlyargs),
    )
