"""Any command line ends in an answer or in a line, with a published code, in time, and writes nowhere else."""

import contextlib
import io
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from fuzz.command_lines import generated, prepare
from fuzz.length import LONG, SEED
from hessdiag.cli import main
from hessdiag.errors import ExitCode

RUNS = 10_000 if LONG else 250
CHUNKS = 50 if LONG else 2
PROCESSES = 40 if LONG else 3
LIMIT = 30  # seconds
CODES = {int(code) for code in ExitCode}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
)

_watching: list[tuple[str, list[str]]] = []  # the folder that may be written, and what was written elsewhere


class Hang(BaseException):
    pass


def _audit(event, args):
    if not _watching:
        return
    paths = ()
    if event == "open" and isinstance(args[0], (str, bytes)):
        mode, flags = args[1], args[2] or 0
        paths = (args[0],) if (flags & WRITES if mode is None else set(mode) & set("wax+")) else ()
    elif event in CHANGES:
        paths = args[:2] if event in ("os.rename", "os.link") else args[:1]
    folder, found = _watching[-1]
    for path in paths:
        if isinstance(path, (str, bytes)):
            full = os.path.realpath(os.fsdecode(path))
            if not full.startswith((folder, "/dev/", "/proc/self/fd")) and "__pycache__" not in full:
                found.append(f"{event} {full}")


sys.addaudithook(_audit)


@contextlib.contextmanager
def watched(folder):
    """What is written outside of the folder is noted, and a run that takes too long is ended."""

    def late(*_):
        raise Hang

    found: list[str] = []
    _watching.append((os.path.realpath(folder), found))
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        yield found
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        _watching.pop()


def wrong(code, err):
    """What a command line must not end in, or `None`."""
    if code not in CODES:
        return f"code {code}"
    if "Traceback" in err or "internal error" in err:
        return "an error of the code"
    if (code == ExitCode.GATE) != ("gate: " in err) and code in (ExitCode.OK, ExitCode.GATE):
        return "1 belongs to gates"
    if code in (2, 3) and not re.search(r"^(error: |Usage: )", err, re.M):
        return "no word of why"
    if re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", err):
        return "raw characters"
    return None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    prepare(inside)
    monkeypatch.chdir(inside)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MPLCONFIGDIR", str(inside))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(inside))  # torch makes one, used or not
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return inside


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_command_lines(chunk, folder):
    rng = random.Random(f"{SEED} {chunk}")
    failures, slowest = [], 0.0
    for index in range(RUNS // CHUNKS):
        args = generated(rng)
        out, err = io.StringIO(), io.StringIO()
        began = time.monotonic()
        with watched(folder) as elsewhere, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main.run(args)
            except Hang:
                code, elsewhere = "hang", [*elsewhere, "it hung"]
            except BaseException as error:
                code = f"{type(error).__name__}: {error}"
        slowest = max(slowest, time.monotonic() - began)
        if "--force" not in args:
            assert (folder / "kept.json").read_text() == "mine", args
        (folder / "kept.json").write_text("mine")
        reason = wrong(code, err.getvalue()) or ("; ".join(elsewhere) if elsewhere else None)
        if reason:
            failures.append(f"{index} {args!r:.600}\n   {reason}: {err.getvalue()[-300:]!r}")
    print(
        f"chunk {chunk}: slowest {slowest:.1f} s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB"
    )
    assert not failures, f"seed {SEED}, chunk {chunk}:\n" + "\n".join(failures)


def test_command_lines_as_processes(folder):
    rng = random.Random(f"processes {SEED}")
    for index in range(PROCESSES):
        args = [word.replace("\0", "") for word in generated(rng)]
        args = [os.fsencode(word) if not re.search("[\ud800-\udbff]", word) else b"x" for word in args]
        done = subprocess.run(
            [sys.executable, "-m", "hessdiag", *args], capture_output=True, timeout=4 * LIMIT, check=False
        )
        reason = wrong(done.returncode, done.stderr.decode("utf-8", "surrogateescape"))
        assert reason is None, f"seed {SEED}, {index} {args}: {reason}: {done.stderr[-300:]!r}"
