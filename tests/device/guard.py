"""Teaches a CPU build of torch that there is a device "cuda": `load` comes before the first `import torch`.

Torch asks once, when it is loaded, what stands behind that name, and keeps the answer. So all of this is for a process
of its own.
"""

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")


def torch_folder() -> Path:
    """Where torch is installed."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def missing() -> str | None:
    """What is not here that it takes, if anything."""
    if compiler() is None:
        return "needs a C++ compiler"
    if not (torch_folder() / "include/ATen/detail/CUDAHooksInterface.h").exists():
        return "needs the headers of torch"
    return None if "+cpu" in version("torch") else "needs a CPU build of torch"


def compiler() -> str | None:
    """A C++ compiler, if there is one."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def built() -> Path:
    """The library, compiled once for each release of torch."""
    digest = hashlib.sha256(SOURCE.read_bytes() + version("torch").encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"pretended-gpu-{os.getuid()}-{digest}.so"
    if not library.exists():
        home = torch_folder()
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            fresh = Path(folder) / "guard.so"
            command = [str(compiler()), "-std=c++20", "-shared", "-fPIC", f"-I{home / 'include'}", str(SOURCE)]
            subprocess.run([*command, "-o", str(fresh), f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu"], check=True)
            fresh.replace(library)  # in one step, for another process may look for it now
    return library


def load() -> None:
    """Compile it if need be, and load it into this process."""
    assert "torch" not in sys.modules, "torch has made up its mind already"
    for library in (torch_folder() / "lib/libc10.so", torch_folder() / "lib/libtorch_cpu.so", built()):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
