"""Times side by side in one process: `python -m tests.benchmarks.measure [CASE ...]`, on a quiet machine.

Prints medians, ratios and the machine. It is no test: nothing else may run meanwhile, and it takes minutes.
"""

import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import hessdiag
from hessdiag.curvature import exact
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.problem.problem import Problem
from tests.benchmarks import problems


def median_time(function: Callable[[], Any], repeats: int = 5) -> float:
    """Median of wall seconds, after one run to warm up."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def once(function: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of one run, set-up included, and its result."""
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


def gemm_rate(dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of a large matrix product, measured."""
    a, b = torch.randn(2, 2048, 2048, dtype=dtype).unbind()
    return 2 * 2048**3 / median_time(lambda: a @ b)


def gradient(problem: Problem) -> Callable[[], Any]:
    """One plain gradient of the loss."""
    x, y = problem.data[0]
    return lambda: torch.autograd.grad(nn.functional.cross_entropy(problem.model(x), y), problem.parameters)


def curvlinops_operator(problem: Problem) -> Any:
    """Their Hessian, with the checks that cost time switched off."""
    import curvlinops

    return curvlinops.HessianLinearOperator(
        problem.model, nn.CrossEntropyLoss(), list(problem.parameters), list(problem.data), check_deterministic=False
    )


def eigenthings_operator(problem: Problem) -> Any:
    """Their Hessian."""
    import hessian_eigenthings

    return hessian_eigenthings.HessianOperator(
        problem.model, list(problem.data), lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1])
    )


def dense() -> dict[str, float]:
    """The exact Hessian of 4,416 parameters."""
    problem = problems.tanh_mlp(32, 4, 10, 128)
    n = problem.n_parameters
    names = [name for name, _ in problem.named_parameters]
    x, y = problem.data[0]

    def loss(theta: torch.Tensor) -> torch.Tensor:
        parts = torch.split(theta, [p.numel() for p in problem.parameters])
        values = {name: part.reshape(p.shape) for name, part, p in zip(names, parts, problem.parameters, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(problem.model, values, (x,)), y)

    theta = torch.cat([p.detach().reshape(-1) for p in problem.parameters])
    theirs = curvlinops_operator(problem)
    eye = torch.eye(n)
    times = {
        "hessdiag.hessian": median_time(lambda: hessdiag.hessian(problem)),
        "curvlinops H @ eye": median_time(lambda: theirs @ eye, 1),
        "torch.func.hessian": median_time(lambda: torch.func.hessian(loss)(theta), 1),
        "batched double backward": median_time(lambda: HessianOperator(problem).rows(torch.arange(n)), 1),
    }
    fastest = min(value for name, value in times.items() if name != "hessdiag.hessian")
    return times | {"ratio (target 10)": fastest / times["hessdiag.hessian"]}


def share() -> dict[str, float]:
    """The exact share of 17,024 parameters without holding H, against the least matrix products."""
    problem = problems.tanh_mlp(64, 4, 10, 128)

    def stream() -> None:
        operator = HessianOperator(problem)
        exact.row_statistics(operator, exact.neuron_space(operator))

    rate = gemm_rate()
    ours = median_time(stream)
    least = 128 * problem.n_parameters**2 / rate
    return {
        "hessdiag": ours,
        "least products": least,
        "GEMM Gflop/s": rate / 1e9,
        "ratio (target below 3)": ours / least,
    } | memory()


def lenet() -> dict[str, float]:
    """The exact share of a 62,006-parameter LeNet, against batched products alone (timed on 512 rows)."""
    problem = problems.lenet()

    def stream() -> None:
        operator = HessianOperator(problem)
        exact.row_statistics(operator, exact.neuron_space(operator))

    operator = HessianOperator(problem)
    rows = torch.arange(0, problem.n_parameters, problem.n_parameters // 512)[:512]
    products = median_time(lambda: operator.rows(rows), 1) * problem.n_parameters / 512
    ours, _ = once(stream)
    return {"hessdiag": ours, "products alone": products, "ratio (target 5)": products / ours} | memory()


def products() -> dict[str, float]:
    """Hessian-vector products in gradients."""
    found = {}
    for name, problem in (
        ("3x512 tanh MLP", problems.tanh_mlp(512, 3, 10, 128)),
        ("128x32 MLP", problems.deep_mlp()),
        ("small ResNet", problems.small_resnet()),
    ):
        operator = HessianOperator(problem)
        v, V = torch.randn(operator.shape[0]), torch.randn(operator.shape[0], 32)
        base = median_time(gradient(problem), 15)
        theirs = curvlinops_operator(problem)
        found |= {
            f"{name}: gradient": base,
            f"{name}: one vector": median_time(lambda op=operator, v=v: op @ v, 15) / base,
            f"{name}: each of 32": median_time(lambda op=operator, V=V: op @ V, 3) / 32 / base,
            f"{name}: curvlinops, one vector": median_time(lambda op=theirs, v=v: op @ v, 5) / base,
        }
    return found


def eigenpairs() -> dict[str, float]:
    """Five lowest and five highest eigenpairs to a true relative residual of 1e-3, set-up included."""
    import hessian_eigenthings
    from scipy.sparse.linalg import eigsh

    found: dict[str, float] = {}
    for name, make in (("MLP", lambda: problems.tanh_mlp(96, 3, 10, 128)), ("ResNet", problems.small_resnet)):
        problem = make()
        ours, result = once(lambda problem=problem: hessdiag.eigs(problem, lowest=5, highest=5, tol=1e-3))
        worst = max(pair.residual / abs(pair.eigenvalue) for pair in (*result.lowest, *result.highest))

        def scipy_pairs(problem: Problem = problem) -> Any:
            return eigsh(curvlinops_operator(problem).to_scipy(dtype=np.float64), k=10, which="BE", tol=1e-3)

        theirs, _ = once(scipy_pairs)

        def both_ends(problem: Problem = problem) -> Any:
            operator = eigenthings_operator(problem)
            return [hessian_eigenthings.lanczos(operator, k=5, which=which, max_iter=100) for which in ("LA", "SA")]

        eigenthings, _ = once(both_ends)
        found |= {
            f"{name} {problem.n_parameters:,}: hessdiag": ours,
            f"{name}: products": float(result.hvps),
            f"{name}: worst relative residual": worst,
            f"{name}: eigsh BE on curvlinops": theirs,
            f"{name}: hessian-eigenthings, both ends": eigenthings,
            f"{name}: ratio (target 2)": min(theirs, eigenthings) / ours,
        }
    return found


def density() -> dict[str, float]:
    """Stochastic Lanczos quadrature with 8 probes of 60 steps."""
    import hessian_eigenthings

    from hessdiag.linalg import slq

    found: dict[str, float] = {}
    for name, make in (("MLP", lambda: problems.tanh_mlp(96, 3, 10, 128)), ("128x32", problems.deep_mlp)):
        problem = make()
        ours, _ = once(
            lambda problem=problem: slq.spectral_density(HessianOperator(problem), probes=8, steps=60, seed=0)
        )
        theirs, _ = once(
            lambda problem=problem: hessian_eigenthings.spectral_density(
                eigenthings_operator(problem), num_runs=8, lanczos_steps=60
            )
        )
        found |= {
            f"{name}: hessdiag": ours,
            f"{name}: hessian-eigenthings": theirs,
            f"{name}: ratio (target 2)": theirs / ours,
        }
    return found


def memory() -> dict[str, float]:
    """Peak resident memory of this process so far."""
    return {"peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


CASES = {case.__name__: case for case in (dense, share, lenet, products, eigenpairs, density)}


def main(names: list[str]) -> None:
    """Run the named cases, or all."""
    torch.set_num_threads(2)
    print(
        json.dumps(
            {
                "machine": platform.machine(),
                "threads": 2,
                "torch": torch.__version__,
                "python": platform.python_version(),
            }
        )
    )
    for name in names or list(CASES):
        print(f"{name}: {CASES[name].__doc__}")
        for label, value in CASES[name]().items():
            print(f"  {label:45s} {value:12.4g}")


if __name__ == "__main__":
    main(sys.argv[1:])
