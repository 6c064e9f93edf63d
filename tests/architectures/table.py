"""All cases, by name."""

from tests.architectures import convolutions, feedforward, objects, outputs, points, sequences, structured, tables  # noqa: F401
from tests.architectures.case import CASES, DEVICE

NAMES = tuple(CASES)
# Cases whose functions hold tensors of their own, or whose models cannot be copied: they stay where they were made.
IMMOBILE = (
    "deep_equilibrium", "gaussian_process_evidence", "output_beside_what_it_was_made_of", "packed_output",
    "packed_sequences", "physics_informed", "state_space_scan", "weight_norm_of_old",
)  # fmt: skip
# Hardswish on CUDA multiplies by a sixth that was rounded to float32, in float64 too: 3e-8 off.
ROUNDED_ON_CUDA = ("depthwise_dilated_and_grouped",)
REGULAR = tuple(  # by every command
    name
    for name, build in CASES.items()
    if not build.__module__.endswith("points") and (DEVICE.type == "cpu" or name not in (*IMMOBILE, *ROUNDED_ON_CUDA))
)
