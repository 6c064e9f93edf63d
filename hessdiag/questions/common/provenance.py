"""How a result came to be: an allow-list of facts. No environment, no host name, no user name."""

import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hessdiag.questions.common.result import Arithmetic, ModelSubject, Provenance, Result, Subject
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


P = ParamSpec("P")
R = TypeVar("R", bound=Result)


def recorded(measure: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that gives a result, so that the result says how it came to be."""

    @wraps(measure)
    def record(*args: P.args, **kwargs: P.kwargs) -> R:
        clock = Clock()
        result = measure(*args, **kwargs)
        found = collect(clock, result.problem, result.resumed_pieces)
        return replace(result, provenance=replace(found, sharding=result.provenance.sharding))

    return record


def collect(clock: Clock, problem: Subject, resumed_pieces: int = 0) -> Provenance:
    """How numbers came to be that were just computed.

    Args:
        clock: Made when the computation began.
        problem: What was measured.
        resumed_pieces: How many pieces of an earlier run were taken up.
    """
    torch = _torch()
    device = problem.device or "cpu"
    return Provenance(
        started=clock.started,
        wall_seconds=round(clock.seconds, 3),
        peak_memory_bytes=peak_memory_bytes(device),
        versions=versions(),
        platform=f"{platform.system()} {platform.machine()}",
        device=device_name(device),
        threads=torch.get_num_threads() if torch else None,
        kernels_forced=problem.kernels_forced if isinstance(problem, ModelSubject) else (),
        arithmetic=arithmetic(device),
        gpu=gpu(device) if device.startswith("cuda") else None,
        resumed_pieces=resumed_pieces or None,
    )


def _torch() -> Any:
    """Torch where it is loaded; elsewhere no number hangs on it, and loading it would take longer than `chain` does."""
    return sys.modules.get("torch")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import numpy

    torch = _torch()
    return {
        "hessdiag": __version__,
        **({"torch": str(torch.__version__)} if torch else {}),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def device_name(device: str) -> str:
    """A device with its model, where it has one.

    >>> device_name("cpu")
    'cpu'
    """
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def arithmetic(device: str) -> Arithmetic:
    """In which arithmetic was measured, and what of the process's own flags was set aside meanwhile.

    >>> arithmetic("cpu")
    Arithmetic(float32='IEEE', set_aside=(), repeatable=True)
    """
    torch = _torch()
    if torch is None:
        return Arithmetic(float32="IEEE")
    from hessdiag.machine.arithmetic import autocast, rounded

    gpu = device.startswith("cuda")
    aside = [f"{value} in {name}" for name, value in rounded().items() if name.endswith("GPU") == gpu]
    aside += [f"autocast on {kind}" for kind in autocast()]
    if gpu and torch.backends.cudnn.benchmark:
        aside.append("cudnn.benchmark")
    return Arithmetic(
        float32="IEEE",
        set_aside=tuple(aside),
        # Kernels of a GPU add in any order, so that last digits vary from run to run, unless the user forbids those.
        repeatable=not gpu or torch.are_deterministic_algorithms_enabled(),
    )


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
