"""IEEE arithmetic while something is measured, whatever the process allows itself elsewhere.

A residual of 1e-6 certifies nothing if products were rounded to the ten bits of TF32. On a GPU torch allows it to
convolutions by default, `torch.set_float32_matmul_precision` to matrix products, and autocast rounds everything.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

ROUNDED = ("tf32", "bf16")  # what float32 may become, in torch's words
CUDNN = frozenset({"convolutions on a GPU", "recurrent layers on a GPU"})  # which had one flag
MATMUL = frozenset({"matrix products on a GPU", "matrix products on a CPU"})  # likewise
# Torch 2.9 and later tells operations apart; the flags before it go on to exist. These two are asked and not
# `torch.backends`, whose `mkldnn.fp32_precision` in 2.13 writes another setting than it reads.
_get: Any = getattr(torch._C, "_get_fp32_precision_getter", None)
_set: Any = getattr(torch._C, "_set_fp32_precision_setter", None)
BY_OPERATION = _get is not None and _set is not None


@dataclass(frozen=True)
class _Setting:
    """What float32 may be rounded to in one kind of operation; "none" leaves it to the setting above."""

    backend: str
    operation: str = "all"
    above: "_Setting | None" = None

    @property
    def value(self) -> str:
        """As it takes effect, its own or that above."""
        return str(_get(self.backend, self.operation))

    def set(self, value: str) -> None:
        """Make it its own."""
        _set(self.backend, self.operation, value)

    def own(self) -> str:
        """What it was set to itself, so that it can be put back; torch tells only what takes effect."""
        value = self.value
        if self.above is None or value == "none" or value != self.above.value:
            return value
        kept = self.above.own()
        self.above.set("tf32" if value == "ieee" else "ieee")
        follows = self.value != value
        self.above.set(kept)
        return "none" if follows else value


_ALL = _Setting("generic")
_GPU, _CPU = _Setting("cuda", above=_ALL), _Setting("mkldnn", above=_ALL)
_SETTINGS = {
    "convolutions on a GPU": _Setting("cuda", "conv", _GPU),
    "recurrent layers on a GPU": _Setting("cuda", "rnn", _GPU),
    "matrix products on a GPU": _Setting("cuda", "matmul", _GPU),
    "convolutions on a CPU": _Setting("mkldnn", "conv", _CPU),
    "recurrent layers on a CPU": _Setting("mkldnn", "rnn", _CPU),
    "matrix products on a CPU": _Setting("mkldnn", "matmul", _CPU),
}


def rounded() -> dict[str, str]:
    """What float32 may be rounded to now, by operation; empty if nothing is rounded."""
    if BY_OPERATION:
        found = {name: setting.value for name, setting in _SETTINGS.items()}
    else:
        precision = torch.get_float32_matmul_precision()
        found = dict.fromkeys(CUDNN, "tf32" if torch.backends.cudnn.allow_tf32 else "ieee")
        found["matrix products on a GPU"] = "ieee" if precision == "highest" else "tf32"
        found["matrix products on a CPU"] = "bf16" if precision == "medium" else "ieee"
    return {name: value for name, value in found.items() if value in ROUNDED}


def autocast() -> list[str]:
    """Kinds of devices on which autocast is on now."""
    return [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]


class _Forbidden:
    """What is forbidden for as long as anything is measured in this process, and how it is put back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._back: list[Callable[[], None]] = []

    def enter(self) -> None:
        """Forbid, if nothing else has."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._forbid()

    def again(self) -> None:
        """Forbid rounding that was allowed since; what holds afterwards is what held at first."""
        with self._lock:
            if names := frozenset(rounded()):
                _without_rounding(names)

    def leave(self) -> None:
        """Put everything back, unless something else is still measured."""
        with self._lock:
            self._inside -= 1
            while not self._inside and self._back:
                self._back.pop()()

    def _forbid(self) -> None:
        if torch.backends.cudnn.benchmark:
            self._back.append(lambda: setattr(torch.backends.cudnn, "benchmark", True))
            torch.backends.cudnn.benchmark = False
        if names := frozenset(rounded()):
            self._back.append(_without_rounding(names))


_FORBIDDEN = _Forbidden()


@contextmanager
def ieee() -> Iterator[None]:
    """Float32 is float32, autocast is off, and kernels are not chosen by a race; undone afterwards.

    >>> torch.set_float32_matmul_precision("medium")
    >>> with ieee():
    ...     rounded(), torch.get_float32_matmul_precision()
    ({}, 'highest')
    >>> torch.get_float32_matmul_precision()
    'medium'
    >>> torch.set_float32_matmul_precision("highest")
    """
    kinds = autocast()  # of this thread, unlike all else
    _FORBIDDEN.enter()
    try:
        if not kinds:
            yield
            return
        with ExitStack() as stack:
            for kind in kinds:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        _FORBIDDEN.leave()


def insist() -> None:
    """Forbid what a model has allowed in its forward pass; to be called within `ieee`."""
    _FORBIDDEN.again()


def _without_rounding(names: frozenset[str]) -> Callable[[], None]:
    """Forbid rounding in these operations, and give what puts all back.

    The old flags are set too: torch refuses to read them where they contradict the new settings, and models may read.
    """
    groups = [group for group in (CUDNN, MATMUL) if group & names]
    touched = names.union(*groups)
    settings = [setting for name, setting in _SETTINGS.items() if name in touched] if BY_OPERATION else []
    own = [setting.own() for setting in settings]

    def forbid() -> None:
        for setting in settings:
            setting.set("ieee")

    forbid()
    with _unadvised(touched):
        flags = [(_FLAGS[group], _FLAGS[group].read()) for group in groups]
        for flag, _ in flags:
            flag.write(flag.strict)
    forbid()

    def back() -> None:
        for flag, value in flags:
            flag.write(value)
        for setting, value in zip(settings, own, strict=True):
            setting.set(value)

    return back


@dataclass(frozen=True)
class _Flag:
    """One of the flags that were there before the settings."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    strict: Any


def _cudnn_allowed() -> bool:
    """Asked where the new settings forbid it, which the old flag contradicts if it allows it."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return True


def _allow_cudnn(value: bool) -> None:
    torch.backends.cudnn.allow_tf32 = value


_FLAGS = {
    CUDNN: _Flag(_cudnn_allowed, _allow_cudnn, strict=False),
    MATMUL: _Flag(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
}


_written: set[frozenset[str]] = set()


@contextmanager
def _unadvised(flags: frozenset[str]) -> Iterator[None]:
    """Some versions of torch advise, once, to use the new settings alone; that is no advice for the user."""
    if flags in _written:  # leaving the filter makes Python forget which warnings were shown
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    _written.add(flags)
