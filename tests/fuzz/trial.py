"""Loads files that it is told of, one a line, in a process of its own; answers with what happened, one JSON object a line.

What the process itself does is watched: files opened for writing, processes started, connections made. Memory is the
peak above what was held before.
"""

import contextlib
import io
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

LIMIT = 8 << 30
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "shutil.",
    "ftplib.",
)
FORBIDDEN += (
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
    "pty.",
)


def memory(key: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    import torch
    from torch import nn

    from hessdiag.cli import main as cli
    from hessdiag.errors import HessdiagError
    from hessdiag.problem.files.allowance import Allowance
    from hessdiag.problem.files.appetite import bounded
    from hessdiag.problem.load import ProblemRequest, load_problem

    # What is imported and held once is no file's doing; torch's compiler makes a folder for itself.
    load_problem(ProblemRequest("builtin:mlp(depth=2, width=3)"))
    upsample = nn.Sequential(nn.Conv1d(1, 1, 1), nn.Upsample(scale_factor=2))
    with bounded(upsample, Allowance(Path(), 0, 10**9)):
        upsample(torch.zeros(1, 1, 4))
    done: list[str] = []
    watching = [False]

    def watch(event: str, args: tuple) -> None:
        if not watching[0]:
            return
        if event.startswith(FORBIDDEN):
            done.append(f"{event} {str(args)[:100]}")
        if event == "open" and isinstance(args[2], int) and args[2] & WRITES and str(args[0]) != "/dev/null":
            done.append(f"open {args[0]} {args[1]}")

    sys.addaudithook(watch)

    def load(role: str, path: str, model: str) -> tuple[int, str]:
        request = {"model": ProblemRequest(path), "data": ProblemRequest(model, data=path)}
        request["weights"] = ProblemRequest(model, weights=path)
        try:
            load_problem(request[role])
        except HessdiagError as error:
            return int(error.exit_code), str(error)
        except BaseException:
            return 3, f"internal error: {traceback.format_exc()}"
        return 0, ""

    def command(role: str, path: str, model: str) -> tuple[int, str]:
        args = {"model": [path], "data": [model, "--data", path], "weights": [model, "--weights", path]}[role]
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = cli.run(["diag-share", *args, "--no-config", "--no-progress"])
        return int(code), said.getvalue()

    for line in sys.stdin:
        case = json.loads(line)
        with open("/proc/self/clear_refs", "w") as stream:
            stream.write("5")
        before, start, watching[0] = memory("VmRSS"), time.process_time(), True
        code, said = load(case["role"], case["path"], case["model"])
        if case["measure"] or (code == 0 and case["role"] == "model"):
            code, said = command(case["role"], case["path"], case["model"])
        watching[0] = False
        answer = {"code": code, "said": said, "seconds": time.process_time() - start, "done": list(done)}
        done.clear()
        print(json.dumps(answer | {"memory": memory("VmHWM") - before}), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
