"""What is run on the pretended GPU: `python -m tests.device.pretended_runs commands|models|parts|loading` prints JSON lines.

Commands run on the CPU and on the pretended GPU, and their documents are compared as `tests.gpu_check` compares those
of a real one. `parts` counts what single products, steps and layers cost.
"""

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.device import guard

if __name__ == "__main__":  # not where pytest looks for examples in it
    guard.load()

import torch

from hessdiag.cli import main
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.linalg import eigensolver, inclusion, quadrature
from hessdiag.nets.activations import activation
from hessdiag.nets.ensemble import Ensemble
from hessdiag.problem.batches import batch
from hessdiag.problem.load import ProblemRequest, load_problem
from hessdiag.problem.problem import Problem
from hessdiag.questions.vanishing import mlp_norms
from hessdiag.questions.vanishing import norms as vanishing_norms
from tests import gpu_check, gpu_models
from tests.device.pretended_gpu import GPU, Gpu, pretended

MLP = "builtin:mlp(depth=3,width=5)"
COMMANDS = (
    f"diag-share {MLP}",
    f"diag-share {MLP} --rows 20",
    f"eigs {MLP}",
    f"spectrum {MLP}",
    f"spectrum {MLP} --operator ggn",
    f"spectrum {MLP} --operator fisher --loss ce",
    f"bounds {MLP}",
    f"blocks {MLP}",
    f"forward {MLP} --seeds 3",
    "forward --depth 4 --width 6 --seeds 50",
    "forward --depth 3 --width 6 --seeds 50 --activation tanh --solve median --init he_normal",
    "vanishing --depth 3 --width 4 --seeds 20 --hessian-seeds 5 --batch 3",
    "vanishing builtin:mlp(depth={depth},width=4) --depth 3 --seeds 3 --batch 3",
)
MODELS = (
    "eigs tests/gpu_models.py:wide(inputs=90,width=80,samples=8) --highest 2 --lowest 1 --tol 1e-6",  # too large for one matrix
    "spectrum tests/gpu_models.py:wide(inputs=90,width=80,samples=8) --probes 2 --steps 10",
    "diag-share tests/gpu_models.py:weighted --dtype float64",
    "diag-share tests/gpu_models.py:lenet --rows 8 --dtype float64",
    "eigs tests/gpu_models.py:batch_norm --train-mode --dtype float64",
    "diag-share tests/gpu_models.py:dropout --train-mode --dtype float64",
    "diag-share tests/gpu_models.py:transformer --rows 8 --dtype float64",
)


def compared(lines: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Each command on both devices, with what was counted."""
    for line in lines:
        started = time.perf_counter()
        with pretended() as gpu:
            found = gpu_check._compared((line, "float64", "cuda"))
        yield {**found, "name": line, "counts": dict(gpu.counts), "took": round(time.perf_counter() - started, 1)}


def counted(gpu: Gpu, run: Callable[[], Any]) -> dict[str, int]:
    """What a call costs."""
    before = gpu.counts.copy()
    run()
    return {what: gpu.counts[what] - before[what] for what in ("launches", "waits", "uploads")}


class Diagonal:
    """A matrix whose products are one launch, so that what is counted is the solver's own."""

    def __init__(self, n: int) -> None:
        self.diagonal = torch.linspace(-1, 2, n, dtype=torch.float64).to(GPU)
        self.shape, self.dtype, self.device = (n, n), torch.float64, GPU

    def __matmul__(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.diagonal.reshape(-1, *[1] * (vectors.ndim - 1)) * vectors


def parts() -> Iterator[dict[str, Any]]:
    """Products and steps of Lanczos, what comes before the first of them aside."""
    with pretended() as gpu:
        problem = _on_gpu(*gpu_models.mlp())
        for name, kind in (("Hessian", HessianOperator), ("Gauss-Newton", GaussNewtonOperator)):
            operator = kind(problem)
            for vectors in (1, 8):
                V = torch.ones(operator.shape[0], vectors, device=GPU)
                operator @ V
                cost = counted(gpu, lambda operator=operator, V=V: operator @ V)
                yield {"name": f"{name} product, {vectors} vectors", "counts": cost}
        matrix = Diagonal(3000)
        for block in (1, 2):

            def solved(steps: int, block: int = block) -> Any:
                limits = {"tol": 1e-14, "block": block, "max_products": steps * block, "seed": 0}
                return eigensolver.extreme_eigenpairs(matrix, lowest=1, highest=1, **limits)

            yield {"name": f"step of extreme_eigenpairs, block {block}", "counts": _per_step(gpu, solved, 10, 20)}
        density = lambda steps: quadrature.spectral_density(matrix, probes=4, steps=steps, seed=0)  # noqa: E731
        yield {"name": "step of spectral_density, 4 probes", "counts": _per_step(gpu, density, 10, 20)}
        dense = torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        yield {"name": "perron", "counts": counted(gpu, lambda: inclusion.perron((dense + dense.T).to(GPU)))}
        phi, networks = activation("relu"), 3

        def norms(depth: int) -> Any:
            sample = ensemble(depth).draw(0, networks)
            state = mlp_norms.run(sample.weights, sample.x, sample.y, phi, 0.25)
            return mlp_norms.hessian_norms2(sample.weights, state, 0.25)

        def ensemble(depth: int) -> Ensemble:
            return Ensemble(depth, width=6, init="he_normal", batch=16, device=GPU)

        yield {"name": "layer of networks' Hessian norms", "counts": _per_step(gpu, norms, 4, 8)}
        checked = counted(gpu, lambda: vanishing_norms.check_against_products(ensemble(4), phi))
        yield {"name": "check of them by 256 products", "counts": checked}


def _per_step(gpu: Gpu, run: Callable[[int], Any], few: int, many: int) -> dict[str, float]:
    costs = [counted(gpu, lambda steps=steps: run(steps)) for steps in (few, many)]
    return {what: (costs[1][what] - costs[0][what]) / (many - few) for what in costs[0]}


def _on_gpu(model: torch.nn.Module, data: list[Any], loss: str) -> Problem:
    return Problem(model.to(GPU), data=[batch.to(one, GPU) for one in data], loss=loss)


def loading() -> Iterator[dict[str, Any]]:
    """Where problems go, and what is refused before it gets there."""
    for spec in ("tests/gpu_models.py:mlp", "tests/gpu_models.py:wide", "tests/gpu_models.py:weighted"):
        with pretended():
            problem = load_problem(ProblemRequest(spec, device="auto"))
            data = {str(tensor.device) for tensor in batch.tensors(list(problem.data))}
            notes = [note for note in problem.notes if note.startswith("device")]
            yield {"name": spec, "model": str(problem.device), "data": sorted(data), "notes": notes}
    for spec in ("labels_out_of_range", "tokens_out_of_range"):
        said = io.StringIO()
        with pretended() as gpu, contextlib.redirect_stderr(said):
            code = main.run(["eigs", f"tests/gpu_models.py:{spec}", "--device", "cuda"])
        refused = [place for place in gpu.places if "nll_loss" in place or "embedding" in place]
        yield {"name": spec, "code": code, "said": said.getvalue(), "launched": refused}


GROUPS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "commands": lambda: compared(COMMANDS),
    "models": lambda: compared(MODELS),
    "parts": parts,
    "loading": loading,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for found in GROUPS[sys.argv[1]]():
        print(json.dumps(found), flush=True)
    # Autograd's threads for a device that is not there outlive it: now and then they end the process by an abort.
    os._exit(0)
