"""What to run where a GPU is at hand: `python -m tests.gpu_check [PART|CALL ...] [--device cuda] [-o FILE.jsonl]`.

Not collected by pytest. Each part prints one JSON line per finding, so that what was found before a limit is kept; lines
with `"wrong": true` want mending. Three calls of some eight minutes each: `correct`, `time` and `race`; then
`python docs/gpu_table.py FILE.jsonl` prints tables for docs/performance.md. `--device cpu --small` rehearses it.
"""

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from hessdiag.curvature import hessian
from hessdiag.curvature.chains import tangents
from hessdiag.curvature.chains.layer_chain import NotAChainError
from hessdiag.problem.problem import Problem
from tests import gpu_models, gpu_pieces, gpu_time, gpu_training
from tests.benchmarks import problems
from tests.gpu_time import timed

Line = dict[str, Any]

MODELS = "tests/gpu_models.py"
COMMANDS = ("diag-share", "eigs", "spectrum", "spectrum --operator ggn", "bounds", "blocks", "forward")
CASES = {
    "mlp": "",
    "weighted": "",
    "wide(inputs=40,width=40)": "",
    "deep": "",
    "lenet": "",
    "resnet": "",
    "batch_norm": "--train-mode",
    "dropout": "--train-mode",
    "lstm": "",
    "gru": "",
    "transformer": "",
    "gpt2": "",
}
DRAWN = ("dropout",)  # each device has masks of its own
FURTHER = {  # what takes longer, or other ways for some models
    "mlp": ("eigs --metric adam", "sharpness", "trust-radius", "precondition", "blocks --by layer", "check"),
    "wide(inputs=90,width=80,samples=8)": ("eigs --metric adam", "sharpness", "precondition --steps 20 --probes 2"),
    "lenet": ("sharpness", "trust-radius", "precondition", "blocks --by neuron --probes 6"),
    "transformer": ("sharpness", "blocks --by layer"),
}
WITHOUT_MODEL = (
    "vanishing --depth 4 --depth 8 --width 8 --seeds 40 --hessian-seeds 8",
    "forward --depth 12 --width 16 --seeds 300",
)
# What differs from run to run, or is itself an error that rounding makes.
LOOSE = ("second", "memory", "bytes", "residual", "error", "rounding", "asymmetry", "difference", "hvp", "wall", "_se",
         "interval", "orthogonality", "tolerance", "passes", "density", "negative_mass",
         "negative_diagonal_fraction")  # fmt: skip
ALLOWED = {"float64": 1e-6, "float32": 2e-3}
NOTHING = {
    "float64": 1e-13,
    "float32": 1e-5,
}  # of the largest number of a document: rounding, whose digits are anyone's
DIGITS = {"float64": 1e-15, "float32": 5e-7}  # of it that two numbers may differ by, whatever their own size


def ceilings(device: str, small: bool) -> Iterator[Line]:
    """The rates that everything else is held against."""
    for dtype in (torch.float32, torch.float64):
        a, b = torch.randn(2, 256 if small else 8192, 256 if small else 8192, dtype=dtype, device=device)
        seconds = timed(lambda a=a, b=b: a @ b, device)
        yield {"name": f"product of matrices, {dtype}", "tflops": 2 * len(a) ** 3 / seconds / 1e12}
    source = torch.empty(2**20 if small else 2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), device)
    yield {"name": "copy, read and written", "TB/s": 2 * len(source) / seconds / 1e12}


def same(device: str, small: bool) -> Iterator[Line]:
    """Each command on the CPU and on the device: numbers of one document against those of the other."""
    if small:
        yield from (
            compared((line, "float64", device)) for line in (f"eigs {MODELS}:mlp --dtype float64", WITHOUT_MODEL[0])
        )
        return
    jobs = []
    for dtype in ("float64", "float32"):
        jobs += [
            (f"{command} {MODELS}:{case} {more} --dtype {dtype}", dtype, device)
            for case, more in CASES.items()
            for command in COMMANDS
        ]
    jobs += [
        (f"{command} {MODELS}:{case} --dtype float64", "float64", device)
        for case, commands in FURTHER.items()
        for command in commands
    ]
    jobs += [(command, "float64", device) for command in WITHOUT_MODEL]
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(12, os.cpu_count() or 1), initializer=_quiet) as pool:
        yield from pool.imap_unordered(compared, jobs)


def _quiet() -> None:
    torch.set_num_threads(1)


def compared(job: tuple[str, str, str]) -> Line:
    line, dtype, device = job
    found = [_document(line, where) for where in ("cpu", device)]
    seconds = [document.get("seconds") for document in found]
    name = line.replace(f"{MODELS}:", "")
    failed = [document["failed"] for document in found if "failed" in document]
    if len(failed) == 2 and failed[0] == failed[1]:
        return {"name": name, "failed alike": failed[0][-200:], "wrong": False}
    if failed:
        return {"name": name, "failed": failed, "wrong": True}
    here, there = (dict(_numbers({key: document.get(key) for key in ("result", "theory")})) for document in found)
    scales: dict[str, float] = {}
    for key, value in here.items():
        if isinstance(value, float) and math.isfinite(value):
            for family in (_family(key), "."):
                scales[family] = max(scales.get(family, 0.0), abs(value))
    apart = {}
    for key in here.keys() & there.keys():
        a, b = here[key], there[key]
        if a == b or (key.endswith("iterations") and _same_count(a, b, key, job)):
            continue
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in (a, b)):
            apart[key] = math.inf
        elif max(abs(a), abs(b)) > NOTHING[dtype] * scales["."] and abs(a - b) > DIGITS[dtype] * scales["."]:
            apart[key] = abs(a - b) / max(scales.get(_family(key), 0.0), 1e-300)
    method = [document.get("result", {}).get("method") for document in found]
    if method[0] != method[1]:  # a GPU solves larger matrices whole: what is estimated on the CPU is known there
        apart = {key: apart[key] for key in apart if key in (".result.lowest", ".result.highest")}
        here = there = {}
    if any(drawn in line for drawn in DRAWN):
        apart, here, there = {}, {}, {}
    missing = sorted(here.keys() ^ there.keys())
    worst = sorted(apart.items(), key=lambda pair: -pair[1])[:3]
    status = [document["status"] for document in found]
    wrong = bool(missing) or status[0] != status[1] or any(error > ALLOWED[dtype] for _, error in worst)
    return {
        "name": name, "method": method, "status": status, "seconds": seconds, "numbers": len(here), "worst": worst if wrong else worst[:1],
        "values": [(here[key], there[key]) for key, _ in worst] if wrong else [], "missing": missing[:5], "wrong": wrong,
    }  # fmt: skip


def _same_count(a: float, b: float, key: str, job: tuple[str, str, str]) -> bool:
    """Whether a count is the CPU's: to one where numbers differ by rounding, and there the way that a GPU takes."""
    line, _, device = job
    if gpu_time.real(torch.device(device)):
        return abs(a - b) == 1
    with by_autograd():
        return bool(dict(_numbers({"result": _document(line, "cpu").get("result")}))[key] == b)


@contextlib.contextmanager
def by_autograd() -> Iterator[None]:
    """Chains of linear layers are not differentiated by hand, as on a GPU."""

    def refuse(*given: Any) -> Any:
        raise NotAChainError("as on a GPU")

    with mock.patch.object(hessian, "LayerChain", refuse), mock.patch.object(tangents, "LayerChain", refuse):
        yield


def _family(key: str) -> str:
    """Numbers of one list are compared at the scale of the largest."""
    return "".join(letter for letter in key if not letter.isdigit())


def _document(line: str, device: str) -> Line:
    from hessdiag.cli import main

    with tempfile.TemporaryDirectory() as folder:
        out, said = Path(folder) / "r.json", io.StringIO()
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = main.run([*line.split(), "--device", device, "--no-progress", "-o", str(out)])
        said_all = {"seconds": round(time.perf_counter() - started, 2), "said": said.getvalue()}
        if not out.exists():
            return {"failed": f"exit {code}: {said.getvalue()[-400:]}", **said_all}
        return {**json.loads(out.read_text()), **said_all}


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if not any(word in key for word in LOOSE):
                yield from _numbers(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{path}[{index}]")
    elif isinstance(value, int | float | bool):
        yield path, value


def tf32(device: str, small: bool) -> Iterator[Line]:
    """IEEE float32 in products, whatever the user has switched on; the residual covers the error of an eigenvalue."""
    import hessdiag
    from hessdiag.curvature.hessian import HessianOperator

    def lenet(place: str) -> Problem:
        return gpu_time.own(*gpu_models.lenet(), torch.device(place)) if small else problems.lenet(torch.device(place))

    plain = lenet("cpu")
    exact = Problem(plain.model.double(), data=[(plain.data[0][0].double(), plain.data[0][1])], loss="ce")
    v = torch.randn(plain.n_parameters, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = HessianOperator(exact) @ v
    top = hessdiag.eigs(exact, lowest=0, highest=1, tol=1e-8).highest[0].eigenvalue
    problem = lenet(device)
    for loud in (False, True):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = loud
        torch.backends.cudnn.benchmark = loud
        operator = HessianOperator(problem)
        found = [(operator @ v.float().to(device)).double().cpu() for _ in range(5)]
        error = float((found[0] - expected).norm() / expected.norm())
        result = hessdiag.eigs(problem, lowest=0, highest=1, tol=1e-5)
        pair = result.highest[0]
        yield {
            "name": f"LeNet float32, TF32 {'on' if loud else 'off'}", "product": error, "status": result.status,
            "repeats to the bit": all(torch.equal(found[0], other) for other in found),
            "lambda": pair.eigenvalue, "off": abs(pair.eigenvalue - top), "residual": pair.residual,
            "wrong": error > 1e-5 or abs(pair.eigenvalue - top) > 1.5 * abs(pair.residual) + 1e-6 * top,
        }  # fmt: skip
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = False


def capture(device: str, small: bool) -> Iterator[Line]:
    """Recordings beside other graphs of the same parameters, and the allocator after them."""
    from hessdiag.curvature import exact
    from hessdiag.curvature.gauss_newton import GaussNewtonOperator
    from hessdiag.curvature.hessian import HessianOperator

    def products(operator: Any, count: int = 16) -> float:
        V = torch.randn(operator.shape[0], 2).to(device)
        for _ in range(count):
            operator @ V
        return timed(lambda: operator @ V, device) * 1e3

    made: dict[str, Callable[[torch.device], Problem]] = {
        "128x32": problems.deep_mlp, "LeNet": problems.lenet, "ResNet": problems.small_resnet,
    }  # fmt: skip
    if small:
        made = {"MLP": lambda place: gpu_time.own(*gpu_models.mlp(), place)}
    for name, make in made.items():
        problem = make(torch.device(device))
        alone = HessianOperator(problem)
        milliseconds = products(alone)
        yield {"name": f"{name}, alone", "engine": alone.engine, "ms": milliseconds}
        beside = GaussNewtonOperator(problem)
        yield {"name": f"{name}, Gauss-Newton beside it", "ms": products(beside), "engine": beside.engine}
        problem = make(torch.device(device))
        x, y = problem.data[0]
        loss = torch.nn.functional.cross_entropy(problem.model(x), y)  # of a user, whose graph is alive
        operator = HessianOperator(problem)
        milliseconds = products(operator)
        yield {"name": f"{name}, a graph of the user's alive", "ms": milliseconds, "engine": operator.engine}
        del loss
        problem = make(torch.device(device))
        operator = HessianOperator(problem)
        space = exact.neuron_space(operator)
        milliseconds = products(operator)
        yield {
            "name": f"{name}, neuron space alive",
            "ms": milliseconds,
            "engine": operator.engine,
            "space": space is not None,
        }
        del space, operator, alone, beside, problem
    if not gpu_time.real(torch.device(device)):
        return
    for _ in range(2):
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        try:
            block = torch.empty(int(0.9 * free), dtype=torch.uint8, device=device)
            del block
            yield {"name": "90 % of free memory after recordings", "free": free / total, "wrong": free / total < 0.8}
        except torch.OutOfMemoryError as error:
            yield {"name": "90 % of free memory after recordings", "failed": str(error)[:300], "wrong": True}


BREAK = (
    ("eigs tests/gpu_models.py:labels_out_of_range", "label"),
    ("diag-share tests/gpu_models.py:tokens_out_of_range", "token"),
    ("eigs tests/gpu_models.py:too_large", "memory"),
    ("spectrum tests/gpu_models.py:too_large", "memory"),
    ("blocks tests/gpu_models.py:too_large", "memory"),
    ("eigs tests/gpu_models.py:mlp --device cuda:7", "cuda"),
    ("diag-share tests/gpu_models.py:mlp --device mps", "mps"),
)


def broken(device: str, small: bool) -> Iterator[Line]:
    """What cannot work on a GPU is told in one line with its exit code."""
    for command, word in BREAK:
        if word == "memory" and small:  # it is the GPU's that is to run out
            continue
        args = command.split() if "--device" in command else [*command.split(), "--device", device]
        started = time.perf_counter()
        code, said = (_here if small else _elsewhere)([*args, "--no-progress"])
        yield {
            "name": command, "code": code, "said": said[-700:], "seconds": round(time.perf_counter() - started, 1),
            "wrong": code not in (2, 3) or "internal error" in said or "Traceback" in said or word not in said.lower(),
        }  # fmt: skip


def _elsewhere(args: list[str]) -> tuple[int, str]:
    """Exit code and words of a command in a process of its own, which it may break."""
    command = [sys.executable, "-m", "hessdiag", *args]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired as late:  # the next one has its own findings
        return -1, str(late)
    return run.returncode, run.stderr or run.stdout


def _here(args: list[str]) -> tuple[int, str]:
    from hessdiag.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        return main.run(args), said.getvalue()


MOST_SECONDS = 45.0
GPT2 = f"{MODELS}:gpt2(layers=12,width=768,heads=12,vocabulary=50257,samples=4,length=256)"
WHOLE = (
    f"diag-share {MODELS}:mlp",
    "vanishing --depth 128 --width 32",
    "vanishing --depth 128 --width 32 --seeds 10000 --hessian-seeds 1000",
    "forward --depth 128 --width 32 --seeds 10000",
    *(f"diag-share {MODELS}:wide(inputs=3072,width=128,samples={samples})" for samples in (32, 128, 512)),
    f"eigs {MODELS}:wide(inputs=3072,width=128,samples=128)",
    f"spectrum {MODELS}:wide(inputs=3072,width=128,samples=128)",
    f"bounds {MODELS}:wide(inputs=64,width=64,samples=128)",
    f"blocks {MODELS}:wide(inputs=3072,width=128,samples=128)",
    f"eigs {GPT2} --lowest 1 --highest 1",
    f"eigs {GPT2}",
    f"spectrum {GPT2}",
    f"diag-share {GPT2}",
)


def report(device: str, small: bool) -> Iterator[Line]:
    """Every question that applies, in one process and one after the other: all are answered or left out for time."""
    for case, budget in (("mlp", "2s"),) if small else (("mlp", "none"), ("lenet", "60s"), ("gpt2", "60s")):
        document = _document(f"report {MODELS}:{case} --budget {budget}", device)
        result = document.get("result", {})
        status = {one["command"]: one["document"]["status"] for one in result.get("sections", ())}
        left = [one["why"] for one in result.get("left_out", ()) if one["argv"] and one["seconds"] is None]
        yield {
            "name": f"report {case}", "seconds": document["seconds"], "answered": status, "left out": left,
            "failed": document.get("failed"),
            "wrong": not status or "inexact" in status.values() or any("it failed" in why for why in left),
        }  # fmt: skip


WHOLE_SMALL = (
    f"diag-share {MODELS}:mlp",
    "vanishing --depth 3 --width 4 --seeds 6 --hessian-seeds 3",
    f"eigs {MODELS}:mlp",
)


def whole(device: str, small: bool) -> Iterator[Line]:
    """Whole commands in this process, one after the other: what they announced, what they took, what they answered."""
    for command in WHOLE_SMALL if small else WHOLE:
        _free(device)
        limit = threading.Timer(MOST_SECONDS, signal.raise_signal, [signal.SIGINT])  # a partial answer, as by Ctrl-C
        limit.start()
        document = _document(command, device)
        limit.cancel()
        provenance, checks = document.get("provenance", {}), document.get("checks", {})
        yield {
            "name": command.replace(f"{MODELS}:", ""), "status": document.get("status"), "seconds": document.get("seconds"),
            "measured": provenance.get("wall_seconds"), "cost": document.get("cost") or provenance.get("cost"),
            "peak": {key: value for key, value in provenance.items() if "peak" in key or "reserved" in key},
            "said": document["said"][-1500:], "failed": document.get("failed"), "checks": checks,
            "headline": _headline(document.get("result", {})), "wrong": "failed" in document,
        }  # fmt: skip


def _free(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _headline(result: Line) -> Line:
    """Numbers at the top of a result: enough to see that it is an answer."""
    return {key: value for key, value in result.items() if isinstance(value, int | float | str)}


def lines(part: str, device: str, *, small: bool) -> Iterator[Line]:
    """What a part finds; its lines say where it is a rehearsal."""
    found = TIMED[part](device, small, gpu_time.clock(device, small)) if part in TIMED else PARTS[part](device, small)
    yield from ({**line, **({"rehearsal": True} if small else {})} for line in found)


TIMED = {
    "where": gpu_time.where, "chunks": gpu_time.chunks, "races": gpu_time.races, "sharded": gpu_pieces.sharded,
    "large": gpu_pieces.large,
}  # fmt: skip
PARTS: dict[str, Callable[[str, bool], Iterator[Line]]] = {
    "ceilings": ceilings, "same": same, "tf32": tf32, "capture": capture, "break": broken, "whole": whole,
    "monitor": gpu_training.monitor, "report": report,
}  # fmt: skip
CALLS = {
    "correct": ("ceilings", "same", "tf32", "capture", "break", "sharded", "monitor", "report"),
    "time": ("ceilings", "where", "chunks"),
    "race": ("ceilings", "races", "large", "whole"),
}


def main() -> None:
    """Run the named parts, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join((*CALLS, *PARTS, *TIMED)))
    parser.add_argument("--small", action="store_true", help="a rehearsal: the same on small networks")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("-o", "--output")
    given = parser.parse_args()
    asked = [part for name in given.parts or CALLS for part in CALLS.get(name, (name,))]
    if unknown := sorted({*asked} - {*PARTS, *TIMED}):
        parser.error(f"there is no part {unknown[0]}")
    file = open(given.output, "a") if given.output else contextlib.nullcontext()  # noqa: SIM115
    with file as log:
        for part in dict.fromkeys(asked):
            started = time.perf_counter()
            try:
                for line in lines(part, given.device, small=given.small):
                    text = json.dumps({"part": part, **line}, default=str)
                    print(text, flush=True)
                    if log is not None:
                        print(text, file=log, flush=True)
            except Exception as error:  # the next part has its own findings
                text = json.dumps({"part": part, "failed": repr(error)[:1000], "wrong": True})
                print(text, flush=True)
                if log is not None:
                    print(text, file=log, flush=True)
            print(json.dumps({"part": part, "took": round(time.perf_counter() - started, 1)}), flush=True)


if __name__ == "__main__":
    main()
