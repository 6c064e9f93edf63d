"""A GPU that is not there: a CPU build of torch that answers to `cuda:0`, refuses what CUDA refuses, and counts.

A tensor of this device is a wrapper around one on the CPU, with the CPU's numbers. Operations that mix devices, or draw
on it with a generator of the CPU, fail as they do on a GPU. Launches of kernels, waits of the host and copies to the
device are counted. There are no clocks, streams, recordings, cuDNN or TF32 here.

Before this, and before torch, `tests.device.guard.load()` has to be called.
"""

import contextlib
import copy
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
FREE = 78 * 2**30
PACKAGE = "/hessdiag/"

WAITING = {  # for how many there are, or what they are
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "repeat_interleave"),
    *("_unique", "_unique2", "unique_consecutive", "unique_dim", "bincount", "histc"),
}
INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
FREE_OF_CHARGE = {"_unsafe_view", "_reshape_alias", "lift_fresh", "detach_", "_has_compatible_shallow_copy_type"}


class OnGpu(Tensor):
    """A tensor that says it is on the GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "OnGpu":
        form = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset(), "dtype": numbers.dtype}
        made = Tensor._make_wrapper_subclass(cls, numbers.size(), device=GPU, **form)
        made.numbers = numbers
        return made

    def untyped_storage(self) -> Any:
        """Where the numbers are: views share it, as on a GPU."""
        return self.numbers.untyped_storage()

    def data_ptr(self) -> int:
        """Where they begin."""
        return self.numbers.data_ptr()

    def tolist(self) -> Any:
        """The numbers, once they are here."""
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnGpu":
        """A leaf of its own; torch would copy the storage, of which a wrapper has none."""
        if id(self) not in memo:
            copied = self.detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)] = copied
            vars(copied).update(
                copy.deepcopy({name: value for name, value in vars(self).items() if name != "numbers"}, memo)
            )
        return memo[id(self)]

    def __repr__(self, *args: Any, **kwargs: Any) -> str:
        return f"OnGpu({self.numbers})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a tensor of the GPU, outside of `pretended`")


class Gpu(TorchDispatchMode):
    """Does on the CPU what a GPU is told to do.

    Attributes:
        counts: `launches`, `waits` (the host stands still until the device has answered) and `uploads`, so far.
        places: The same by the operation.
        lines: Waits and uploads by the line of the package that they come from, where that is asked for.
    """

    def __init__(self, *, lines: bool = False) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.lines: Counter[tuple[str, str]] = Counter()
        self._by_line = lines

    def _count(self, what: str, func: Any) -> None:
        self.counts[what] += 1
        self.places[f"{what} {func}"] += 1
        if self._by_line and what != "launches":
            frames = [frame for frame in traceback.extract_stack() if PACKAGE in frame.filename]
            if frames:
                self.lines[what, f"{frames[-1].filename.partition(PACKAGE)[2]}:{frames[-1].lineno}"] += 1

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and to say so at every operation takes its time

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(
            kind not in (OnGpu, Tensor, torch.nn.Parameter) for kind in types
        ):  # wrappers, which use tensors of the GPU
            return NotImplemented
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            return self._copied(func, name, args, kwargs)
        wrappers: dict[int, OnGpu] = {}  # what is written in place stays the same object
        strange: list[Tensor] = []

        def inner(tensor: Tensor) -> Tensor:
            if isinstance(tensor, OnGpu):
                wrappers[id(tensor.numbers)] = tensor
                return tensor.numbers
            if tensor.ndim:  # numbers of no dimension may come from the CPU
                strange.append(tensor)
            return tensor

        plain_args, plain = _mapped(inner, args), _mapped(inner, kwargs)
        named = kwargs.get("device")
        asked = named is not None and torch.device(named).type == "cuda"
        here = asked if named is not None else bool(wrappers)
        if wrappers and (strange or name in INDEXING):
            self._refuse_mixed(func, name, args, strange)
        if here and isinstance(draws := kwargs.get("generator"), torch.Generator) and draws.device.type == "cpu":
            raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({func})")
        if here:
            self._enter(func, name, args)
        if asked:
            plain["device"] = CPU
        if "pin_memory" in plain:
            plain["pin_memory"] = False

        def outer(found: Tensor) -> Tensor:
            known = wrappers.get(id(found))
            return OnGpu(found) if known is None else known

        found = func(*plain_args, **plain)
        return _mapped(outer, found) if here else found

    def _enter(self, func: Any, name: str, args: Any) -> None:
        if name in WAITING:
            self._count("waits", func)
        if name in INDEXING:
            for index in args[1]:
                if isinstance(index, OnGpu) and index.dtype in (torch.bool, torch.uint8):
                    self._count("waits", func)
                elif isinstance(index, Tensor) and not isinstance(index, OnGpu):
                    self._count("uploads", func)
        if not (_is_view(func) or name in FREE_OF_CHARGE or "empty" in name or name == "_local_scalar_dense"):
            self._count("launches", func)

    def _copied(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """Copies within a device, and between the two."""
        if name == "copy_":
            target, source = args[:2]
            self._enter_copy(func, isinstance(source, OnGpu), isinstance(target, OnGpu))
            _inner(target).copy_(_inner(source))
            return target
        (source,) = args
        named = kwargs.pop("device", None)
        here = torch.device(named).type == "cuda" if named is not None else isinstance(source, OnGpu)
        self._enter_copy(func, isinstance(source, OnGpu), here)
        kwargs.pop("pin_memory", None)
        found = func(_inner(source), **kwargs)
        return OnGpu(found) if here else found

    def _enter_copy(self, func: Any, from_here: bool, to_here: bool) -> None:
        if from_here and to_here:
            self._count("launches", func)
        elif from_here:
            self._count("waits", func)
        elif to_here:
            self._count("uploads", func)

    def _refuse_mixed(self, func: Any, name: str, args: Any, strange: list[Tensor]) -> None:
        """What a tensor of the GPU is indexed with may come from the CPU."""
        if name in INDEXING and isinstance(args[0], OnGpu):
            strange = [tensor for tensor in strange if not any(tensor is index for index in args[1])]
        if strange or (name in INDEXING and not isinstance(args[0], OnGpu)):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({func}: {[tuple(tensor.shape) for tensor in strange]} on the cpu)"
            )


def _inner(value: Any) -> Any:
    return value.numbers if isinstance(value, OnGpu) else value


def _mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Arguments or results with their tensors changed; torch's own way through them takes longer than what they do."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        return type(value)([_mapped(change, item) for item in value])
    if isinstance(value, dict):
        return {key: _mapped(change, item) for key, item in value.items()}
    return value


@cache
def _is_view(func: Any) -> bool:
    return any(found.alias_info is not None and not found.alias_info.is_write for found in func._schema.returns)


@contextlib.contextmanager
def pretended(*, lines: bool = False) -> Iterator[Gpu]:
    """A machine with one GPU, which counts; by lines of the package too, which takes longer."""
    gpu = Gpu(lines=lines)
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "pretended",
        "get_device_properties": lambda device=None: SimpleNamespace(
            name="pretended", total_memory=FREE, major=9, minor=0
        ),
        "get_device_capability": lambda device=None: (9, 0),
        "mem_get_info": lambda device=None: (FREE, FREE),
        "default_stream": lambda device=None: None,
        "synchronize": lambda device=None: gpu._count("waits", "synchronize"),
        "empty_cache": lambda: None,
        "get_rng_state": lambda device=None: gpu._count("waits", "get_rng_state") or torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "default_generators": (torch.Generator(),),
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "max_memory_reserved": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "memory_snapshot": list,
        "is_current_stream_capturing": lambda: False,
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch("hessdiag.problem.measuring.own_stream", return_value=None))
        for room in ("problem.evaluation.rectifiers", "shards.kept"):  # where only tensors of no other class are meant
            stack.enter_context(mock.patch(f"hessdiag.{room}.Tensor", OnGpu))
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # a wrapper cannot take a tensor's place
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` makes them on the CPU, and moves them as we see
        stack.enter_context(gpu)
        yield gpu
