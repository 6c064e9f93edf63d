"""Devices by name, which of several GPUs a process takes, and when a GPU is not worth its start."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from hessdiag.errors import LoadError, SpecError
from hessdiag.machine.ranks import local_rank
from hessdiag.problem.batches import batch as batches

KINDS = ("cpu", "cuda")
NO_MPS = "mps has no float64, in which sums, checks and small eigenproblems are computed."
FEW_OPERATIONS = 1e9  # below, a CPU is done before a GPU has started, which takes seconds
OF_PRODUCTS = 800  # operations per parameter and place in a hundred products with vectors


def device_named(name: str, operations: float | None = None) -> torch.device:
    """The device of that name; of GPUs always with its number.

    "auto" is a GPU where there is one and the work is worth its start, else the CPU. Where several GPUs are seen,
    "auto" and "cuda" give each process that `torchrun` starts its own.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:1".
        operations: How many floating-point operations are ahead, roughly; `None` for many.

    Raises:
        SpecError: if no device has such a name, or measurements cannot run on it.
        LoadError: if this machine has no such device.

    >>> device_named("cpu")
    device(type='cpu')
    """
    if name == "auto":
        few = operations is not None and operations < FEW_OPERATIONS
        name = "cuda" if torch.cuda.is_available() and not few else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is not None and device.type == "mps":
        raise SpecError(NO_MPS, "--device cpu")
    if device is None or device.type not in KINDS:
        raise SpecError(f"there is no device {name!r}.", "--device auto, cpu, cuda or cuda:1")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        raise LoadError(f"device {name!r} is not available on this machine.", "--device auto")
    return device if device.index is not None else torch.device("cuda", local_rank() % torch.cuda.device_count())


def operations(model: nn.Module, data: Iterable[Any]) -> float:
    """Floating-point operations of a hundred products, or of all rows of the Hessian, whichever is more; roughly.

    >>> operations(nn.Linear(9, 1), [(torch.zeros(100, 9), torch.zeros(100, 1))])
    800000.0
    """
    known = (item for item in model.parameters() if item.requires_grad and not is_lazy(item))
    n = sum(parameter.numel() for parameter in known)
    places = sum(max(map(_places, batches.tensors(batch)), default=1) for batch in data)
    return float(n * max(n, OF_PRODUCTS) * places)


def _places(tensor: torch.Tensor) -> int:
    """How often a tensor meets each weight: rows of features, pixels, tokens."""
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor.numel()
    features = tensor.shape[1] if tensor.ndim > 3 else tensor.shape[-1]
    return tensor.numel() // max(features, 1)


def notes(name: str, device: torch.device | str) -> tuple[str, ...]:
    """A sentence for the reader, where "auto" passed over a GPU."""
    if name != "auto" or str(device) != "cpu" or not torch.cuda.is_available():
        return ()
    return ("device: the CPU, which is done with so little before a GPU has started; --device cuda takes the GPU",)
