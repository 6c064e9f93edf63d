"""What is run on the pretended GPU: `python -m tests.device.pretended_runs GROUP ...` prints JSON lines.

Commands run on the CPU and on the pretended GPU, and their documents are compared as `tests.gpu_check` compares those
of a real one. `parts` counts what single products, steps and layers cost; `waits COMMAND` says where a command waits.
"""

import contextlib
import io
import json
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from tests.device import guard

if __name__ == "__main__":  # not where pytest looks for examples in it
    guard.load()

import torch
from torch import Tensor

from hessdiag.cli import main
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import HessdiagError
from hessdiag.machine import capacity
from hessdiag.problem.batches import batch
from hessdiag.problem.load import ProblemRequest, load_problem
from hessdiag.problem.problem import Problem
from hessdiag.questions.precondition import system
from hessdiag.questions.registry import QUESTIONS
from hessdiag.report import html  # noqa: F401  # imported before the forks
from hessdiag.shards.problem import sharded
from hessdiag.shards.vocabulary import streamed
from tests import gpu_check, gpu_models
from tests.device.lines import LINES
from tests.device.parts import on_gpu, parts
from tests.device.pretended_gpu import GPU, pretended


def compared(lines: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Each command on both devices, with what was counted."""
    for line in lines:
        started = time.perf_counter()
        with pretended() as gpu:
            found = gpu_check.compared((line, "float64", "cuda"))
        yield {**found, "name": line, "counts": dict(gpu.counts), "took": round(time.perf_counter() - started, 1)}


def loading() -> Iterator[dict[str, Any]]:
    """Where problems go, what is refused before it gets there, and a document of a GPU as a page."""
    for spec in ("tests/gpu_models.py:mlp", "tests/gpu_models.py:wide", "tests/gpu_models.py:weighted"):
        with pretended():
            problem = load_problem(ProblemRequest(spec, device="auto"))
            data = {str(tensor.device) for tensor in batch.tensors(list(problem.data))}
            notes = [note for note in problem.notes if note.startswith("device")]
            yield {"name": spec, "model": str(problem.device), "data": sorted(data), "notes": notes}
    with pretended():  # Ritz pairs, as Lanczos leaves them on the host
        values, vectors = torch.linalg.eigh(torch.diag(torch.arange(1.0, 5.0).double()))
        pairs = system.found(values, vectors.to(GPU), torch.zeros_like(values), 0.1)
        bent, v = system.System(pairs, torch.abs, 0.1), torch.ones(4, 1, dtype=torch.float64).to(GPU)
        yield {"name": "Ritz pairs", "apart": float((bent.solve(bent @ v) - bent.matrix @ bent.solve(v)).norm())}
    with mock.patch.object(streamed, "LEAST", 1), pretended():
        model, [(tokens, labels)], loss = gpu_models.tokens_out_of_range()
        try:
            sharded(on_gpu(model.eval(), [(tokens, labels)], loss))
        except HessdiagError as error:
            yield {"name": "tokens out of range, in pieces", "said": error.what}
    for spec in ("labels_out_of_range", "tokens_out_of_range"):
        said = io.StringIO()
        with pretended() as gpu, contextlib.redirect_stderr(said):
            code = main.run(["eigs", f"tests/gpu_models.py:{spec}", "--device", "cuda"])
        refused = [place for place in gpu.places if "nll_loss" in place or "embedding" in place]
        yield {"name": spec, "code": code, "said": said.getvalue(), "launched": refused}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        saved, page = Path(folder) / "r.json", Path(folder) / "r.html"
        with pretended():
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
            main.run(["eigs", "tests/gpu_models.py:mlp", "--device", "cuda", "--no-progress", "-o", str(saved)])
            after = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.benchmark = False
        code = main.run(["report", str(saved), "-o", str(page)])
        found = {"name": "report", "code": code, "document": json.loads(saved.read_text()), "page": page.read_text()}
    yield {**found, "flags": after}


def pieces() -> Iterator[dict[str, Any]]:
    """Models in pieces by ways that small ones do not take: products that are kept, and heads that are streamed."""
    for spec, least in (("lenet", streamed.LEAST), ("gpt", 1)):
        model, data, loss = _in_float64(spec)
        V = torch.randn(sum(map(Tensor.numel, model.parameters())), 2, dtype=torch.float64)
        expected = HessianOperator(Problem(model, data=data, loss=loss), check=False) @ V
        keeping = mock.patch.object(capacity, "CUDA", replace(capacity.CUDA, least_kept=1))
        with keeping, mock.patch.object(streamed, "LEAST", least), pretended():
            operator = HessianOperator(sharded(on_gpu(model, data, loss)))
            found = [operator @ V.to(GPU) for _ in range(2)][-1].cpu()
            kept = sum(unit.kept() for unit in operator.problem.units.every)
        apart = float((found - expected).norm() / expected.norm())
        yield {"name": spec, "apart": apart, "kept": kept, "engine": operator.engine}


def _in_float64(spec: str) -> tuple[torch.nn.Module, list[Any], Any]:
    if spec == "gpt":
        sizes = "width=8,layers=1,heads=2,vocabulary=64,context=8"
        problem = load_problem(ProblemRequest(f"builtin:gpt({sizes})", device="cpu", dtype="float64"))
        return problem.model, list(problem.data), problem.loss
    model, data, loss = getattr(gpu_models, spec)()
    return model.double(), [batch.to(one, None, torch.float64) for one in data], loss


def rehearsal(device: str = "cuda") -> Iterator[dict[str, Any]]:
    """All that `tests.gpu_check` does, on small networks."""
    for part in (*gpu_check.PARTS, *gpu_check.TIMED):
        with pretended() if device == "cuda" else contextlib.nullcontext():
            for found in gpu_check.lines(part, device, small=True):
                yield {"part": part, **found}


def waits(line: str) -> Iterator[dict[str, Any]]:
    """Where the host waits for the device, or sends to it, by lines of the package; those most often first."""
    with pretended(lines=True) as gpu, contextlib.redirect_stdout(io.StringIO()):
        main.run([*shlex.split(line), "--device", "cuda", "--no-progress", "--json"])
    for (what, place), count in gpu.lines.most_common():
        yield {"count": count, "what": what, "place": place}


GROUPS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    **{name: lambda lines=lines: compared(lines) for name, lines in LINES.items()},
    "parts": parts,
    "loading": loading,
    "pieces": pieces,
    "rehearsal": rehearsal,
    "waits": waits,
}


def each(groups: Sequence[str]) -> None:
    """Run groups one after the other, each in a fork that finds everything imported; their names are in their lines."""
    for question in QUESTIONS:
        question.module("command"), question.module("measure")
    for group in groups:
        child = os.fork()
        if not child:
            _print(group)
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise SystemExit(code)


def _print(group: str, *args: str) -> NoReturn:
    code = 1
    try:
        for found in GROUPS[group](*args):
            print(json.dumps({"group": group, **found}), flush=True)
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        # Autograd's threads for a device that is not there outlive it: now and then they end the process by an abort.
        os._exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "waits":
        _print(*sys.argv[1:])
    each(sys.argv[1:])
