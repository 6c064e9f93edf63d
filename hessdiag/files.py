"""Files are written whole or not at all; what is no regular file is written to, and links are followed."""

import contextlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MOST_LINKS = 40  # as the kernel allows
_DESCRIPTOR = re.compile(r"(?:/proc/(?:\d+|self)(?:/task/\d+)?|/dev)/fd/(\d+)")
_unfinished: set[Path] = set()


def write(path: str | Path, fill: Callable[[BinaryIO], object], *, replace: bool = True) -> None:
    """Write a file by what its path is.

    A regular file appears whole, in one step, or not at all; one that is replaced keeps its permissions and, where the
    system allows, its owner; a new one gets those that the umask leaves. A symbolic link stays, and the file that it
    points to is written. Devices, named pipes and descriptors (/dev/stdout) are written to.

    Args:
        path: Where.
        fill: Given the open file, writes the content.
        replace: Whether a file that is there already may be overwritten.

    Raises:
        FileExistsError: if there is a regular file, and `replace` is false.
        OSError: if the system refuses. Nothing is left behind then.
        ValueError: if no file can have that name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/a", lambda file: file.write(b"one"))
    ...     os.listdir(folder), Path(folder, "a").read_bytes()
    (['a'], b'one')
    """
    own = descriptor(path)
    if own is not None:
        with os.fdopen(os.dup(own), "wb") as file:
            fill(file)
        return
    target = Path(os.path.realpath(path))
    there = status(target)
    if there is not None and not stat.S_ISREG(there.st_mode):
        with target.open("wb") as file:
            fill(file)
        return
    _write_whole(target, fill, there if replace else None, replace=replace)


def status(path: str | Path) -> os.stat_result | None:
    """What the system says of a path, links followed; `None` where nothing is.

    Raises:
        OSError: if it cannot say: a name that is too long, a folder that may not be looked into, links in a circle.
        ValueError: if no file can have that name.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def descriptor(path: str | Path) -> int | None:
    """The number of the own descriptor that a path such as /dev/stdout names, links followed; else `None`.

    >>> descriptor("/dev/stdout"), descriptor("/dev/null")
    (1, None)
    """
    text = os.fspath(path)
    for _ in range(MOST_LINKS):
        text = os.path.join(os.path.realpath(os.path.dirname(text) or "."), os.path.basename(text))
        match = _DESCRIPTOR.fullmatch(text)
        if match is not None and not _is_foreign(text):
            return int(match[1])
        if not os.path.islink(text):
            return None
        text = os.path.join(os.path.dirname(text), os.readlink(text))
    return None


def discard_unfinished() -> None:
    """Delete what is half written: for a program that ends at once."""
    for part in list(_unfinished):
        with contextlib.suppress(OSError):
            part.unlink()


def reason(error: OSError | ValueError) -> str:
    """Why a path could not be used, in a few words.

    >>> reason(OSError(36, "File name too long")), reason(ValueError("embedded null byte"))
    ('file name too long', 'no file can have such a name')
    """
    if isinstance(error, OSError):
        text = error.strerror or str(error) or type(error).__name__
        return text if text[1:2].isupper() else text[:1].lower() + text[1:]
    return "no file can have such a name"


def _is_foreign(text: str) -> bool:
    """Whether a path into /proc names a descriptor of another process."""
    process = re.match(r"/proc/(\d+)/", text)
    return process is not None and int(process[1]) != os.getpid()


def _write_whole(
    target: Path, fill: Callable[[BinaryIO], object], there: os.stat_result | None, *, replace: bool
) -> None:
    # Short: the name itself may be as long as allowed.
    part = target.with_name(f".hessdiag-{os.urandom(8).hex()}.part")
    _unfinished.add(part)
    try:
        with open(part, "xb") as file:  # not mkstemp, which would not ask the umask
            if there is not None:
                with contextlib.suppress(OSError, AttributeError):  # only the superuser may; Windows has none
                    os.chown(part, there.st_uid, there.st_gid)
                os.chmod(part, stat.S_IMODE(there.st_mode))
            fill(file)
        if replace:
            part.replace(target)
        else:
            _appear(part, target)
    finally:
        with contextlib.suppress(OSError):  # also where its folder has gone
            part.unlink()
        _unfinished.discard(part)


def _appear(part: Path, target: Path) -> None:
    """Give the part its name, unless somebody else has taken it meanwhile."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(17, "File exists", str(target)) from None
        part.replace(target)
