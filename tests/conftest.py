"""Shared by all rooms: quiet threads, and a torchvision that cannot be loaded is made invisible."""

import sys

import pytest

try:
    import torchvision  # noqa: F401
except Exception:  # the registry's torchvision beside a CPU build of torch: transformers would trip over it
    sys.modules["torchvision"] = None  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _one_seed():
    """Every test starts from the same global random state, whatever ran before it."""
    import torch

    torch.manual_seed(0)
