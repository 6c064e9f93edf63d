"""Where the time goes on a GPU, and how far from what it allows: parts `where`, `chunks` and `races` of `tests.gpu_check`."""

import contextlib
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

import hessdiag
from hessdiag.curvature import exact
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.machine import capacity
from hessdiag.problem.problem import Problem
from tests import gpu_models
from tests.benchmarks import problems

Line = dict[str, Any]
Run = Callable[[], Any]
Timed = Callable[[Run], float]


def timed(run: Run, device: str, rounds: int = 5, before: int = 2) -> float:
    """Median seconds of some rounds, after others that do not count, with what was launched completed."""
    times = []
    for _ in range(before + rounds):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - started)
    return sorted(times[before:])[rounds // 2]


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def clock(device: str, small: bool) -> Timed:
    """How runs are timed; in a rehearsal once."""
    rounds, before = (1, 0) if small else (5, 2)
    return lambda run: timed(run, device, rounds, before)


@dataclass(frozen=True)
class Case:
    """Something that is timed.

    Attributes:
        name: What it is.
        make: Gives the run of a device; small, for a rehearsal.
        limit: Seconds that one H100 cannot go below: 60 Tflop/s in float32 and float64, 3 TB/s.
        goal: How many times that it may take.
    """

    name: str
    make: Callable[[torch.device, bool], Run]
    limit: float
    goal: float


def own(model: torch.nn.Module, data: list[Any], loss: str, device: torch.device) -> Problem:
    """A problem whose model and batches are on a device."""
    moved = [tuple(tensor.to(device) for tensor in batch) for batch in data]
    return Problem(model.to(device), data=moved, loss=loss)


def _share(samples: int) -> Callable[[torch.device, bool], Run]:
    def make(device: torch.device, small: bool) -> Run:
        inputs, width = (12, 6) if small else (3072, 128)
        problem = own(*gpu_models.wide(inputs, width, min(samples, 8) if small else samples), device)
        return lambda: _streamed(replace(problem))

    return make


def _streamed(problem: Problem) -> Any:
    operator = HessianOperator(problem, check=False)
    return exact.row_statistics(operator, exact.neuron_space(operator)).sums


def _lenet(device: torch.device, small: bool) -> Run:
    problem = own(*gpu_models.lenet(), device) if small else problems.lenet(device)
    return lambda: hessdiag.diag_share(replace(problem), rows=8 if small else None)


def _dense(width: int, hidden: int) -> Callable[[torch.device, bool], Run]:
    def make(device: torch.device, small: bool) -> Run:
        problem = problems.tanh_mlp(6 if small else width, hidden, 10, 8 if small else 128, device)
        return lambda: hessdiag.hessian(replace(problem))

    return make


def _eigs(device: torch.device, small: bool) -> Run:
    problem = problems.tanh_mlp(6 if small else 100, 3, 10, 8 if small else 128, device)
    return lambda: hessdiag.eigs(replace(problem))


def _ensemble(question: str, full: dict[str, Any]) -> Callable[[torch.device, bool], Run]:
    def make(device: torch.device, small: bool) -> Run:
        less = {"depth": 3, "width": 4, "seeds": 6} | ({"hessian_seeds": 3} if "hessian_seeds" in full else {})
        return lambda: getattr(hessdiag, question)(**(less if small else full), device=str(device))

    return make


DEEP = {"depth": 128, "width": 32, "seeds": 10_000}
CASES = (
    *(
        Case(f"exact share, 411,146 parameters, batch {samples}", _share(samples), limit, goal)
        for samples, limit, goal in ((32, 0.09, 4.0), (128, 0.36, 2.0), (512, 1.45, 1.4))
    ),
    Case("share, LeNet, 62,006 parameters, batch 32", _lenet, 0.015, 10.0),
    Case("dense Hessian, 4,416 parameters, batch 128", _dense(32, 4), 0.0001, 25.0),
    Case("dense Hessian, 20,000 parameters, batch 128", _dense(80, 3), 0.001, 4.0),
    Case("eigs, 5 + 5 pairs, 31,000 parameters", _eigs, 0.006, 8.0),
    Case("vanishing, 128 x 32, 10,000 networks", _ensemble("vanishing", DEEP | {"hessian_seeds": 10_000}), 6.7, 2.0),
    Case("forward, 128 x 32, 10,000 networks", _ensemble("forward", DEEP), 0.1, 2.5),
)


def races(device: str, small: bool, timed: Timed) -> Iterator[Line]:
    """Each case beside its limit, and products beside a gradient."""
    place = torch.device(device)
    for case in CASES:
        seconds = timed(case.make(place, small))
        yield {
            "name": case.name, "seconds": seconds, "limit": case.limit, "times": seconds / case.limit, "goal": case.goal,
            **peaks(place),
        }  # fmt: skip
    for name, problem in _models(place, small):
        operator, (x, y) = HessianOperator(problem), problem.data[0]
        parameters = problem.parameters

        def gradient(problem: Problem = problem, x: Any = x, y: Any = y, parameters: Any = parameters) -> Any:
            return torch.autograd.grad(torch.nn.functional.cross_entropy(problem.model(x), y), parameters)

        base = timed(gradient)
        for vectors in (1, 32):
            V = torch.randn(operator.shape[0], vectors).to(place)
            for _ in range(4):  # until it is recorded
                operator @ V
            seconds = timed(lambda operator=operator, V=V: operator @ V)
            yield {
                "name": f"{name}, product with {vectors}", "seconds": seconds, "gradients": seconds / base / vectors,
                "engine": operator.engine,
            }  # fmt: skip


def _models(place: torch.device, small: bool) -> Iterator[tuple[str, Problem]]:
    if small:
        yield "MLP", own(*gpu_models.mlp(), place)
        yield "LeNet", own(*gpu_models.lenet(), place)
        return
    yield "MLP 128x32", problems.deep_mlp(place)
    yield "MLP 3x512", problems.tanh_mlp(512, 3, 10, 128, place)
    yield "LeNet", problems.lenet(place)
    yield "small ResNet", problems.small_resnet(place)


def where(device: str, small: bool, timed: Timed) -> Iterator[Line]:
    """What each case is made of: kernels, how long the GPU works and waits, lines that wait for it, memory."""
    place = torch.device(device)
    for case in CASES:
        run = case.make(place, small)
        run()
        yield {"name": case.name, **profiled(run, place), "waits": waits(run, place), **peaks(place)}


def profiled(run: Run, device: torch.device) -> Line:
    """How many kernels run, for how long, and how long the GPU has none."""
    if not real(device):
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
        torch.cuda.synchronize(device)
    kernels = sorted(
        (event.time_range.start, event.time_range.end)
        for event in found.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    if not kernels:
        return {"kernels": 0}
    busy, reached = 0.0, kernels[0][0]
    for start, end in kernels:
        busy += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    span = reached - kernels[0][0]
    return {"kernels": len(kernels), "busy": busy / 1e6, "idle": (span - busy) / 1e6}


def waits(run: Run, device: torch.device) -> list[tuple[str, int]]:
    """Lines that wait for the GPU, as torch warns of them, most often first."""
    if not real(device):
        return []
    counts: Counter[str] = Counter()

    def enter(message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
        counts[f"{filename.rpartition('/hessdiag/')[2]}:{lineno}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = enter
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return counts.most_common(12)


def real(device: torch.device) -> bool:
    """Whether there are clocks and profilers: not on a CPU, nor on a GPU that is not there."""
    return device.type == "cuda" and torch.version.cuda is not None


def peaks(device: torch.device) -> Line:
    """Bytes that were held at most since the last time this was asked."""
    if device.type != "cuda":
        return {}
    found = {
        "allocated": torch.cuda.max_memory_allocated(device),
        "reserved": torch.cuda.max_memory_reserved(device),
    }
    torch.cuda.reset_peak_memory_stats(device)
    return found


def chunks(device: str, small: bool, timed: Timed) -> Iterator[Line]:
    """How time falls with vectors that share a pass, and with entries of H that are held at a time."""
    place = torch.device(device)
    for name, problem in _models(place, small):
        operator = HessianOperator(problem)
        count = 8 if small else 512
        V = torch.randn(operator.shape[0], count).to(place)
        size = 1 if small else 8
        while size <= count:
            operator.chunk = size
            operator.forget()
            yield {"name": f"{name}, {count} vectors", "chunk": size, "seconds": timed(lambda: operator @ V)}  # noqa: B023
            size *= 4
    plain = capacity.CUDA
    run = _share(32)(place, small)
    for power in (24, 26) if small else (22, 24, 26, 28):
        with _held(replace(plain, panel_numbers=2**power)):
            yield {"name": "exact share, batch 32", "panel numbers": 2**power, "seconds": timed(run)}


@contextlib.contextmanager
def _held(limits: capacity.Capacity) -> Iterator[None]:
    plain, capacity.CUDA = capacity.CUDA, limits
    try:
        yield
    finally:
        capacity.CUDA = plain
