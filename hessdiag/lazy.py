"""Names that are imported on first use, so that a package costs nothing until then."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`.

    Args:
        package: Its name.
        homes: Where each public name is defined; empty for a module of that name in the package.

    >>> get, names = lazily("collections", {"Mapping": "collections.abc", "abc": ""})
    >>> get("Mapping").__name__, get("abc").__name__, names()
    ('Mapping', 'collections.abc', ['Mapping', 'abc'])
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name) if homes[name] else import_module(f"{package}.{name}")

    return get, lambda: sorted(homes)
