"""What a command does with its options beyond passing them on by their names."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Params = Mapping[str, Any]


def _nothing(params: Params) -> dict[str, Any]:
    return {}


class Arguments(NamedTuple):
    """Said by a command where names are not enough, so that its script does the same; its own code goes by it, too.

    Attributes:
        loads: Given the command's parameters, fields of `ProblemRequest` that are no options; `model` where none is
            given, `place` for what a spec has in the place of the size.
        passes: Given the same, arguments of the question's function that are no options, or not as they are typed.
        takes: The options that are in those.
        builds: Given the same, whether networks are built anew for each seed.
        refuse: Given the same, raises where options contradict each other.
        of_model: Whether it is about a model, given whether there is one.
    """

    loads: Callable[[Params], dict[str, Any]] = _nothing
    passes: Callable[[Params], dict[str, Any]] = _nothing
    takes: tuple[str, ...] = ()
    builds: Callable[[Params], bool] = bool
    refuse: Callable[[Params], object] = bool
    of_model: Callable[[bool], bool] = bool
