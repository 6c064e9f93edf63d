"""Training on a GPU that a `Monitor` looks at: part `monitor` of `tests.gpu_check`."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

import hessdiag
from hessdiag.problem.batches import batch
from hessdiag.questions.report.run.record import Record
from tests import gpu_models
from tests.gpu_time import Line

STEPS, EVERY = 6, 2
ALLOWED = 1e-6  # relative distance of what looks say on two devices
QUANTITIES = ("loss", "gradient_norms", "lambda_max", "sharpness", "negative_curvature", "trace", "diag_share")
CASES = ("mlp", "lenet", "batch_norm", "transformer")


def monitor(device: str, small: bool) -> Iterator[Line]:
    """Training goes on as without looks, to the bit where it repeats at all, and these say what they say on the CPU."""
    steps = EVERY if small else STEPS
    for name in CASES[:1] if small else CASES:
        bare, again = (trained(name, device, (), steps)[0] for _ in range(2))
        weights, found = trained(name, device, QUANTITIES, steps)
        _, expected = trained(name, "cpu", QUANTITIES, steps)
        yield {
            "name": f"{name}, training with looks",
            **_told(_same(bare, again), _same(bare, weights), found, expected),
        }


def trained(name: str, device: str, quantities: Sequence[str], steps: int) -> tuple[list[Tensor], list[Record]]:
    """The weights after some steps of Adam in float64, and what was seen on the way."""
    model, data, _ = getattr(gpu_models, name)()
    model, place = model.to(device, torch.float64), torch.device(device)
    x, y = batch.to(data[0], place, torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    problem = hessdiag.Problem(model, data=[(x, y)], loss="ce")
    watch = hessdiag.Monitor(problem, EVERY, None, optimizer=optimizer, quantities=quantities) if quantities else None
    model.train(name == "batch_norm")
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        if watch is not None:
            watch.step()
    return [parameter.detach().cpu() for parameter in model.parameters()], [] if watch is None else watch.records


def _same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(map(torch.equal, a, b))


def _told(repeats: bool, untouched: bool, found: Sequence[Record], expected: Sequence[Record]) -> Line:
    failed = [record.failed for record in (*found, *expected) if record.failed]
    pairs = [pair for there, here in zip(found, expected, strict=True) for pair in _pairs(there, here)]
    worst = max((abs(a - b) / max(abs(a), abs(b), 1e-300), name) for name, a, b in pairs) if pairs else (0.0, "")
    return {
        "repeats": repeats, "same to the bit": untouched, "apart": worst, "numbers": len(pairs), "failed looks": failed,
        "wrong": bool(failed) or not pairs or not worst[0] <= ALLOWED or (repeats and not untouched),
    }  # fmt: skip


def _pairs(there: Record, here: Record) -> Iterator[tuple[str, float, float]]:
    """The numbers of one look on both devices."""
    for name, reading in here.readings.items():
        value = there.value(name)
        if reading.value is not None and value is not None:
            yield f"{name} at {here.step}", value, reading.value
