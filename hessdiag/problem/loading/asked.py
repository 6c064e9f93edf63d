"""Options in the spec of data, `PATH(key=LITERAL, ...)`: which ones there are, and what they may be."""

from collections.abc import Mapping
from typing import Any

from hessdiag.errors import SpecError
from hessdiag.problem.spec import Spec


def allowed(spec: Spec, names: tuple[str, ...]) -> dict[str, Any]:
    """The options of a spec.

    Raises:
        SpecError: if one is none of those that such data take.
    """
    for name in spec.keywords:
        if name not in names:
            there = f"there is {', '.join(names)}" if names else "arrays and images of a file take none"
            hint = f"--data file:{spec.text}, if that is the whole name" if not names else f"--data '{spec.source}'"
            raise SpecError(f"{spec.text!r}: no option {name!r}; {there}.", hint)
    return spec.keywords


def switch(options: Mapping[str, Any], name: str, usual: bool | None) -> bool | None:
    """An option that is True or False, or the usual value where it is not given.

    Raises:
        SpecError: if it is something else.
    """
    value = options.get(name, usual)
    if value is not usual and not isinstance(value, bool):
        raise SpecError(f"{name} is True or False, not {value!r}.", f"({name}=True)")
    return value
