"""Products of models in pieces on a GPU, against whole ones: parts `sharded` and `large` of `tests.gpu_check`."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

import hessdiag
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.machine.processes import backend_for
from hessdiag.machine.ranks import local_rank
from hessdiag.problem.batches import batch
from hessdiag.problem.problem import Problem
from tests import gpu_models
from tests.gpu_time import Line, Timed, clock, peaks, real

RANKS = 2
LONGEST = 240  # seconds for the ranks
ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-4}
NAMES = {torch.float64: "float64", torch.float32: "float32"}
LARGEST = "GPT-2, 124M"
LARGE = {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50257, "samples": 4, "length": 256}

Make = Callable[[], gpu_models.Setup]
CASES: dict[str, Make] = {
    "MLP": gpu_models.mlp, "LeNet": gpu_models.lenet, "ResNet": gpu_models.resnet, "GPT-2": gpu_models.gpt2,
}  # fmt: skip

SMALL = ("MLP", "LeNet")


def sharded(device: str, small: bool, timed: Timed) -> Iterator[Line]:
    """Each model in pieces in this process, and in those of two ranks."""
    yield from _found("sharded", device, small, timed)


def large(device: str, small: bool, timed: Timed) -> Iterator[Line]:
    """GPT-2 of 124 million parameters: time and memory, in one process and in those of two ranks."""
    yield from _found("large", device, small, timed)


def _found(part: str, device: str, small: bool, timed: Timed) -> Iterator[Line]:
    for name, dtype in asked(part, small):
        yield _guarded(name, dtype, device, timed, small=small)
    if device == "cpu" or real(torch.device(device)):  # one that is pretended is none for other processes
        yield from by_ranks(part, device, small)


def asked(part: str, small: bool) -> Iterator[tuple[str, torch.dtype]]:
    """Which models, in which dtype."""
    if part == "large":
        yield LARGEST, torch.float32
        return
    yield from ((name, dtype) for dtype in ALLOWED for name in (SMALL if small else CASES))


def _guarded(name: str, dtype: torch.dtype, device: str, timed: Timed, *, small: bool = False) -> Line:
    """What is found, or why nothing was: either a refusal or a failure wants mending."""
    title = f"{name}, {NAMES[dtype]}, in pieces"
    try:
        return {"name": title, **compared(_made(name, small=small), dtype, torch.device(device), timed)}
    except (RuntimeError, AttributeError, NotImplementedError, hessdiag.errors.HessdiagError) as error:
        return {"name": title, "failed": f"{type(error).__name__}: {error}"[:300], "wrong": True}


def _made(name: str, *, small: bool) -> Make:
    if name in CASES:
        return CASES[name]
    return gpu_models.mlp if small else partial(gpu_models.gpt2, **LARGE)


def compared(make: Make, dtype: torch.dtype, device: torch.device, timed: Timed) -> Line:
    """Products of a whole model, and then of one in pieces: how far apart, seconds, and peaks of memory."""
    model, data, loss = make()
    moved = [batch.to(one, device, dtype) for one in data]
    problem = Problem(model.to(device, dtype), data=moved, loss=loss)
    generator = torch.Generator().manual_seed(0)
    V = torch.randn(problem.n_parameters, 3, generator=generator, dtype=dtype)
    found: dict[str, Line] = {}
    whole = HessianOperator(problem, check=False)
    peaks(device)
    expected, line = _products(whole, V.to(device), timed)
    found["whole"] = line | peaks(device)
    del whole
    operator = HessianOperator(hessdiag.sharded(problem), check=False)
    del problem, model
    peaks(device)
    layout = operator.problem.layout
    own, line = _products(operator, layout.kept(_rows_of(V)).to(device), timed)
    found["pieces"] = line | peaks(device)
    apart = [float((layout.whole(a) - b).norm() / b.norm()) for a, b in zip(own, expected, strict=True)]
    worst = max(apart)
    return {"apart": worst, **found, "wrong": not worst <= ALLOWED[dtype]}


def _products(operator: HessianOperator, V: torch.Tensor, timed: Timed) -> tuple[list[torch.Tensor], Line]:
    """With one vector and with three, and the time of one with one."""
    found = [operator @ V[:, 0], operator @ V]
    return found, {"seconds": timed(lambda: operator @ V[:, 0])}


def _rows_of(V: torch.Tensor) -> Callable[[int], torch.Tensor]:
    at = 0

    def following(count: int) -> torch.Tensor:
        nonlocal at
        at += count
        return V[at - count : at]

    return following


def by_ranks(part: str, device: str, small: bool) -> Iterator[Line]:
    """The same in processes of their own: with nccl where each has a GPU, else by way of the host."""
    context: Any = multiprocessing.get_context("fork" if device == "cpu" else "spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found, said = context.Pipe(duplex=False)
    workers = [
        context.Process(target=_rank, args=(rank, port, part, device, small, said), daemon=True)
        for rank in range(RANKS)
    ]
    for worker in workers:
        worker.start()
    said.close()
    try:
        while found.poll(LONGEST):
            yield found.recv()
        yield {"name": f"{RANKS} ranks", "failed": f"nothing was heard of them for {LONGEST} s", "wrong": True}
    except EOFError:  # all have ended
        for rank, worker in enumerate(workers):
            worker.join(LONGEST)
            if worker.exitcode:
                failed = f"exit code {worker.exitcode}, see what it printed"
                yield {"name": f"rank {rank} of {RANKS}", "failed": failed, "wrong": True}
    finally:
        for worker in workers:
            worker.kill()


def _rank(rank: int, port: int, part: str, device: str, small: bool, said: Any) -> None:
    """One of them, as `torchrun` would start it; the first says what was found."""
    own = {"RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": RANKS, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in own.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", local_rank() % torch.cuda.device_count())
        torch.cuda.set_device(place)
    for name, dtype in asked(part, small):
        line = compared(_made(name, small=small), dtype, place, clock(device, small))
        if rank == 0:
            title = f"{name}, {NAMES[dtype]}, by {RANKS} ranks and {backend_for(place)}"
            said.send({"name": title, **line})
