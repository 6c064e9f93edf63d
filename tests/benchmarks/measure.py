"""Races in one process: `python -m tests.benchmarks.measure [--device cuda] [CASE ...]`, on a quiet machine.

Prints Markdown for docs/performance.md. All contestants of a case run in turn, several rounds, so that a disturbance
hits them alike; medians count. It is no test: it takes minutes, and its numbers are the machine's.
"""

import argparse
import math
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import hessian_eigenthings
import numpy as np
import torch
from scipy.sparse.linalg import eigsh

import hessdiag
from hessdiag.curvature import exact
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.linalg import quadrature
from hessdiag.problem.device import device_named
from hessdiag.problem.problem import Problem
from tests.benchmarks import peers, problems

TOLERANCE = 1e-3


def race(contestants: dict[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """Median seconds of each contestant, after a run to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            finished()
            started = time.perf_counter()
            run()
            finished()
            if number:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def finished() -> None:
    """Wait until a GPU has done what it was told: calls return before."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def table(title: str, times: dict[str, float], target: str) -> Iterator[str]:
    """The first contestant is ours."""
    ours, *others = times.values()
    yield f"\n{title}\n\n| | seconds |\n|---|---:|"
    yield from (f"| {name} | {seconds:.3g} |" for name, seconds in times.items())
    yield f"\nFastest other over ours: **{min(others) / ours:.1f}** (target {target})."


def dense(device: torch.device) -> Iterator[str]:
    """Exact Hessian of 4,416 parameters."""
    problem = problems.tanh_mlp(32, 4, 10, 128, device)
    eye = torch.eye(problem.n_parameters, device=device)
    theirs, before = peers.curvlinops_hessian(problem), hessdiag.hessian(problem)
    times = race(
        {
            "`hessdiag.hessian`": lambda: hessdiag.hessian(replace(problem)),
            "out=": lambda: hessdiag.hessian(replace(problem), out=before),
            "curvlinops `H @ eye`": lambda: theirs @ eye,
            "`torch.func.hessian`": peers.functional_hessian(problem),
            "batched double backward (`is_grads_batched`)": peers.double_backward_hessian(problem),
        }
    )
    again = times.pop("out=")
    yield from table("tanh MLP 32-32-32-32-32-10, batch 128, float32 (4,416 parameters)", times, "10")
    yield f"In the memory of an earlier one, `out=`: {again:.3g} s, **{min(list(times.values())[1:]) / again:.1f}**."


def share(device: torch.device) -> Iterator[str]:
    """Exact share of 17,024 parameters against the least matrix products."""
    problem = problems.tanh_mlp(64, 4, 10, 128, device)
    a, b = torch.randn(2, 2048, 2048, device=device).unbind()
    times = race({"exact share, streamed": lambda: stream(problem), "product": lambda: a @ b}, 9)
    rate = 2 * 2048**3 / times["product"]
    least = 128 * problem.n_parameters**2 / rate
    ours = times["exact share, streamed"]
    yield f"\ntanh MLP 64-64-64-64-64-10, batch 128 ({problem.n_parameters:,} parameters): {ours:.2f} s. The least"
    yield f"matrix products, $B N^2$ operations at the {rate / 1e9:.0f} Gflop/s of a large one, take {least:.2f} s."
    yield f"Ratio **{ours / least:.1f}** (target: at most 3). Peak memory {peak(device):.2f} GiB."


def lenet(device: torch.device) -> Iterator[str]:
    """Exact share of a LeNet against batched products alone."""
    problem = problems.lenet(device)
    operator = HessianOperator(problem)
    some = torch.arange(0, problem.n_parameters, problem.n_parameters // 512)[:512]
    times = race({"exact share": lambda: stream(problem), "products": lambda: operator.rows(some)}, 3)
    times["products"] *= problem.n_parameters / 512
    yield from table("LeNet, 62,006 parameters, 3x32x32, batch 32 (products: 512 rows, extrapolated)", times, "5")
    yield f"Peak memory {peak(device):.2f} GiB."


def products(device: torch.device) -> Iterator[str]:
    """Hessian-vector products in gradients."""
    yield "\n| gradients per product | gradient, ms | ours, one vector | ours, each of 32 | curvlinops | PyHessian |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, problem in (
        ("3x512 tanh MLP", problems.tanh_mlp(512, 3, 10, 128, device)),
        ("128x32 ReLU MLP", problems.deep_mlp(device)),
        ("small ResNet, eval mode", problems.small_resnet(device)),
    ):
        operator = HessianOperator(problem)
        v, V = torch.randn(operator.shape[0], device=device), torch.randn(operator.shape[0], 32, device=device)
        theirs = peers.curvlinops_hessian(problem)
        contestants = {
            "gradient": peers.gradient(problem),
            "one": lambda op=operator, v=v: op @ v,
            "many": lambda op=operator, V=V: op @ V,
            "curvlinops": lambda op=theirs, v=v: op @ v,
        }
        if peers.pyhessian is not None:
            contestants["pyhessian"] = peers.pyhessian_product(problem, v)
        times = race(contestants, 9)
        base = times["gradient"]
        last = f"{times['pyhessian'] / base:.1f}" if "pyhessian" in times else "-"
        yield (
            f"| {name} ({problem.n_parameters:,}) | {base * 1e3:.1f} | {times['one'] / base:.2f} "
            f"| {times['many'] / 32 / base:.2f} | {times['curvlinops'] / base:.1f} | {last} |"
        )


def eigenpairs(device: torch.device) -> Iterator[str]:
    """Five lowest and five highest eigenpairs, set-up included."""
    for name, make in (
        ("tanh MLP 100-100-100-100-10, batch 128", lambda: problems.tanh_mlp(100, 3, 10, 128, device)),
        ("tanh MLP of 32 layers of width 32, batch 128", lambda: problems.tanh_mlp(32, 32, 10, 128, device)),
        ("small ResNet", lambda: problems.small_resnet(device)),
    ):
        problem = make()
        found = hessdiag.eigs(problem, tol=TOLERANCE)
        steps = next(steps for steps in range(40, 400, 20) if peers.eigenthings_worst(problem, steps) <= TOLERANCE)
        times = race(
            {
                f"`hessdiag.eigs` ({found.hvps} products, self-checks included)": lambda p=problem: hessdiag.eigs(
                    replace(p)
                ),
                "`hessdiag.eigs`, block 1": lambda p=problem: hessdiag.eigs(replace(p), block=1),
                "`eigsh(which='BE')` on curvlinops": lambda p=problem: eigsh(
                    peers.curvlinops_hessian(p).to_scipy(dtype=np.float64), k=10, which="BE", tol=TOLERANCE
                ),
                f"hessian-eigenthings, {steps} steps for each end": lambda p=problem, steps=steps: peers.eigenthings(
                    p, steps
                ),
            },
            7,
        )
        alone = times.pop("`hessdiag.eigs`, block 1")
        yield from table(f"{name}, {problem.n_parameters:,} parameters", times, "2")
        yield f"With `--block 1`, which sees no copies: {alone:.3g} s."


def convolutions(device: torch.device) -> Iterator[str]:
    """One lowest and three highest eigenpairs of a larger ResNet, set-up included."""
    wanted = {"lowest": 1, "highest": 3}
    for resolution in (16, 32):
        problem = problems.resnet(resolution, device)
        found = hessdiag.eigs(problem, tol=TOLERANCE, **wanted)
        steps = next(n for n in range(20, 400, 20) if peers.eigenthings_worst(problem, n, **wanted) <= TOLERANCE)
        times = race(
            {
                f"`hessdiag.eigs` ({found.hvps} products, self-checks included)": lambda p=problem: hessdiag.eigs(
                    replace(p), tol=TOLERANCE, **wanted
                ),
                f"hessian-eigenthings, {steps} steps for each end": lambda p=problem, n=steps: peers.eigenthings(
                    p, n, **wanted
                ),
            },
            5,
        )
        yield from table(f"ResNet on {resolution}x{resolution}, {problem.n_parameters:,} parameters", times, "2.5")


def density(device: torch.device) -> Iterator[str]:
    """Stochastic Lanczos quadrature, 8 probes of 60 steps."""
    for name, make in (
        ("tanh MLP", lambda: problems.tanh_mlp(96, 3, 10, 128, device)),
        ("128x32 MLP", lambda: problems.deep_mlp(device)),
    ):
        problem = make()
        times = race(
            {
                "hessdiag": lambda p=problem: quadrature.spectral_density(
                    HessianOperator(replace(p)), probes=8, steps=60, seed=0
                ),
                "hessian-eigenthings": lambda p=problem: hessian_eigenthings.spectral_density(
                    peers.eigenthings_hessian(p), num_runs=8, lanczos_steps=60
                ),
            },
            2,
        )
        yield from table(f"{name}, {problem.n_parameters:,} parameters", times, "2")


def scaling(device: torch.device) -> Iterator[str]:
    """Fitted exponents: seconds grow as the quantity to this power."""

    def width(size: int) -> Callable[[], Any]:
        problem = problems.tanh_mlp(size, 4, 10, 128, device)
        return lambda: stream(problem)

    def samples(size: int) -> Callable[[], Any]:
        problem = problems.tanh_mlp(64, 4, 10, size, device)
        return lambda: stream(problem)

    def depth(size: int) -> Callable[[], Any]:
        problem = problems.tanh_mlp(32, size, 10, 128, device)
        return lambda: stream(problem)

    def product(problem: Problem, vectors: int = 1) -> Callable[[], Any]:
        operator, V = HessianOperator(problem), torch.randn(problem.n_parameters, vectors, device=device)
        return lambda: operator @ V

    cases: dict[str, tuple[list[int], Callable[[int], int], Callable[[int], Callable[[], Any]]]] = {
        "exact share, parameters (by width)": ([32, 48, 64, 96], lambda d: 4 * d * d + 10 * d, width),
        "exact share, batch": ([64, 128, 256, 512], int, samples),
        "exact share, depth (at width 32)": ([4, 8, 16, 32], int, depth),
        "product, parameters (by width)": (
            [256, 512, 1024, 2048],
            lambda d: 3 * d * d + 10 * d,
            lambda d: product(problems.tanh_mlp(d, 3, 10, 128, device)),
        ),
        "product, batch": ([128, 256, 512, 1024], int, lambda n: product(problems.tanh_mlp(512, 3, 10, n, device))),
        "product, depth (at width 32)": (
            [16, 32, 64, 128],
            int,
            lambda n: product(problems.tanh_mlp(32, n, 10, 128, device)),
        ),
        "product, vectors (128x32)": ([1, 4, 16, 64], int, lambda k: product(problems.deep_mlp(device), k)),
    }
    yield "\n| seconds grow with | from - to | seconds | exponent |\n|---|---|---|---:|"
    for name, (sizes, quantity, make) in cases.items():
        seconds = list(race({str(size): make(size) for size in sizes}, 5).values())
        quantities = [quantity(size) for size in sizes]
        slope = np.polyfit([math.log(q) for q in quantities], [math.log(s) for s in seconds], 1)[0]
        yield (
            f"| {name} | {quantities[0]:,} - {quantities[-1]:,} | {seconds[0]:.3g} - {seconds[-1]:.3g} | {slope:.2f} |"
        )


def stream(problem: Problem) -> None:
    """What an exact `diag-share` computes."""
    operator = HessianOperator(problem)
    exact.row_statistics(operator, exact.neuron_space(operator))


def peak(device: torch.device) -> float:
    """Most memory that this process has held there so far, GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


CASES = {case.__name__: case for case in (share, dense, lenet, products, eigenpairs, convolutions, density, scaling)}


def main() -> None:
    """Run the named cases, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    given = parser.parse_args()
    device = device_named(given.device)
    torch.set_num_threads(2)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, 2 threads"
    print(f"{where}, CPython {platform.python_version()}, torch {torch.__version__}", end=", ")
    print(", ".join(f"{name} {version}" for name, version in peers.versions().items()))
    for name in given.names or list(CASES):
        print(f"\n### {CASES[name].__doc__}")
        for line in CASES[name](device):
            print(line, flush=True)


if __name__ == "__main__":
    main()
