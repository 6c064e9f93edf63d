"""What tells whether a problem is still the same: its numbers by their hashes, and the code that makes use of them."""

import functools
import hashlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hessdiag.problem.describe import describe
from hessdiag.problem.problem import Problem

_DESCRIBED = (
    "spec", "model", "parameters", "layers_glob", "dtype", "train_mode", "loss", "loss_definition", "reduction",
    "samples", "batch_weights", "weights_sha256", "data_sha256",
)  # fmt: skip
_DIGITS = {torch.float64: 8, torch.float32: 3}  # of the loss: what rounding leaves alone
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the printed form of functions, another in every process
_KNOWN = ("torch", "hessdiag", "numpy")  # whose versions are compared anyway


def identity(problem: Problem) -> dict[str, Any]:
    """What the derivatives of a problem depend on, in JSON's types: for the settings of `Pieces`.

    Hashes of weights and data; of the files that define the model's classes, the loss or the objective; and the loss
    itself at these weights, for what no hash sees. To be taken after the point was examined: a model that draws random
    numbers is one function from then on.

    >>> data = [(torch.ones(1, 2).double(), torch.zeros(1, 1).double())]
    >>> problem = Problem(torch.nn.Linear(2, 1).double(), data=data, loss="mse")
    >>> found = identity(problem)
    >>> found["model"], found["dtype"], found["code_sha256"] == identity(problem)["code_sha256"]
    ('Linear', 'float64', True)
    """
    described = describe(problem)
    found = {name: described[name] for name in _DESCRIBED}
    found["code_sha256"] = _code(problem)
    if problem.dtype in _DIGITS:
        found["loss_at_the_weights"] = f"{problem.value():.{_DIGITS[problem.dtype]}g}"
    return found


def _code(problem: Problem) -> str:
    """Hash of the model's form, and of the code of its classes and of the loss."""
    loss = None if problem.criterion is None else problem.criterion.function
    used: list[Any] = [type(module) for module in problem.model.modules()]
    used += [_function(thing) for thing in (problem.objective, problem.loss, loss) if callable(thing)]
    hashed = hashlib.sha256(_ADDRESS.sub("", str(problem.model)).encode(errors="replace"))
    for text in sorted({text for thing in used if (text := _text(thing)) is not None}):
        hashed.update(hashlib.sha256(text.encode(errors="replace")).digest())
    return hashed.hexdigest()


def _function(thing: Any) -> Any:
    """What holds the code of something that can be called."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    thing = inspect.unwrap(thing)
    return thing if inspect.isroutine(thing) or isinstance(thing, type) else type(thing)


def _text(thing: Any) -> str | None:
    """The file that defines a class or function, helpers beside it included; else its code; `None` for a library's."""
    module = getattr(thing, "__module__", None) or ""
    if module.partition(".")[0] in _KNOWN:
        return None
    place = getattr(sys.modules.get(module), "__file__", None)
    place = place or getattr(getattr(thing, "__code__", None), "co_filename", None)
    try:
        return Path(place).read_text("utf-8", errors="replace") if place else _bytecode(thing)
    except (OSError, ValueError):
        return _bytecode(thing)


def _bytecode(thing: Any) -> str:
    """The instructions of what was defined without a file, as in a session."""
    functions = [thing, *vars(thing).values()] if isinstance(thing, type) else [thing]
    codes = [code for function in functions if isinstance(code := getattr(function, "__code__", None), types.CodeType)]
    return "\n".join(line for code in codes for line in _lines(code))


def _lines(code: types.CodeType) -> Iterator[str]:
    yield f"{code.co_name} {code.co_code.hex()} {code.co_names}"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _lines(constant)
        else:
            yield repr(constant)
