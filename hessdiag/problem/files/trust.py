"""What a pickle would import, which of that is data or stock torch.nn, and refusal of the rest."""

import contextlib
import importlib
import inspect
import logging
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hessdiag.errors import LoadError, UntrustedFileError, said
from hessdiag.problem.files import plain_pickle
from hessdiag.problem.files.allowance import Allowance
from hessdiag.problem.files.archive import opened
from hessdiag.problem.files.calls import Rules, is_data
from hessdiag.problem.files.opcodes import CostlyError, DeepError, MadeUpError, Program
from hessdiag.problem.replaced import replaced

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # what torch.save wrote first before it wrote zips
_LEGACY_PICKLES = 4  # that one, protocol version, system information, the object

SAVED_ALONE = "'train.py:build_model' --weights FILE, with a state_dict that was saved alone"
WHOLE = (
    "torch.save(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)), FILE) "
    "in the training run, from torch.distributed.checkpoint.state_dict"
)

_TAKEN_BY_TORCH = ("collections.OrderedDict", "_codecs.encode")


def stock(name: str) -> Any | None:
    """The torch.nn layer class or torch.nn.functional function of this full name; `None` for anything else.

    The name is looked up in modules that are already imported and must be where the object itself says that
    it lives, so that no attribute path leads out of torch.nn.

    >>> stock("torch.nn.modules.linear.Linear"), stock("torch.nn.functional.torch.os.system")
    (<class 'torch.nn.modules.linear.Linear'>, None)
    """
    home, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(home), "__dict__", {}).get(attribute)
    if getattr(found, "__module__", None) != home or getattr(found, "__name__", None) != attribute:
        return None
    if home.startswith("torch.nn.modules."):
        return found if inspect.isclass(found) and issubclass(found, nn.Module) else None
    functional = home == "torch.nn.functional" and inspect.isfunction(found) and not attribute.startswith("_")
    compiled = home == "torch._C._nn" and getattr(F, attribute, None) is found
    return found if functional or compiled else None


@dataclass(frozen=True)
class Scan:
    """What the pickles of a file would do.

    Attributes:
        names: Full names that they would import.
        error: Why they must not be run, if so: they are damaged, cost too much or call what data never calls.
    """

    names: list[str]
    error: Exception | None


def scan(path: Path, allowance: Allowance) -> Scan:
    """Follow the pickles of a file without running them."""
    program = Program(allowance.size)
    error: Exception | None = None
    try:
        with path.open("rb") as stream:
            if _starts(stream, ZIP_MAGIC):
                _scan_zip(path, program, allowance)
            else:
                _scan_stream(stream, program, allowance)
    except Exception as problem:  # damage shows in many ways
        error = problem
    return Scan(sorted(program.names), error or program.fault)


def _is_class(name: str) -> bool:
    return inspect.isclass(stock(name))


def _scan_zip(path: Path, program: Program, allowance: Allowance) -> None:
    with opened(path, allowance) as archive:
        sizes = {member.filename.partition("/")[2]: member.file_size for member in archive.infolist()}
        records = {name.removeprefix("data/"): size for name, size in sizes.items() if name.startswith("data/")}
        for member in archive.infolist():
            if member.filename.rpartition("/")[2] == "data.pkl":
                with archive.open(member) as stream:
                    _follow(stream, program, Rules(allowance, records, _is_class))


def _scan_stream(stream: IO[bytes], program: Program, allowance: Allowance) -> None:
    rules = Rules(allowance, None, _is_class)
    for _ in range(_LEGACY_PICKLES if _starts(stream, LEGACY_MAGIC) else 1):
        _follow(stream, program, rules)


def _follow(stream: IO[bytes], program: Program, rules: Rules) -> None:
    root = program.follow(stream, rules.permit)
    if program.fault is None:
        rules.unfold(root, program)


def _starts(stream: IO[bytes], magic: bytes) -> bool:
    """Whether a file starts so; it is left at its start."""
    head = stream.read(len(magic))
    stream.seek(0)
    return head == magic


def load(path: Path, allowance: Allowance, *, trust_code: bool = False, mapped: bool = False) -> Any:
    """Load what `torch.save` or pickle wrote: data and stock torch.nn layers freely, anything else only if trusted.

    Args:
        path: A zip or a legacy file of `torch.save`, or any other pickle.
        allowance: What it may unpack to, if it is not trusted.
        trust_code: Let the file import and run code, where it cannot be loaded without.
        mapped: Leave tensors where they are in the file until they are read, where it is such that they can be.

    Raises:
        UntrustedFileError: naming what the file would import.
        LoadError: if the file is damaged, or its code fails or cannot be found, or it takes more than it may.
    """
    found = scan(path, allowance)
    names = found.names
    allowed = {name: value for name in names if (value := stock(name)) is not None}
    of_torch = is_torch(path)
    if of_torch:
        allowed |= {name: value for name, value in _beside_weights().items() if name in names}
    known = allowed.keys() | (plain_pickle.NAMES if not of_torch else set())
    foreign = [name for name in names if name not in known and not (of_torch and is_data(name))]
    why = None
    if found.error is None and (of_torch or not foreign):
        try:
            return _load_torch(path, names, allowed, mapped) if of_torch else _load_plain(path)
        except pickle.UnpicklingError:
            pass  # not data alone
        except plain_pickle.NotPlainError as error:
            why = str(error)
        except Exception as error:
            raise _damaged(path, error) from error
    if trust_code:
        return _load_trusted(path)
    if found.error is not None and not foreign:
        raise refused(path, found.error)
    sharded = any(name.startswith("torch.distributed._shard.") for name in foreign)
    return refuse(
        path, foreign, "file of one process's shards" if sharded else "pickle", why, WHOLE if sharded else None
    )


def _load_torch(path: Path, names: list[str], allowed: Mapping[str, Any], mapped: bool) -> Any:
    with path.open("rb") as stream, warnings.catch_warnings(), _distributed_tensors(names):
        warnings.simplefilter("ignore")
        # Torch writes to wherever the indices of a sparse tensor lead, and looks at them only if it is told to.
        checked = torch.sparse.check_sparse_tensor_invariants(True)  # type: ignore[no-untyped-call]
        with checked, torch.serialization.safe_globals([(found, name) for name, found in allowed.items()]):
            if mapped and mappable(path):
                return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
            return torch.load(stream, map_location="cpu", weights_only=True)


def mappable(path: Path) -> bool:
    """Whether the tensors of a file of `torch.save` can be read where they lie: it is a zip that is not packed."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        orders = [archive.read(member) for member in members if member.filename.rpartition("/")[2] == "byteorder"]
    return all(member.compress_type == zipfile.ZIP_STORED for member in members) and all(
        order.decode(errors="replace").strip() == sys.byteorder for order in orders
    )


def _load_plain(path: Path) -> Any:
    with path.open("rb") as stream:
        return plain_pickle.load(stream)


def refused(path: Path, error: Exception) -> Exception:
    """Why a file that imports nothing is not loaded."""
    if isinstance(error, LoadError):
        return error
    if isinstance(error, CostlyError):
        what = f"{path} would take more time or memory than a file of its size should: it has {error}."
        return LoadError(what, "save tensors or arrays, and not numbers one by one")
    if isinstance(error, DeepError):
        return LoadError(f"what is in the file is damaged: {path} has {error}.", "save a state_dict alone")
    if isinstance(error, MadeUpError):
        try:
            refuse(path, [], why=str(error))
        except UntrustedFileError as refusal:
            return refusal
    return _damaged(path, error)


def _beside_weights() -> dict[str, Any]:
    """Stand-ins for what trainers save beside weights; what torch takes by itself stays torch's."""
    found = plain_pickle.stand_ins(beside_weights=True)
    return {name: value for name, value in found.items() if name not in _TAKEN_BY_TORCH}


@contextlib.contextmanager
def _distributed_tensors(names: list[str]) -> Iterator[None]:
    """Let torch take its own distributed tensors, without a word of the processes that are not there."""
    if not any(name.startswith("torch.distributed.tensor.") for name in names):
        yield
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("torch.distributed.tensor")
    with replaced(logging.getLogger("torch.distributed.device_mesh"), disabled=True):
        yield


def _damaged(path: Path, error: BaseException) -> LoadError:
    return LoadError(f"{path} is damaged or truncated: {said(error)}", "copy or save the file again")


def is_torch(path: Path) -> bool:
    """Whether `torch.save` wrote the file, now or in its legacy form."""
    with path.open("rb") as stream:
        return _starts(stream, ZIP_MAGIC) or _starts(stream, LEGACY_MAGIC)


def refuse(
    path: Path, names: list[str], form: str = "pickle", why: str | None = None, instead: str | None = None
) -> NoReturn:
    """Refuse a file that would run code.

    Args:
        path: The file.
        names: What it would import.
        form: What it is.
        why: What it holds, where it imports nothing.
        instead: What works without trust; by default a state_dict that was saved alone.

    Raises:
        UntrustedFileError: always.
    """
    listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    other = f"it holds {why}" if why else "it is more than tensors and stock torch.nn layers"
    imports = f"it would import {listed}" if names else other
    raise UntrustedFileError(
        f"{path} is a {form}, which can run code when it is loaded ({imports}); nothing of it was run.",
        f"{instead or SAVED_ALONE}; or --trust-code, if you trust {path.name}",
    )


def _load_trusted(path: Path) -> Any:
    sys.path.insert(0, "")  # the classes are looked up as a script in the current directory would
    try:
        with path.open("rb") as stream:
            if is_torch(path):
                return torch.load(stream, map_location="cpu", weights_only=False)
            return pickle.load(stream)
    except (ImportError, AttributeError) as error:
        raise LoadError(
            f"{path} needs code that cannot be imported here: {said(error)}",
            "run where its classes can be imported, or use 'train.py:build_model' --weights FILE",
        ) from error
    except Exception as error:
        raise LoadError(f"loading {path} failed: {said(error)}") from error
    finally:
        sys.path.remove("")
