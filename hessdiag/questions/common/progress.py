"""How a long measurement tells how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]  # done, of all, of what
