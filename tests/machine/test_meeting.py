"""How several processes end: the first error is said once, by its process, and nobody waits for who is gone."""

import os
import socket
import subprocess
import sys
import time

import pytest

from tests import preloaded

ROOT = str(preloaded.ROOT)
NET = """
import os, signal, sys, time
from datetime import timedelta
import torch
from torch import nn
import hessdiag
from hessdiag.machine import meeting, others

meeting.STANDING_BY = 1.0
calls = 0
been = []


class Unlike(nn.Module):  # runs a layer as often as its samples need
    def __init__(self, model):
        super().__init__()
        self.before, self.after = nn.Linear(20, 20).double(), model

    def forward(self, x):
        for _ in range(int(x.max())):
            x = torch.tanh(self.before(x)) + x
        return self.after(x)


def setup(how="", rank=1, after=12):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 60), nn.Tanh(), nn.Linear(60, 30)).double()

    def objective(model, batch):
        global calls
        calls += 1
        if str(rank) == os.environ["RANK"] and calls > after:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "bug":
                raise KeyError("no such token")
            if how == "memory":
                torch.empty(10**14)
            if how == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    class Ends(nn.Tanh):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if str(rank) == os.environ["RANK"] and self.calls > after:
                if how == "model":
                    raise KeyError("no such token")
                if how == "model exits":
                    sys.exit(5)
                if how == "model is killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if how == "model is terminated":
                    os.kill(os.getpid(), signal.SIGTERM)
                if how == "model is slow" and not been:
                    been.append(self)  # copies of the model count anew
                    time.sleep(2.0)
                if how == "model is stopped" and not been:
                    been.append(self)
                    if os.fork() == 0:  # who wakes it when all is over
                        time.sleep(3.0)
                        os.kill(os.getppid(), signal.SIGCONT)
                        os._exit(0)
                    os.kill(os.getpid(), signal.SIGSTOP)
            return super().forward(x)

    if how in ("model is slow", "model is stopped"):
        others.BEAT, others.LOOK, others.SAID_AFTER = 0.1, timedelta(seconds=0.1), 1.5
        others.FROZEN, others.GIVEN_UP, meeting.LINGERING = 0.4, 1.7, 0.1
    if how == "model runs on":
        model = Unlike(model)
        return model, [(torch.linspace(0, 3, 160).double().reshape(8, 20), torch.arange(8) % 10)], "ce"
    if how.startswith("model"):
        model[1] = Ends()
        if how == "model of other samples":
            torch.manual_seed(int(os.environ["RANK"]))
        return model, [(torch.randn(8, 20).double(), torch.arange(8) % 10)] * 2, "ce"

    if str(rank) == os.environ["RANK"]:
        if how == "load":
            raise FileNotFoundError("tokens.bin")
        if how == "much":
            torch.empty(10**14)
    data = [(torch.randn(8, 20).double(), torch.arange(8) % 10)] * 2
    return hessdiag.Problem(model, data=data, objective=objective)
"""

SCRIPT = """
import hessdiag
from net import setup

hessdiag.eigs(setup("bug"), tol=1e-12)
"""


def together(folder, program, size, *words, told=None):
    """Start a program in so many processes that meet without torchrun; what each said, and its code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(told or size), "PYTHONPATH": ROOT}
    processes = [
        subprocess.Popen(
            [program, *words],
            cwd=folder,
            env=os.environ | meeting | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    said = [process.communicate(timeout=90)[1] for process in processes]
    return said, [process.returncode for process in processes]


@pytest.fixture(scope="module")
def start(tmp_path_factory, programs):
    """Start a command in so many processes that have imported torch; what each said, its code, and the seconds."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "net.py").write_text(NET)
    (folder / "script.py").write_text(SCRIPT)

    def started(size, *words, program=programs / "hessdiag", told=None):
        began = time.monotonic()
        return *together(folder, program, size, *words, told=told), time.monotonic() - began

    started.folder = folder
    return started


def _errors(said):
    return [line for text in said for line in text.splitlines() if line.startswith("error: ")]


def _eigs(start, how, rank=1, size=2):
    return start(size, "eigs", f"net.py:setup(how='{how}', rank={rank})", "--tol", "1e-12", "--no-progress")


@pytest.mark.parametrize(
    ("how", "rank", "words"),
    [
        ("bug", 1, "rank 1 of 2: internal error: KeyError: 'no such token'"),
        ("bug", 0, "rank 0 of 2: internal error: KeyError: 'no such token'"),  # which holds the store
        ("memory", 1, "rank 1 of 2: memory ran out: 372,529.0 GiB more were asked"),
        ("load", 1, "rank 1 of 2: net.py raised FileNotFoundError: tokens.bin"),
        ("much", 1, "rank 1 of 2: memory ran out: 372,529.0 GiB more were asked"),
    ],
)
def test_the_process_that_fails_says_why_and_the_others_end(start, how, rank, words):
    said, codes, seconds = _eigs(start, how, rank)
    (error,) = _errors(said)
    assert error.startswith(f"error: {words}")
    assert error in said[rank]
    assert codes == [3, 3]
    assert seconds < 60


@pytest.mark.parametrize(("rank", "size"), [(1, 3), (0, 2)])
def test_of_a_process_that_was_killed_one_of_the_others_tells(start, rank, size):
    said, codes, seconds = _eigs(start, "kill", rank, size)
    (error,) = _errors(said)
    assert error == f"error: rank {rank} of {size} ended without a word, as one that is killed does."
    assert [code for other, code in enumerate(codes) if other != rank] == [3] * (size - 1)
    assert seconds < 60


def test_processes_with_other_samples_divide_nothing(start):
    said, codes, _ = _eigs(start, "model of other samples")
    (error,) = _errors(said)
    assert error.startswith("error: batch 0 of rank 1 is not that of rank 0, ")
    assert codes == [3, 3]


MEMORY = "fewer ranks on a machine if memory ran out (its kernel's log tells), or more machines"


@pytest.mark.parametrize(
    ("how", "rank", "after", "code", "words"),
    [
        # Caught at first, for a trial may fail. Gloo would abort who goes on to numbers of another size.
        (
            "model",
            1,
            0,
            3,
            "rank 1 of 2: the model or its loss raised KeyError: 'no such token', and in this process alone.",
        ),
        (
            "model",
            1,
            8,
            3,
            "rank 1 of 2: internal error: KeyError: 'no such token' (run with --traceback to see where)",
        ),
        ("model exits", 0, 0, 3, "rank 0 of 2: the code that was loaded ended the program with sys.exit(5)."),
        # Whoever is told in the first evaluation must not take it for what the model says of its batch.
        ("model is killed", 1, 0, 3, "rank 1 of 2 ended without a word, as one that is killed does."),
        # Nor ask the model for what can be said of an interrupted command: the others are elsewhere.
        ("model is terminated", 1, 20, 143, "rank 1 of 2 was terminated."),
    ],
)
def test_of_a_model_in_pieces_one_error_is_said(start, how, rank, after, code, words):
    spec = f"net.py:setup(how='{how}', rank={rank}, after={after})"
    said, codes, seconds = start(2, "eigs", spec, "--shard", "--tol", "1e-12", "--no-progress", "-o", "found.json")
    assert _errors(said) == [f"error: {words}"]
    assert codes == [-9 % 256 if "killed" in how and one == rank else code for one in (0, 1)]
    assert seconds < 60
    assert not (start.folder / "found.json").exists()


def test_a_model_that_runs_other_modules_in_each_process_is_refused(start):
    said, codes, _ = start(2, "eigs", "net.py:setup(how='model runs on')", "--shard", "--no-progress")
    (error,) = _errors(said)
    assert ": the ranks are at different modules: this one is at " in error
    assert codes == [3, 3]


def test_a_slow_process_is_waited_for_and_that_is_said_once(start):
    said, codes, _ = _eigs(start, "model is slow")
    assert [line.partition(", alive")[0].rstrip("0123456789") for text in said for line in text.splitlines()] == [
        "warning: rank 0 of 2 has waited 2 s for rank 1 (process "
    ]
    assert codes == [0, 0]


def test_one_that_shows_no_sign_of_life_is_given_up(start):
    said, codes, _ = _eigs(start, "model is stopped")
    assert "stopped by a signal)." in said[0].splitlines()[0]
    assert _errors(said[:1]) == ["error: rank 1 of 2 has shown no sign of life for 2 s."]
    assert codes[0] == 3


WAITS = """
import os, signal, sys
import torch.distributed as dist
from hessdiag.machine import meeting

# torchrun holds the store; else the first process would, and waits for the others in making it.
store = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), is_master=True, wait_for_workers=False)
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    meeting.meet()
except KeyboardInterrupt:
    sys.exit(7)
"""


def test_who_waits_for_one_that_never_comes_hears_signals(start, programs):
    (start.folder / "waits.py").write_text(WAITS)
    # Of two processes the first alone.
    _, codes, _ = start(1, "waits.py", program=programs / "python", told=2)
    assert codes == [7]


def test_who_reports_says_alone_that_it_was_interrupted(start):
    said, codes, _ = _eigs(start, "interrupt", rank=0)
    assert [text.splitlines()[-1:] for text in said] == [["interrupted"], []]
    assert codes == [130, 130]


def test_one_that_is_interrupted_alone_ends_all(start):
    said, codes, _ = _eigs(start, "interrupt")
    assert _errors(said) == ["error: rank 1 of 2 was interrupted."]
    assert codes == [130, 130]


def test_what_all_refuse_is_said_once_and_without_a_rank(start):
    said, codes, _ = start(2, "eigs", "net.py:setup", "--tol", "3", "--no-progress")
    assert _errors(said) == ["error: --tol is a relative residual between 0 and 1, not 3.0."]
    assert codes == [2, 2]


def test_scripts_hear_of_the_others_exceptions_too(start):
    said, codes, _ = start(2, "script.py", program=sys.executable)  # whose exceptions are really its end
    assert "LostRankError: rank 1 of 2: KeyError: 'no such token'" in said[0]
    assert "KeyError: 'no such token'" in said[1]
    assert 0 not in codes
