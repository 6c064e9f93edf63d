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
import os, signal
import torch
from torch import nn
import hessdiag

calls = 0


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

    if how == "load" and str(rank) == os.environ["RANK"]:
        raise FileNotFoundError("tokens.bin")
    data = [(torch.randn(8, 20).double(), torch.arange(8) % 10)] * 2
    return hessdiag.Problem(model, data=data, objective=objective)
"""

SCRIPT = """
import hessdiag
from net import setup

hessdiag.eigs(setup("bug"), tol=1e-12)
"""


def together(folder, program, size, *words):
    """Start a program in so many processes that meet without torchrun; what each said, and its code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size), "PYTHONPATH": ROOT}
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
def start(tmp_path_factory):
    """Start a command in so many processes that have imported torch; what each said, its code, and the seconds."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "net.py").write_text(NET)
    (folder / "script.py").write_text(SCRIPT)
    with preloaded.programs(os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}) as programs:

        def started(size, *words, program=programs / "hessdiag"):
            began = time.monotonic()
            return *together(folder, program, size, *words), time.monotonic() - began

        yield started


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
