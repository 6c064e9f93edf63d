"""How a long measurement tells how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]  # done, of all, of what


def silent(done: int, total: int, what: str) -> None:
    """What tells nobody."""
