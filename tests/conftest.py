"""Shared by all rooms: quiet threads, and a torchvision that cannot be loaded is made invisible."""

import os
import sys

import pytest

# Before torch is imported, and for processes that tests start: threads of several workers fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    import torchvision  # noqa: F401
except Exception:  # the registry's torchvision beside a CPU build of torch: transformers would trip over it
    sys.modules["torchvision"] = None  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _one_seed():
    """Every test starts from the same global random state, whatever ran before it."""
    import torch

    torch.manual_seed(0)
