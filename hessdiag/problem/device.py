"""Devices by name, and which of several GPUs a process takes."""

import torch

from hessdiag.errors import LoadError, SpecError
from hessdiag.ranks import local_rank

KINDS = ("cpu", "cuda", "mps")


def device_named(name: str, dtype: torch.dtype | None = None) -> torch.device:
    """The device of that name, which has numbers of that dtype.

    "auto" is a GPU where there is one, else the CPU. Where several GPUs are seen, "auto" and "cuda" give each process
    that `torchrun` starts its own.

    Raises:
        SpecError: if no device has such a name, or not the dtype.
        LoadError: if this machine has no such device.

    >>> device_named("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in KINDS:
        raise SpecError(f"there is no device {name!r}.", "--device auto, cpu, cuda, cuda:1 or mps")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }[device.type]
    if not there:
        raise LoadError(f"device {name!r} is not available on this machine.", "--device auto")
    if device.type == "mps" and dtype == torch.float64:
        raise SpecError("mps has no float64.", "--device cpu")
    if name == "cuda" and torch.cuda.device_count() > 1:
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    return device
