"""Zip files: what their members unpack to is summed before one is opened, and arrays are as large as headers say."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from hessdiag.errors import LoadError, UntrustedFileError
from hessdiag.problem.files.allowance import Allowance, nominal

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may take memory of their own
_SPARE = 1 << 20


def opened(path: Path, allowance: Allowance) -> zipfile.ZipFile:
    """A zip file whose members have names of their own and unpack to no more than they may.

    Raises:
        LoadError: if they have not, or unpack to more.
        zipfile.BadZipFile: if it is none.
    """
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    # Readers that differ in which of two they take would not see what was checked; some do not tell capitals.
    if len({member.filename.casefold() for member in members}) < len(members):
        raise LoadError(f"{path} is damaged or made up: two of its members have one name.", "save the file again")
    if any(member.compress_type not in _METHODS for member in members):
        raise LoadError(f"{path} is packed in a way that is not read.", "numpy.savez_compressed, or torch.save")
    if sum(member.compress_size for member in members) > allowance.size:
        raise LoadError(f"{path} is damaged or made up: its members overlap.", "save the file again")
    allowance.check(sum(member.file_size for member in members))
    return archive


def arrays(path: Path, allowance: Allowance) -> dict[str, torch.Tensor]:
    """The numeric arrays of an npz file.

    Raises:
        UntrustedFileError: if it holds Python objects.
        Exception: of many kinds, if it is damaged.
    """
    found = {}
    with opened(path, allowance) as archive:
        for member in archive.infolist():
            if (array := _array(archive, member, path)) is not None:
                found[member.filename.removesuffix(".npy")] = torch.from_numpy(array)
    return found


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> "np.ndarray | None":
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if header is None:
            return None  # names of fields outside of Latin: no plain numbers
        shape, _, dtype = header(stream)
    if dtype.hasobject:
        raise UntrustedFileError(
            f"{path} holds arrays of Python objects: pickles, which can run code; nothing was run.",
            "save numeric arrays, with numpy.savez(FILE, x=x.astype(float), y=y.astype(int))",
        )
    if dtype.kind not in "biufc":
        return None
    if min(shape, default=0) < 0 or nominal(shape) * dtype.itemsize > member.file_size + _SPARE:
        raise ValueError(f"{member.filename} of shape {shape} does not fit into {member.file_size} bytes")
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    return array.astype(dtype.newbyteorder("="), copy=False)
