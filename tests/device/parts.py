"""What single products, steps, layers and looks cost on the pretended GPU: launches, waits and uploads.

Whatever comes before the first of them is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.linalg import eigensolver, inclusion, quadrature
from hessdiag.machine import capacity
from hessdiag.nets.activations import activation
from hessdiag.nets.ensemble import Ensemble
from hessdiag.optimizers.classes import of_this
from hessdiag.optimizers.registry import OPTIMIZERS
from hessdiag.problem.batches import batch
from hessdiag.problem.load import ProblemRequest, load_problem
from hessdiag.problem.problem import Problem
from hessdiag.questions.sharpness.along import loss_along
from hessdiag.questions.vanishing import mlp_norms
from hessdiag.questions.vanishing import norms as vanishing_norms
from hessdiag.shards.problem import sharded
from tests import gpu_models
from tests.benchmarks import problems
from tests.device.pretended_gpu import GPU, Gpu, pretended

Counts = dict[str, float]
WHAT = ("launches", "waits", "uploads")
DEEP = (128, 32, 16)  # depth, width and samples of the networks that are counted for docs/performance.md


def counted(gpu: Gpu, run: Callable[[], Any]) -> Counts:
    """What a call costs."""
    before = gpu.counts.copy()
    run()
    return {what: gpu.counts[what] - before[what] for what in WHAT}


def parts() -> Iterator[dict[str, Any]]:
    """Each with its name and counts."""
    for group in (_products, _solvers, _networks, _steps):
        with pretended() as gpu:
            for name, cost in group(gpu):
                yield {"name": name, "counts": cost}


def _products(gpu: Gpu) -> Iterator[tuple[str, Counts]]:
    small = on_gpu(*gpu_models.mlp())
    lenet, deep = (
        on_gpu(one.model, [(x[:2], y[:2]) for x, y in one.data], "ce")
        for one in (problems.lenet(), problems.deep_mlp())
    )
    of: tuple[tuple[str, type[CurvatureOperator[Any]], Problem], ...] = (
        ("Hessian product, 3-layer MLP", HessianOperator, small),
        ("Gauss-Newton product, 3-layer MLP", GaussNewtonOperator, small),
        ("Hessian product, LeNet", HessianOperator, lenet),
        ("Hessian product, 128 layers", HessianOperator, deep),
    )
    for name, kind, problem in of:
        operator = kind(problem, check=problem is small)
        for vectors in (1, 8):
            V = torch.ones(operator.shape[0], vectors, device=GPU)
            operator @ V
            yield f"{name}, {vectors} vectors", counted(gpu, lambda operator=operator, V=V: operator @ V)
    model, data, loss = gpu_models.deep()
    looked = HessianOperator(on_gpu(model.double(), [(x.double(), y) for x, y in data], loss))
    yield "look at the point, 32 layers", counted(gpu, looked.settle)
    gpt = "builtin:gpt(width=8,layers=1,heads=2,vocabulary=16,context=8)"
    words = load_problem(ProblemRequest(gpt, device="cuda"))
    for name, problem in (("3-layer MLP", small), ("GPT of 1 block", words)):
        pieces = HessianOperator(sharded(problem))
        for vectors in (1, 8):
            V = torch.ones(pieces.spread.own, vectors, device=GPU)
            pieces @ V
            yield f"the same by pieces, {name}, {vectors} vectors", counted(gpu, lambda: pieces @ V)  # noqa: B023


@dataclass
class Diagonal:
    """A matrix whose products are one launch, so that what is counted is the solver's own."""

    n: int
    dtype: torch.dtype = torch.float64
    device: torch.device = GPU

    def __post_init__(self) -> None:
        self.shape = (self.n, self.n)
        self.diagonal = torch.linspace(-1, 2, self.n, dtype=torch.float64).to(GPU)

    def __matmul__(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.diagonal.reshape(-1, *[1] * (vectors.ndim - 1)) * vectors


def _solvers(gpu: Gpu) -> Iterator[tuple[str, Counts]]:
    matrix = Diagonal(3000)
    for block in (1, 2):

        def solved(steps: int, block: int = block) -> Any:
            limits = {"tol": 1e-14, "block": block, "max_products": steps * block, "seed": 0}
            return eigensolver.extreme_eigenpairs(matrix, lowest=1, highest=1, **limits)

        yield f"step of extreme_eigenpairs, block {block}", _per_step(gpu, solved, 10, 20)
    density = lambda steps: quadrature.spectral_density(matrix, probes=4, steps=steps, seed=0)  # noqa: E731
    yield "step of spectral_density, 4 probes", _per_step(gpu, density, 10, 20)
    dense = torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield "scaling of Gershgorin's discs", counted(gpu, lambda: inclusion.perron((dense + dense.T).to(GPU)))


def _networks(gpu: Gpu) -> Iterator[tuple[str, Counts]]:
    phi, networks = activation("relu"), 3

    def ensemble(depth: int) -> Ensemble:
        return Ensemble(depth, width=6, init="he_normal", batch=16, device=GPU)

    def norms(depth: int) -> Any:
        sample = ensemble(depth).draw(0, networks)
        state = mlp_norms.run(sample.weights, sample.x, sample.y, phi, 0.25)
        return mlp_norms.hessian_norms2(sample.weights, state, 0.25)

    layer = _per_step(gpu, norms, 4, 8)
    yield "layer of networks' Hessian norms", layer
    together = vanishing_norms._networks_a_pass("exact", *DEEP, capacity.CUDA)
    yield "network of `vanishing`, 128 layers", {what: layer[what] * DEEP[0] / together for what in WHAT}
    yield (
        "check of them by 256 products",
        counted(gpu, lambda: vanishing_norms.check_against_products(ensemble(4), phi)),
    )


def _steps(gpu: Gpu) -> Iterator[tuple[str, Counts]]:
    for name in OPTIMIZERS:
        kind, entry = of_this(name)
        model, data, _ = gpu_models.mlp()
        problem = on_gpu(model.double(), [(x.double(), y) for x, y in data], "ce")
        optimizer = kind(problem.parameters, **entry.settings)
        (x, y), network = problem.data[0], problem.model

        def closure(x: Any = x, y: Any = y, network: Any = network, whole: bool = entry.output) -> Any:
            output = network(x)
            loss = torch.nn.functional.cross_entropy(output, y)
            return (loss, output) if whole else loss

        torch.manual_seed(0)
        optimizer.step(closure)

        def steps(optimizer: Any = optimizer, closure: Any = closure) -> None:
            for _ in range(STEPS):
                optimizer.step(closure)

        yield f"step of {name}", {what: cost / STEPS for what, cost in counted(gpu, steps).items()}
    loss = loss_along(problem, torch.ones(problem.n_parameters, dtype=torch.float64).to(GPU))
    loss(1e-3)
    yield "look of sharpness along a step", counted(gpu, lambda: loss(2e-3))


STEPS = 4


def _per_step(gpu: Gpu, run: Callable[[int], Any], few: int, many: int) -> Counts:
    costs = [counted(gpu, lambda steps=steps: run(steps)) for steps in (few, many)]
    return {what: (costs[1][what] - costs[0][what]) / (many - few) for what in costs[0]}


def on_gpu(model: torch.nn.Module, data: list[Any], loss: str) -> Problem:
    """A problem whose model and batches are there."""
    return Problem(model.to(GPU), data=[batch.to(one, GPU) for one in data], loss=loss)
