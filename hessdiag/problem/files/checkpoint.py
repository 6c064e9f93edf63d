"""Files of models and weights, told apart by their content and not by their suffix."""

import difflib
import gzip
import hashlib
import math
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hessdiag.errors import LoadError, said
from hessdiag.problem.files import foreign
from hessdiag.problem.files.allowance import Allowance, nominal
from hessdiag.problem.files.archive import arrays
from hessdiag.problem.files.folder import parsed
from hessdiag.problem.files.trust import LEGACY_MAGIC, load, refuse

Format = Literal["torch", "pickle", "safetensors", "npz", "idx", "torchscript", "pt2", "dcp", "sharded", "folder"]

_INDEX = ".index.json"  # of safetensors, and of shards of torch.save
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_GZIP = b"\x1f\x8b"
_CODE = {"torchscript": "TorchScript archive", "pt2": "torch.export archive", "dcp": "distributed checkpoint"}


def existing(path: str) -> Path:
    """The path, if there is something.

    Raises:
        LoadError: with names that are close, if there is nothing.
    """
    found = Path(os.path.expanduser(path))
    try:
        if found.is_file() or found.is_dir():
            return found
        if found.exists():
            raise LoadError(f"{path} is a device or a pipe, and only files are read.", "save it to a file first")
        siblings = [entry.name for entry in found.parent.iterdir()] if found.parent.is_dir() else []
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {said(error)}") from error
    close = difflib.get_close_matches(found.name, siblings, n=3)
    hint = " or ".join(str(found.parent / name) for name in close) or None
    raise LoadError(f"{path} does not exist.", hint)


def sniff(path: Path) -> Format:
    """The format of a file or folder, by its content.

    Raises:
        LoadError: if the file is empty, cut off, not readable, or of no known format.
    """
    try:
        return _sniff_folder(path) if path.is_dir() else _sniff_file(path)
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {said(error)}") from error


def _sniff_folder(path: Path) -> Format:
    names = [entry.name for entry in path.iterdir()]
    if ".metadata" in names:
        return "dcp"
    if any(name.endswith(_INDEX) for name in names):
        return "sharded"
    return "folder"


def _sniff_file(path: Path) -> Format:
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(foreign.HEAD)
    if not head:
        raise LoadError(f"{path} is empty.")
    if path.suffix == ".distcp" and (path.parent / ".metadata").is_file():
        raise LoadError(
            f"{path} is one piece of a distributed checkpoint, which is the whole folder.", f"--weights {path.parent}"
        )
    if head.startswith(b"PK"):
        return _sniff_zip(path)
    if head.startswith(_GZIP):
        return _sniff_gzip(path)
    if _is_idx(head):
        return "idx"
    if path.name.endswith(_INDEX):
        return "sharded"
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header < 100_000_000:  # the limit of the safetensors format
        if size < 8 + header:
            raise LoadError(
                f"{path} is truncated: its header takes {8 + header} bytes, the file has {size}.",
                "copy it again",
            )
        return "safetensors"
    if head[0] == 0x80 and head[1:2] in (
        b"\2",
        b"\3",
        b"\4",
        b"\5",
    ):  # after safetensors: 0x280 is a length, too
        return "torch" if head.startswith(LEGACY_MAGIC) else "pickle"
    if head.startswith(b"\x93NUMPY"):
        raise LoadError(f"{path} is a single numpy array, without a name.", "numpy.savez('batch.npz', x=x, y=y)")
    if head.startswith(b"version https://git-lfs"):
        raise LoadError(f"{path} is a Git LFS pointer, not the file itself.", "git lfs pull")
    if (other := foreign.answer(path, head)) is not None:
        raise other
    raise LoadError(
        f"{path} is no model, weights or data file that hessdiag knows (it starts with {head[:8]!r}).",
        "a file of torch.save, safetensors or numpy.savez; it may be damaged",
    )


def _sniff_zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise LoadError(
            f"{path} is truncated or damaged: it starts as a zip file and ends as none.", "copy it again"
        ) from None
    tails = {name.rpartition("/")[2] for name in names}
    if "archive_format" in tails:
        return "pt2"
    if "constants.pkl" in tails:
        return "torchscript"
    if "data.pkl" in tails:
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise foreign.zipped(path, tails)


def _sniff_gzip(path: Path) -> Format:
    try:
        with gzip.open(path) as stream:
            head = stream.read(512)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise LoadError(f"{path} is truncated or damaged: {said(error)}", "copy it again") from None
    if _is_idx(head):
        return "idx"
    tar = head[257:262] == b"ustar"
    raise LoadError(
        f"{path} is a gzip file, and of those only IDX images and labels are read.",
        f"tar xf {path}, then one of its files" if tar else f"gunzip {path}, then the file itself",
    )


def _is_idx(head: bytes) -> bool:
    return head[:2] == b"\0\0" and len(head) > 3 and head[2] in _IDX_TYPES and 1 <= head[3] <= 4


def read(path: Path, *, trust_code: bool = False, most: int | None = None, mapped: bool = False) -> Any:
    """What a file holds: a module, a mapping of tensors, or whatever else was saved.

    Args:
        path: File or folder.
        trust_code: Let the file run code where it cannot be loaded without.
        most: Bytes that the file may unpack to; by default what `Allowance` gives it.
        mapped: Leave tensors where they are in the file until they are read, where it is such that they can be.

    Raises:
        UntrustedFileError: if it would run code and is not trusted.
        LoadError: if it is damaged or of no known format, or would unpack to more than it may.
    """
    form = sniff(path)
    if form in _CODE and not trust_code:
        refuse(path, [], _CODE[form], instead=_joined(path) if form == "dcp" else None)
    allowance = Allowance.of(path, most)
    if form in ("torch", "pickle"):
        return load(path, allowance, trust_code=trust_code, mapped=mapped)
    readers: dict[Format, Callable[[], Any]] = {
        "safetensors": lambda: _read_safetensors(path, allowance),
        "npz": lambda: arrays(path, allowance),
        "idx": lambda: _read_idx(path, allowance),
        "torchscript": lambda: _read_torchscript(path),
        "pt2": lambda: _read_pt2(path),
        "dcp": lambda: _read_dcp(path),
        "sharded": lambda: _read_sharded(path, most, mapped),
        "folder": lambda: _read_folder(path, most, mapped),
    }
    try:
        return readers[form]()
    except (LoadError, ImportError):
        raise
    except Exception as error:
        raise LoadError(f"{path} is damaged or cannot be read as {form}: {said(error)}") from error


def _read_safetensors(path: Path, allowance: Allowance) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = load_file(path, device="cpu")
    allowance.check(sum(nominal(tensor.shape) for tensor in tensors.values() if not tensor.numel()))
    return tensors


def _read_idx(path: Path, allowance: Allowance) -> torch.Tensor:
    """The one array of an IDX file: type and number of axes, their lengths, then the values, all big-endian."""
    with path.open("rb") as stream:
        zipped = stream.read(2) == _GZIP
    with gzip.open(path) if zipped else path.open("rb") as stream:
        head = stream.read(4)
        dtype, axes = np.dtype(_IDX_TYPES[head[2]]), head[3]
        shape = np.frombuffer(stream.read(4 * axes), ">u4", axes).tolist()
        size = math.prod(shape) * dtype.itemsize
        whole = f"an IDX file of shape {tuple(shape)} takes {4 + 4 * axes + size} bytes"
        if not zipped and path.stat().st_size != 4 + 4 * axes + size:
            raise LoadError(f"{path} is damaged: {whole}, and it has {path.stat().st_size}.", "copy it again")
        allowance.check(max(size, nominal(shape)))
        content = stream.read(size)
        if len(content) < size or stream.read(1):
            raise LoadError(f"{path} is damaged: {whole}, and it has {_more(len(content), size)}.", "copy it again")
    values = np.frombuffer(content, dtype).reshape(shape)
    return torch.from_numpy(values.astype(dtype.newbyteorder("=")))


def _more(found: int, size: int) -> str:
    return "more" if found == size else "less"


def _read_torchscript(path: Path) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: torch.nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return module


def _read_pt2(path: Path) -> torch.nn.Module:
    with path.open("rb") as stream:
        module: torch.nn.Module = torch.export.load(stream).module()
    for name in ("train", "eval"):  # these refuse, though the graph holds no mode that could change
        module.__dict__.pop(name, None)
    return module


def _joined(path: Path) -> str:
    return (
        f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} {path.name}.pt, if you trust it, "
        f"then --weights {path.name}.pt"
    )


def _read_dcp(path: Path) -> Any:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "joined.pt"
        dcp_to_torch_save(str(path), str(joined))
        return load(joined, Allowance.of(joined), trust_code=True)


def _read_sharded(path: Path, most: int | None, mapped: bool) -> dict[str, torch.Tensor]:
    index = _index(path)
    state: dict[str, torch.Tensor] = {}
    parts = shards(index, most)
    for shard in parts:
        if not shard.is_file():
            raise LoadError(f"{shard} does not exist, though {index.name} names it.")
    allowance = Allowance.of_files(index, parts, most)  # of all together: many small ones are no way around it
    taken = 0
    for shard in parts:
        content = read(shard, most=allowance.most, mapped=mapped) if sniff(shard) in ("safetensors", "torch") else None
        if not isinstance(content, dict):
            raise LoadError(f"{shard} holds no tensors by name, though {index.name} names it.")
        tensors = [value for value in content.values() if isinstance(value, torch.Tensor)]
        taken += sum(nominal(tensor.shape) * tensor.element_size() for tensor in tensors)
        allowance.check(taken)
        state |= content
    return state


def _index(path: Path) -> Path:
    return next(entry for entry in sorted(path.iterdir()) if entry.name.endswith(_INDEX)) if path.is_dir() else path


def shards(index: Path, most: int | None = None) -> list[Path]:
    """The files that an index names, which lie beside it.

    Raises:
        LoadError: if it is no index.
    """
    content = parsed(index, most)
    if not isinstance(content, dict) or not isinstance(content.get("weight_map"), dict):
        raise LoadError(f"{index} names no files by weight.", "the index that lies beside the shards")
    names = set(map(str, content["weight_map"].values()))
    return [index.parent / Path(name).name for name in sorted(names)]  # a shard lies beside its index


def _read_folder(path: Path, most: int | None, mapped: bool) -> Any:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return read(path / name, most=most, mapped=mapped)
    raise (
        foreign.folder(path)
        or foreign.model_folder(path)
        or LoadError(
            f"{path} is a folder without model.safetensors, a sharded index or .metadata.",
            "one of its files; or --data 'FILE.py:f', where f() returns a DataLoader, if it holds data",
        )
    )


def hashes(paths: Iterable[Path]) -> list[dict[str, str]]:
    """Path and SHA-256 of each file; a folder counts as all files directly in it."""
    files: list[Path] = []
    for path in paths:
        files += sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
    result = []
    for file in dict.fromkeys(files):
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        result.append({"path": str(file), "sha256": digest.hexdigest()})
    return result
