"""How a result came to be: an allow-list of facts. No environment, no host name, no user name."""

import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from hessdiag.version import __version__


@dataclass(frozen=True)
class Clock:
    """When a computation began."""

    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    ticks: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Wall time since then."""
        return time.perf_counter() - self.ticks


def collect(
    clock: Clock,
    device: str,
    kernels_forced: Sequence[str] = (),
    *,
    resumed_pieces: int = 0,
    cost: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document's "provenance".

    Args:
        clock: Made when the command began.
        device: Where it was computed, such as "cpu" or "cuda:0".
        kernels_forced: What was switched off, from the problem.
        resumed_pieces: How many pieces of an earlier run were taken up.
        cost: What was planned and spent, from the ledger; `None` where products are not what takes time.
    """
    import torch

    resumed = {"resumed_pieces": resumed_pieces} if resumed_pieces else {}
    spent = {"cost": dict(cost)} if cost else {}
    return {
        **resumed,
        "argv": click.get_current_context().meta.get("hessdiag.argv", []),
        "started": clock.started,
        "wall_seconds": round(clock.seconds, 3),
        "peak_memory_bytes": peak_memory_bytes(device),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "kernels_forced": list(kernels_forced),
        "arithmetic": arithmetic(device),
        **({"gpu": gpu(device)} if device.startswith("cuda") else {}),
        **spent,
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import numpy
    import torch

    return {
        "hessdiag": __version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def device_name(device: str) -> str:
    """A device with its model, where it has one.

    >>> device_name("cpu")
    'cpu'
    """
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device


def arithmetic(device: str) -> dict[str, Any]:
    """In which arithmetic was measured, and what of the process's own flags was set aside meanwhile.

    >>> arithmetic("cpu")
    {'float32': 'IEEE', 'set_aside': [], 'repeatable': True}
    """
    import torch

    from hessdiag.machine.arithmetic import autocast, rounded

    gpu = device.startswith("cuda")
    aside = [f"{value} in {name}" for name, value in rounded().items() if name.endswith("GPU") == gpu]
    aside += [f"autocast on {kind}" for kind in autocast()]
    if gpu and torch.backends.cudnn.benchmark:
        aside.append("cudnn.benchmark")
    return {
        "float32": "IEEE",
        "set_aside": aside,
        # Kernels of a GPU add in any order, so that last digits vary from run to run, unless the user forbids those.
        "repeatable": not gpu or torch.are_deterministic_algorithms_enabled(),
    }


def gpu(device: str) -> dict[str, Any]:
    """What the numbers and the time depend on, where a GPU computed."""
    import torch

    own = torch.cuda.get_device_properties(device)
    return {
        "name": own.name,
        "memory_bytes": own.total_memory,
        "compute_capability": f"{own.major}.{own.minor}",
        "driver": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "peak_allocated_bytes": int(torch.cuda.max_memory_allocated(device)),
        "peak_reserved_bytes": int(torch.cuda.max_memory_reserved(device)),
    }


def driver() -> str | None:
    """Version of the kernel's module; `None` where the system does not tell."""
    try:
        line = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", line)
    return found[0] if found else None


def peak_memory_bytes(device: str = "cpu") -> int | None:
    """Most memory that was held, on the GPU if it computed there; `None` where the system does not say."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
