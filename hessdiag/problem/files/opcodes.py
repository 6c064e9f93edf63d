"""A pickle followed without doing what it says: which names it calls with what, and what that would take.

A pickle is a program of opcodes. Here each opcode moves stand-ins: a call becomes a `Made`, a storage a `Stored`.
Nothing is looked up, called or allocated, and following a file takes at most a small multiple of its own size.
"""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

_BLOB = 4096  # longer text and bytes are known by their length
_SPARE_MEMO = 1 << 16
_ODD_KEYS = 10_000
_DEEPEST_KEY = 8
_UNITS, _BYTES_A_UNIT = 1_000_000, 4

# What a container takes, in units of about 30 bytes.
_CONTAINERS = {"EMPTY_LIST": 3, "EMPTY_DICT": 8, "EMPTY_SET": 8, "LIST": 3, "DICT": 8, "FROZENSET": 8, "REDUCE": 8}
_CONTAINERS |= {"TUPLE": 2, "TUPLE1": 2, "TUPLE2": 2, "TUPLE3": 2, "NEWOBJ": 8, "NEWOBJ_EX": 8, "OBJ": 8, "INST": 8}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_VALUES: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONSTANTS = frozenset((*_NUMBERS, *_TEXTS, *_BYTES, *_VALUES))


class CostlyError(Exception):
    """Following the pickle takes more than a file of its size may."""


class DeepError(Exception):
    """What the pickle gives holds itself, or parts in parts without end."""


class MadeUpError(Exception):
    """The pickle does what no program writes that saves data."""


@dataclass(frozen=True)
class Name:
    """What a pickle wants looked up."""

    full: str


@dataclass(frozen=True)
class Blob:
    """Long text or bytes."""

    kind: type
    length: int


@dataclass(frozen=True, eq=False)
class Stored:
    """A storage of a torch file, by its persistent id."""

    ident: Any


@dataclass(eq=False, slots=True)
class Made:
    """What a call gives.

    Attributes:
        name: The full name of what is called.
        args: Its arguments.
        new: Whether only `__new__` is called, and no constructor.
        state: What it is told afterwards to have for a state.
        entries: What is put into it afterwards.
    """

    name: str
    args: tuple[Any, ...]
    new: bool
    state: Any = None
    entries: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Table:
    """A dict: keys and values in turn."""

    entries: list[Any] = field(default_factory=list)


@dataclass
class Program:
    """What one pickle, or several in one file, do.

    Attributes:
        size: Bytes of the file, by which it is measured what it may take.
        fault: What was raised first where a call was not permitted.
        names: Full names that it wants looked up.
        units: What was taken so far.
        odd_keys: Keys whose hashes a file may make equal.
    """

    size: int
    fault: Exception | None = None
    names: set[str] = field(default_factory=set)
    units: int = 0
    odd_keys: int = 0

    def charge(self, units: int) -> None:
        """Count what is taken.

        Raises:
            CostlyError: if it is more than a file of this size may take.
        """
        self.units += units
        if self.units > _UNITS + self.size // _BYTES_A_UNIT:
            raise CostlyError(f"more than {self.units - units:,} objects")

    def follow(self, stream: IO[bytes], permit: Callable[[Made | Stored], None]) -> Any:
        """Follow one pickle to its end; the stream is left behind it.

        Args:
            stream: At its start.
            permit: Asked about every call, state and storage when it comes up, and raises where it is none of data.
                All names are wanted, so that the pickle is followed even then.

        Raises:
            CostlyError: if it takes too much.
            MadeUpError: if it does what no program that saves data makes it do.
            Exception: of many kinds, if it is damaged.
        """
        return _Machine(self, permit).run(_Clipped(stream, self.size))


class _Clipped:
    """A stream that is not asked for more than there can be: what is asked for is allocated before it is read."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._read, self._size = stream.read, size
        self.readline, self.tell = stream.readline, stream.tell

    def read(self, count: int) -> bytes:
        return self._read(min(count, self._size))


class _Machine:
    def __init__(self, program: Program, permit: Callable[[Made | Stored], None]) -> None:
        self.program, self.permit = program, permit
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.count = 0

    def run(self, stream: _Clipped) -> Any:
        charge, methods = self.program.charge, dict[str, Any]()
        for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            name = opcode.name
            self.count += 1
            charge(_CONTAINERS.get(name, 1))
            if name in _CONSTANTS:
                self.stack.append(_constant(name, argument))
                continue
            if name not in methods:
                methods[name] = getattr(self, f"_{name.lower()}", None)
            if methods[name] is None:
                raise MadeUpError(f"the opcode {name}")
            methods[name](argument)
        return self.stack.pop()

    def _ask(self, made: Made | Stored) -> None:
        try:
            self.permit(made)
        except Exception as error:
            self.program.fault = self.program.fault or error

    def _proto(self, _: Any) -> None:
        pass

    def _stop(self, _: Any) -> None:
        pass

    def _frame(self, length: int) -> None:
        if length > self.program.size:
            raise ValueError(f"a frame of {length:,} bytes in a file of {self.program.size:,}")

    def _marked(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _pop(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._marked()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    # The memo. The C unpickler's is an array, as long as the largest index.

    def _put(self, index: int) -> None:
        if not 0 <= index <= self.count + _SPARE_MEMO:
            raise ValueError(f"an object with the number {index:,} among {self.count:,}")
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    # Containers.

    def _empty_list(self, _: Any) -> None:
        self.stack.append([])

    def _empty_dict(self, _: Any) -> None:
        self.stack.append(Table())

    def _empty_set(self, _: Any) -> None:
        self.stack.append(Made("builtins.set", (), new=False))

    def _empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def _list(self, _: Any) -> None:
        self.stack.append(self._marked())

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(Table())
        self._set(items)

    def _frozenset(self, _: Any) -> None:
        items = self._marked()
        self._hash(items)
        self.stack.append(Made("builtins.frozenset", (items,), new=False))

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._marked()))

    def _tuple1(self, _: Any) -> None:
        self._join(1)

    def _tuple2(self, _: Any) -> None:
        self._join(2)

    def _tuple3(self, _: Any) -> None:
        self._join(3)

    def _join(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise IndexError("the stack is empty")
        self.stack[-count:] = [items]

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, (list, Made)):
            raise TypeError("something is appended to what is no list")
        (target if isinstance(target, list) else target.entries).extend(items)

    def _additems(self, _: Any) -> None:
        items = self._marked()
        self._hash(items)
        self._extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self, _: Any) -> None:
        self._set(self._marked())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, (Table, Made)) or len(items) % 2:
            raise TypeError("a key is set in what is no dict")
        self._hash(items[::2])
        target.entries.extend(items)

    def _hash(self, keys: list[Any]) -> None:
        """Charge for hashing: a tuple's follows all that is in it, and those of long numbers can be made equal."""
        for key in keys:
            if isinstance(key, tuple):
                self._hash_tuple(key, 1)
            if not isinstance(key, (str, bytes)) and not (isinstance(key, int) and abs(key) < 1 << 60):
                self.program.odd_keys += 1
        if self.program.odd_keys > _ODD_KEYS:
            raise CostlyError(f"more than {_ODD_KEYS:,} keys that are neither text nor short numbers")

    def _hash_tuple(self, key: tuple[Any, ...], depth: int) -> None:
        self.program.charge(len(key))
        if depth > _DEEPEST_KEY:
            raise CostlyError("keys of tuples in tuples")
        for item in key:
            if isinstance(item, tuple):
                self._hash_tuple(item, depth + 1)

    # Names and calls.

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise MadeUpError("a name that is no text")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        if (module, name) in NAME_MAPPING:  # as Python 2 called it
            module, name = NAME_MAPPING[module, name]
        full = f"{IMPORT_MAPPING.get(module, module)}.{name}"
        self.program.names.add(full)
        self.stack.append(Name(full))

    def _inst(self, argument: str) -> None:
        items = tuple(self._marked())
        self._global(argument)
        self._call(self.stack.pop(), items, new=False)

    def _obj(self, _: Any) -> None:
        called, *items = self._marked()
        self._call(called, tuple(items), new=False)

    def _reduce(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self._call(called, arguments, new=False)

    def _newobj(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self._call(called, arguments, new=True)

    def _newobj_ex(self, _: Any) -> None:
        keywords, arguments, called = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if not isinstance(keywords, Table) or keywords.entries:
            raise MadeUpError("a call with keywords")
        self._call(called, arguments, new=True)

    def _call(self, called: Any, arguments: Any, *, new: bool) -> None:
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise MadeUpError("a call of what is no name")
        made = Made(called.full, arguments, new)
        self._ask(made)
        self.stack.append(made)

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Made):
            raise MadeUpError("a state for what has none")
        if target.state is not None:
            raise MadeUpError("an object with two states")
        target.state = state
        self._ask(target)

    def _binpersid(self, _: Any) -> None:
        stored = Stored(self.stack.pop())
        self._ask(stored)
        self.stack.append(stored)


def _constant(opcode: str, argument: Any) -> Any:
    if opcode in _VALUES:
        return _VALUES[opcode]
    if isinstance(argument, (str, bytes, bytearray)) and len(argument) > _BLOB:
        return Blob(type(argument), len(argument))
    return argument


def parts(value: Any) -> Iterator[Any]:
    """What is directly in a value."""
    if isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, Table):
        yield from value.entries
    elif isinstance(value, Made):
        yield from value.args
        yield value.state
        yield from value.entries
