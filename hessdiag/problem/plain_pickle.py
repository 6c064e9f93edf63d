"""Pickles of plain data: numbers, text, lists, dicts and numeric numpy arrays.

Reading them calls nothing outside of this file. A pickle names what it wants called. Of the names that numpy writes for
its arrays, none is looked up: each has a stand-in here that takes numbers only, so that not even numpy's own unpickling
sees what a file made up.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

_NUMERIC = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_HOMES = ("numpy.core", "numpy._core")  # before and since numpy 2
_OF_NUMPY = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")

NAMES = frozenset(
    {"numpy.ndarray", "numpy.dtype", "collections.OrderedDict", "_codecs.encode", "builtins.bytes"}
    | {f"{home}.{name}" for home in _HOMES for name in _OF_NUMPY}
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
    hessdiag.problem.plain_pickle.NotPlainError: builtins.print
    """
    return _Unpickler(stream).load()


class _Unpickler(pickle.Unpickler):
    """Stand-ins are made anew for each file: a pickle may set attributes of what it is given."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="bytes")
        self._known = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        full = f"{module}.{name}".replace("__builtin__.", "builtins.")  # Python 2
        if full not in self._known:
            raise NotPlainError(full)
        return self._known[full]


def _stand_ins() -> dict[str, Any]:
    class Dtype:
        """Collects what a pickled dtype says, as text."""

        def __init__(self, name: Any, *_: Any) -> None:
            self.name, self.order = _text(name), "="

        def __setstate__(self, state: Any) -> None:
            self.order = _text(state[1])

        def numeric(self) -> Any:
            if not _NUMERIC.fullmatch(self.name) or self.order not in ("<", ">", "=", "|"):
                raise NotPlainError(f"an array of {self.name}")
            return np.dtype(self.name).newbyteorder(self.order)  # type: ignore[arg-type]

    class Array(np.ndarray[Any, Any]):
        def __setstate__(self, state: Any) -> None:
            _, shape, dtype, by_columns, content = state
            super().__setstate__((1, shape, dtype.numeric(), by_columns, content))

    def reconstruct(*_: Any) -> Any:
        return Array(0)

    def scalar(dtype: Dtype, content: bytes) -> Any:
        return np.frombuffer(content, dtype.numeric())[0].item()

    def from_buffer(content: bytes, dtype: Dtype, shape: tuple[int, ...], order: Any, *_: Any) -> Any:
        if order not in ("C", "F"):
            raise NotPlainError(f"an array in order {order!r}")
        return np.frombuffer(content, dtype.numeric()).reshape(shape, order=order)

    def encode(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise NotPlainError(f"text in {encoding}")
        return text.encode("latin1")

    called: dict[str, Callable[..., Any]] = dict(zip(_OF_NUMPY, (reconstruct, scalar, from_buffer), strict=True))
    return {
        "numpy.ndarray": None,  # an argument of _reconstruct, never called
        "numpy.dtype": Dtype,
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": encode,
        "builtins.bytes": lambda: b"",
    } | {f"{home}.{name}": function for home in _HOMES for name, function in called.items()}


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
