"""All cases, by name."""

from tests.architectures import convolutions, feedforward, objects, outputs, points, sequences, structured, tables  # noqa: F401
from tests.architectures.case import CASES

NAMES = tuple(CASES)
AWAITED = {"checkpoint_with_reentry", "tiny_gpt2", "two_dtypes"}
REGULAR = tuple(  # every command measures them
    name for name, build in CASES.items() if not build.__module__.endswith("points") and name not in AWAITED
)
