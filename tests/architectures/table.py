"""All cases, by name."""

from tests.architectures import convolutions, feedforward, objects, outputs, points, sequences, structured, tables  # noqa: F401
from tests.architectures.case import CASES

NAMES = tuple(CASES)
REGULAR = tuple(name for name, build in CASES.items() if not build.__module__.endswith("points"))  # by every command
