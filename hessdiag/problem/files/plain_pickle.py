"""Pickles of plain data: numbers, text, dates, paths, lists, dicts, namespaces and numeric numpy arrays.

Reading them calls nothing outside of this file. A pickle names what it wants called. Of the names that are known here,
none is looked up: each has a stand-in that takes data only, so that not even numpy's own unpickling sees what a file
made up.
`torch.load(weights_only=True)` is given the same stand-ins, for what trainers save beside their weights.
"""

import argparse
import datetime
import pathlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

_NUMERIC = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_TEXT = re.compile(r"[US]\d{1,5}")
_HOMES = ("numpy.core", "numpy._core")  # before and since numpy 2
_OF_NUMPY = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
# Named as the factory of a defaultdict or the type of a column, and never called.
_TYPES = tuple(f"builtins.{name}" for name in ("int", "float", "bool", "str", "list", "dict", "tuple"))
_NUMPY_TYPES = (
    *(f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *(
        f"numpy.{name}"
        for name in ("float16", "float32", "float64", "complex64", "complex128", "bool", "bool_", "str_")
    ),
)
_DATES: tuple[type, ...] = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone)

NAMES = frozenset(
    {"numpy.ndarray", "numpy.dtype", *_TYPES}
    | {f"{home}.{name}" for home in _HOMES for name in _OF_NUMPY}
    | {f"{home}.{name}" for home in ("pathlib", "pathlib._local") for name in _PATHS}
    | {f"datetime.{kind.__name__}" for kind in _DATES}
    | {"builtins.bytes", "builtins.frozenset", "_codecs.encode"}
    | {"collections.OrderedDict", "collections.defaultdict", "collections.deque"}
    | {"argparse.Namespace", "types.SimpleNamespace", "torch.torch_version.TorchVersion"}
)


class NotPlainError(Exception):
    """The pickle holds something else than plain data."""


def load(stream: IO[bytes]) -> Any:
    """What a pickle of plain data holds; strings that Python 2 wrote are bytes.

    Raises:
        NotPlainError: if it names anything outside of `NAMES`, or has arrays of anything but numbers.
        Exception: of many kinds, if it is damaged.

    >>> import io
    >>> load(io.BytesIO(pickle.dumps({"x": np.arange(3), "names": ["a"]})))["x"].tolist()
    [0, 1, 2]
    >>> load(io.BytesIO(pickle.dumps(print)))
    Traceback (most recent call last):
    hessdiag.problem.files.plain_pickle.NotPlainError: builtins.print
    """
    return _Unpickler(stream).load()


class _Unpickler(pickle.Unpickler):
    """Stand-ins are made anew for each file: a pickle may set attributes of what it is given."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="bytes")
        self._known = stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        full = f"{module}.{name}".replace("__builtin__.", "builtins.")  # Python 2
        if full not in self._known:
            raise NotPlainError(full)
        return self._known[full]


def stand_ins(*, beside_weights: bool = False) -> dict[str, Any]:
    """What is called in the place of each of `NAMES`, made anew.

    Args:
        beside_weights: Also take arrays of text and the types of numpy's numbers.
    """

    class Named:
        """Stands for a type that is only named."""

        def __init__(self, *_: Any) -> None:
            raise NotPlainError("a type that is called")

    types = (*_TYPES, *(_NUMPY_TYPES if beside_weights else ()))
    return {
        **_of_numpy(with_text=beside_weights),
        **_of_containers(),
        **_of_text(),
        **{f"datetime.{kind.__name__}": kind for kind in _DATES},
        **dict.fromkeys(types, Named),
    }


def _of_numpy(*, with_text: bool) -> dict[str, Any]:
    """Arrays, their types and single numbers."""

    class Dtype:
        """Collects what a pickled dtype says, as text."""

        def __init__(self, name: Any, *_: Any) -> None:
            self.name, self.order = _text(name), "="

        def __setstate__(self, state: Any) -> None:
            self.order = _text(state[1])

        def plain(self) -> Any:
            known = _NUMERIC.fullmatch(self.name) or (with_text and _TEXT.fullmatch(self.name))
            if not known or self.order not in ("<", ">", "=", "|"):
                raise NotPlainError(f"an array of {self.name}")
            return np.dtype(self.name).newbyteorder(self.order)  # type: ignore[arg-type]

    class Array(np.ndarray[Any, Any]):
        def __new__(cls, *_: Any) -> Any:
            return super().__new__(cls, 0)

        def __setstate__(self, state: Any) -> None:
            _, shape, dtype, by_columns, content = state
            super().__setstate__((1, shape, dtype.plain(), by_columns, content))

    def reconstruct(*_: Any) -> Any:
        return Array(0)

    def scalar(dtype: Dtype, content: bytes) -> Any:
        return np.frombuffer(content, dtype.plain())[0].item()

    def from_buffer(content: bytes, dtype: Dtype, shape: tuple[int, ...], order: Any, *_: Any) -> Any:
        if order not in ("C", "F"):
            raise NotPlainError(f"an array in order {order!r}")
        return np.frombuffer(content, dtype.plain()).reshape(shape, order=order)

    called: dict[str, Callable[..., Any]] = dict(zip(_OF_NUMPY, (reconstruct, scalar, from_buffer), strict=True))
    return {
        "numpy.ndarray": Array,
        "numpy.dtype": Dtype,
        **{f"{home}.{name}": function for home in _HOMES for name, function in called.items()},
    }


def _of_containers() -> dict[str, Any]:
    """What holds other data."""

    class Namespace(argparse.Namespace):
        """Attributes, and nothing that runs."""

    def frozen(items: Any = ()) -> Any:
        if not isinstance(items, list):
            raise NotPlainError("a set of something else than a list")
        return frozenset(items)

    return {
        "collections.OrderedDict": OrderedDict,
        "collections.defaultdict": lambda *_: {},  # what it makes of missing keys is left behind
        "collections.deque": lambda *_: [],
        "builtins.frozenset": frozen,
        "argparse.Namespace": Namespace,
        "types.SimpleNamespace": Namespace,
    }


def _of_text() -> dict[str, Any]:
    """Bytes, versions and paths."""

    class Text(str):
        """A version, as text."""

    def encode(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise NotPlainError(f"text in {encoding}")
        return text.encode("latin1")

    def path(*parts: Any) -> Any:
        return pathlib.PurePosixPath(*parts)

    def windows_path(*parts: Any) -> Any:
        return pathlib.PureWindowsPath(*parts)

    paths = {name: windows_path if "Windows" in name else path for name in _PATHS}
    return {
        "builtins.bytes": lambda: b"",
        "_codecs.encode": encode,
        "torch.torch_version.TorchVersion": Text,
        **{f"{home}.{name}": function for home in ("pathlib", "pathlib._local") for name, function in paths.items()},
    }


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
