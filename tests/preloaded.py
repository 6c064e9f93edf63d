"""`hessdiag` and `python` in processes that have imported torch already: a server forks one for every call.

For tests of what commands and scripts print and write, of which there are many: most of a short one's time is the import of torch.
What a process does by itself (its start, signals, memory, crashes) is tested with real ones.
"""

import atexit
import contextlib
import json
import os
import runpy
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = 1 << 20  # bytes of a call: its words and its environment
CLIENT = """#!{python} -ISs
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps({{"argv": [os.path.basename(sys.argv[0]), *sys.argv[1:]], "cwd": os.getcwd(), "env": dict(os.environ)}}).encode() + b"\\0"
    socket.send_fds(server, [call[:1]], [0, 1, 2])
    server.sendall(call[1:])
    answer = server.recv(16)
sys.exit(int(answer))
"""


@contextlib.contextmanager
def programs(env: Mapping[str, str]) -> Iterator[Path]:
    """A folder for the PATH with a `hessdiag` and a `python` that are forked. Threads and hash seeds are those of `env`."""
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "socket")
        for program in (Path(folder) / "hessdiag", Path(folder) / "python"):
            program.write_text(CLIENT.format(python=sys.executable, address=address), "utf-8")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        command = [sys.executable, "-m", "tests.preloaded", address]
        with subprocess.Popen(
            command, cwd=ROOT, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield Path(folder)
            server.terminate()


def serve(address: str) -> None:
    """Answer calls until the process that asked for it is gone."""
    import torch  # noqa: F401

    from hessdiag.questions.registry import QUESTIONS

    for asked in QUESTIONS:
        asked.module("command"), asked.module("measure")
    from hessdiag.cli import main  # noqa: F401
    from hessdiag.problem import load  # noqa: F401
    from hessdiag.report import html  # noqa: F401

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        while True:
            caller, _ = listener.accept()
            _answer(caller)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _answer(caller: socket.socket) -> None:
    """Fork: the child becomes the command, a grandchild's parent waits for it and tells its end."""
    if os.fork():
        caller.close()
        os.waitpid(-1, os.WNOHANG)
        return
    first, files, _, _ = socket.recv_fds(caller, 1, 3)
    text = first
    while not text.endswith(b"\0"):
        text += caller.recv(LARGEST)
    call = json.loads(text[:-1])
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(OSError):
            caller.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    _become(call, files)


def _become(call: dict, files: list[int]) -> None:
    for own, given in enumerate(files):
        os.dup2(given, own)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["env"])
    sys.argv = call["argv"]
    code = 1
    try:
        code = _command() if sys.argv[0] == "hessdiag" else _script()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(int(code or 0))


def _command() -> int | None:
    from hessdiag.__main__ import main

    return main()


def _script() -> int:
    """`python -c CODE ...`, `python -m MODULE ...` or `python FILE ...`, in a main module of its own; anything else by the real one."""
    del sys.argv[0]
    if not sys.argv or (sys.argv[0].startswith("-") and sys.argv[0] not in ("-c", "-m")):
        os.execv(sys.executable, [sys.executable, *sys.argv])
    try:
        if sys.argv[0] == "-m":
            sys.path.insert(0, "")
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        elif sys.argv[0] != "-c":
            sys.path.insert(0, os.path.dirname(sys.argv[0]))
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            sys.path.insert(0, "")
            code = sys.argv.pop(1)
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
