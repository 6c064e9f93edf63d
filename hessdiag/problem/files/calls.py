"""What the pickles of data call, and with what: all other calls of the same names are refused before they are made."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hessdiag.problem.files import plain_pickle
from hessdiag.problem.files.allowance import Allowance, nominal
from hessdiag.problem.files.opcodes import (
    Blob,
    CostlyError,
    DeepError,
    Made,
    MadeUpError,
    Name,
    Program,
    Stored,
    Table,
    parts,
)

_DEEPEST = 500
_STEPS = 100_000
_TEXT = (str, bytes)
_ITEM_SIZES = {
    "torch.DoubleStorage": 8, "torch.LongStorage": 8, "torch.FloatStorage": 4, "torch.IntStorage": 4,
    "torch.HalfStorage": 2, "torch.BFloat16Storage": 2, "torch.ShortStorage": 2, "torch.CharStorage": 1,
    "torch.ByteStorage": 1, "torch.BoolStorage": 1, "torch.ComplexDoubleStorage": 16, "torch.ComplexFloatStorage": 8,
    "torch.QInt8Storage": 1, "torch.QUInt8Storage": 1, "torch.QInt32Storage": 4, "torch.QUInt4x2Storage": 1,
    "torch.QUInt2x4Storage": 1, "torch.storage.UntypedStorage": 1, "torch.UntypedStorage": 1,
}  # fmt: skip
_LATIN = ("latin1", "latin-1")
_NOT_OF_TORCH = ("numpy.", "pathlib", "datetime.", "argparse.", "types.")
_STRIDED = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
_QUANTIZED = "torch._utils._rebuild_qtensor"
_SPARSE = "torch._utils._rebuild_sparse_tensor"
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"
_META = "torch._utils._rebuild_meta_tensor_no_storage"
_WRAPPED = "torch._utils._rebuild_wrapper_subclass"


class Rules:
    """Which calls the pickles of one file may make.

    Args:
        allowance: What the file may unpack to.
        records: Sizes of a zip's storages by key; `None` for a file that holds them after its pickles.
        stock: Whether a name is a class of `torch.nn`.
    """

    def __init__(self, allowance: Allowance, records: Mapping[str, int] | None, stock: Callable[[str], bool]) -> None:
        self.allowance, self.records, self._stock = allowance, records, stock
        self._held: dict[Any, int] = {}

    def permit(self, made: Made | Stored) -> None:
        """Check a call, or the state that it was given.

        Raises:
            MadeUpError: if it is none that saving data writes.
            LoadError: if it takes more than the file may.
        """
        if isinstance(made, Stored):
            self._storage(made)
        elif made.state is not None:
            self._state(made)
        else:
            self._call(made.name, made.args, new=made.new)

    def _call(self, name: str, args: tuple[Any, ...], *, new: bool) -> None:
        form = _FORMS.get(name)
        if form is not None:
            fits = form(args)
        elif name in _STRIDED or name == _QUANTIZED:
            fits = not new and self._strided(name, args)
        elif name == _OF_TYPE:
            fits = not new and len(args) == 4 and isinstance(args[0], Name) and isinstance(args[2], tuple)
            if fits:
                self._call(args[0].full, args[2], new=False)
        elif name.startswith("torch._utils._rebuild_"):
            fits = not new
            if fits:
                _dense(name, args)  # raises where it should tell a shape and does not
        elif name.startswith("torch.distributed."):
            fits = new
        elif self._stock(name):
            fits = new and not args
        else:
            fits = not _called_by_nobody(name)  # of what is not known, the file is refused by its names
        if not fits:
            raise MadeUpError(f"a call of {name} as no file of weights makes it")

    def _strided(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether a tensor lies within its storage: torch would grow the storage to hold it."""
        if len(args) < 4 or not isinstance(args[0], Stored):
            return False
        offset, size, stride = args[1], _shape(args[2]), _shape(args[3])
        if not isinstance(offset, int) or size is None or stride is None or len(size) != len(stride) or len(size) > 64:
            return False
        if name == _QUANTIZED:
            self.allowance.check(nominal(size) * 4)  # it is made empty first
        if 0 in size:
            return True
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        of_bytes = name.endswith("_v3")
        each = _item_size(args[6]) if of_bytes and len(args) > 6 else 1
        if min(offset, *size, *stride, 1) < 0 or (last + 1) * each > _entries(args[0]):
            raise ValueError(f"a tensor of shape {size} that does not fit into its storage")
        return True

    def _storage(self, stored: Stored) -> None:
        """Check that a storage is not larger than what the file holds for it.

        Raises:
            ValueError: if it is.
            MadeUpError: if it is no storage.
        """
        ident = stored.ident
        known = isinstance(ident, tuple) and len(ident) in (5, 6) and ident[0] in ("storage", b"storage")
        if not known or not isinstance(ident[1], Name) or not isinstance(ident[4], int) or ident[4] < 0:
            raise MadeUpError("an object from outside of the pickle that is no storage")
        key, size = ident[2], ident[4] * _ITEM_SIZES.get(ident[1].full, 16)
        if not isinstance(key, (str, bytes, int)):
            raise MadeUpError("a storage without a name")
        self._held[key] = max(size, self._held.get(key, 0))
        if len(ident) == 6 and ident[5] is not None:
            view = ident[5]
            if not isinstance(view, tuple) or len(view) != 3 or not all(isinstance(item, int) for item in view[1:]):
                raise MadeUpError("a part of a storage that is none")
        there = self.allowance.size if self.records is None else self.records.get(str(key), 0)
        total = sum(self._held.values()) if self.records is None else size
        if total > there and ident[3] not in ("meta", b"meta"):
            raise ValueError(f"a storage of {total:,} bytes, where the file has {there:,}")

    def _state(self, made: Made) -> None:
        name, state = made.name, made.state
        pair = isinstance(state, tuple)
        if name == "numpy.dtype":
            fits = pair and len(state) > 1 and isinstance(state[1], _TEXT)
        elif name.endswith("multiarray._reconstruct"):
            fits = pair and len(state) == 5 and (_is_bytes(state[4]) or isinstance(state[4], list))
            shape = _shape(state[1]) if fits else None
            fits = shape is not None and nominal(shape) <= max(_length(state[4]), 10**6)
        elif name == _OF_TYPE or name.startswith("torch._utils."):
            fits = False
        elif self._stock(name):
            fits = isinstance(state, Table)
        else:
            fits = True
        if not fits:
            raise MadeUpError(f"a state of {name} as no file of weights has it")

    def unfold(self, root: Any, program: Program) -> None:
        """Check how much there is once everything that is named twice is there twice, as programs that walk see it.

        Raises:
            DeepError: if it is nested too deep.
            CostlyError: if it unfolds to too many parts.
            LoadError: if its tensors are more than the file may unpack to.
        """
        total, steps, stack = 0, _STEPS + 4 * program.units, [(root, 0)]
        while stack:
            value, depth = stack.pop()
            steps -= 1
            if steps < 0:
                raise CostlyError("parts that are held many times, in parts that are held many times")
            if depth > _DEEPEST:
                raise DeepError(f"itself as a part, or parts in parts more than {_DEEPEST} deep")
            if isinstance(value, Made):
                total += _size(value)
                self.allowance.check(total)
            if not isinstance(value, (Stored, Name)):
                stack.extend((part, depth + 1) for part in parts(value) if not isinstance(part, (int, float, str)))


def _shape(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, Made) and value.name == "torch.Size" and len(value.args) == 1:
        value = value.args[0]
    whole = isinstance(value, (tuple, list)) and all(type(item) is int and item < 1 << 62 for item in value)
    return tuple(value) if whole else None


def _dense(name: str, args: tuple[Any, ...]) -> tuple[int, ...] | None:
    """The shape of the dense tensor that a call stands for; `None` if it stands for none.

    Raises:
        MadeUpError: if it has none.
    """
    if name == _OF_TYPE and isinstance(args[0], Name) and isinstance(args[2], tuple):
        return _dense(args[0].full, args[2])
    if name in _STRIDED or name == _QUANTIZED:
        shape = _shape(args[2])
    elif name == _SPARSE:
        data = args[1] if len(args) == 2 and isinstance(args[1], tuple) else ()
        shape = next((shape for item in data[2:] if (shape := _shape(item)) is not None), None)
        if shape is None:
            raise MadeUpError("a sparse tensor without a shape")
    elif name in (_META, _WRAPPED):
        shape = _shape(args[1 if name == _META else 2]) if len(args) > 2 else None
    else:
        return None
    if shape is None:
        raise MadeUpError("a tensor without a shape")
    return shape


def _size(made: Made) -> int:
    """Bytes of the dense array or tensor that a call stands for; none where it stays without values."""
    if made.name.endswith("multiarray._reconstruct"):
        return _length(made.state[4]) if isinstance(made.state, tuple) and len(made.state) == 5 else 0
    if made.name.endswith("numeric._frombuffer"):
        return _length(made.args[0])
    shape = None if made.name in (_META, _WRAPPED) else _dense(made.name, made.args)
    return 0 if shape is None else nominal(shape) * _item_size_of(made)


def _item_size_of(made: Made) -> int:
    """Bytes of an entry, where they are known; 8 where they are not."""
    args = made.args[2] if made.name == _OF_TYPE and isinstance(made.args[2], tuple) else made.args
    stored = args[0] if args else None
    if isinstance(stored, Stored) and not made.name.endswith("_v3"):
        return _ITEM_SIZES.get(stored.ident[1].full, 16)
    if made.name.endswith("_v3") and len(args) > 6:
        return _item_size(args[6])
    return 8


def _item_size(dtype: Any) -> int:
    found = getattr(torch, dtype.full.removeprefix("torch."), None) if isinstance(dtype, Name) else None
    return found.itemsize if isinstance(found, torch.dtype) else 1


def _entries(stored: Stored) -> int:
    ident = stored.ident
    view = ident[5] if len(ident) == 6 else None
    return int(ident[4] if view is None else min(view[2], ident[4] - view[1]))


def _length(content: Any) -> int:
    if isinstance(content, Blob):
        return content.length
    if isinstance(content, Made):  # bytes as protocol 2 has them: text that is encoded
        return max(map(_length, content.args), default=0)
    return len(content) if isinstance(content, (str, bytes, bytearray, list)) else 0


def is_data(name: str) -> bool:
    """Whether torch's weights-only unpickler takes the name by itself, and it stands for data."""
    if name in _FORMS or name in _ITEM_SIZES or name == _OF_TYPE or name.startswith("torch._utils._rebuild_"):
        return not name.startswith(_NOT_OF_TORCH)
    home, _, attribute = name.rpartition(".")
    values = (torch.dtype, torch.layout, torch.qscheme, type(torch.FloatTensor))
    return home == "torch" and isinstance(getattr(torch, attribute, None), values)


def _called_by_nobody(name: str) -> bool:
    """Whether a name stands for a value: a dtype, a storage, a layout, a tensor's class, a function."""
    return name.startswith("torch.") or name in plain_pickle.NAMES


def _is_text(value: Any) -> bool:
    return isinstance(value, _TEXT) or (isinstance(value, Blob) and value.kind in _TEXT)


def _is_bytes(value: Any) -> bool:
    return isinstance(value, (str, bytes, bytearray, Blob)) or (
        isinstance(value, Made) and value.name in ("_codecs.encode", "builtins.bytes", "builtins.bytearray")
    )


def _is_made(value: Any, *names: str) -> bool:
    return isinstance(value, Made) and value.name.startswith(names)


def _nothing(args: tuple[Any, ...]) -> bool:
    return args == ()


def _one_list(args: tuple[Any, ...]) -> bool:
    """Nothing, or a list of what takes no time to hash."""
    return args == () or (
        len(args) == 1
        and isinstance(args[0], list)
        and all(not isinstance(item, tuple) or not any(isinstance(part, tuple) for part in item) for item in args[0])
    )


def _pairs(args: tuple[Any, ...]) -> bool:
    if args == ():
        return True
    listed = len(args) == 1 and isinstance(args[0], list)
    return listed and all(isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_text(pair[0]) for pair in args[0])


def _queue(args: tuple[Any, ...]) -> bool:
    return (
        len(args) <= 2
        and (not args or isinstance(args[0], (list, tuple)))
        and all(item is None or isinstance(item, int) for item in args[1:])
    )


def _factory(args: tuple[Any, ...]) -> bool:
    return len(args) <= 1 and all(item is None or isinstance(item, Name) for item in args)


def _raw(args: tuple[Any, ...]) -> bool:
    return args == () or (_is_bytes(args[0]) and (args[1:] == () or (len(args) == 2 and args[1] in _LATIN)))


def _texts(args: tuple[Any, ...]) -> bool:
    return all(_is_text(item) for item in args)


def _numbers(args: tuple[Any, ...]) -> bool:
    return all(isinstance(item, (int, float, complex)) for item in args)


def _moment(args: tuple[Any, ...]) -> bool:
    return all(
        item is None or isinstance(item, (int, float)) or _is_bytes(item) or _is_made(item, "datetime.")
        for item in args
    )


def _parameter(args: tuple[Any, ...]) -> bool:
    return len(args) in (3, 4) and _is_tensor(args[0]) and isinstance(args[1], bool)


def _is_tensor(value: Any) -> bool:
    return _is_made(value, "torch._utils._rebuild_", _OF_TYPE)


def _from_memory(args: tuple[Any, ...]) -> bool:
    source = args[0] if len(args) == 4 else None
    array = isinstance(source, Made) and source.name.endswith(("._reconstruct", "._frombuffer"))
    return array or _is_tensor(source)


_FORMS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    "collections.OrderedDict": _pairs,
    "collections.Counter": lambda args: args == () or (len(args) == 1 and isinstance(args[0], Table)),
    "collections.defaultdict": _factory,
    "collections.deque": _queue,
    "builtins.set": _one_list,
    "builtins.frozenset": _one_list,
    "builtins.bytes": _nothing,
    "builtins.bytearray": _raw,
    "builtins.complex": lambda args: len(args) == 2 and _numbers(args),
    "_codecs.encode": lambda args: len(args) == 2 and _is_text(args[0]) and args[1] in _LATIN,
    "torch.Size": lambda args: len(args) == 1 and _shape(args[0]) is not None,
    "torch.device": lambda args: 1 <= len(args) <= 2 and isinstance(args[0], str) and _numbers(args[1:]),
    "torch.serialization._get_layout": lambda args: len(args) == 1 and isinstance(args[0], str),
    "torch.torch_version.TorchVersion": lambda args: len(args) == 1 and _texts(args),
    "argparse.Namespace": _nothing,
    "types.SimpleNamespace": _nothing,
    "numpy.dtype": lambda args: 1 <= len(args) <= 3 and _texts(args[:1]) and _numbers(args[1:]),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_memory,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_memory,
}  # fmt: skip
for _home in ("numpy.core", "numpy._core"):
    _FORMS[f"{_home}.multiarray._reconstruct"] = lambda args: len(args) == 3 and isinstance(args[0], Name)
    _FORMS[f"{_home}.multiarray.scalar"] = lambda args: (
        len(args) == 2 and _is_made(args[0], "numpy.dtype") and (_is_bytes(args[1]) or isinstance(args[1], Made))
    )
    _FORMS[f"{_home}.numeric._frombuffer"] = lambda args: (
        len(args) >= 4
        and _is_bytes(args[0])
        and _is_made(args[1], "numpy.dtype")
        and _shape(args[2]) is not None
        and nominal(_shape(args[2]) or ()) <= max(_length(args[0]), 10**6)
        and args[3] in ("C", "F")
    )
for _name in plain_pickle.NAMES:
    if _name.startswith("pathlib"):
        _FORMS[_name] = _texts
    elif _name.startswith("datetime."):
        _FORMS[_name] = _moment
