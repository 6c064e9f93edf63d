"""What runs will take, before they are made: counted and not timed, so that the same race has the same budget anywhere.

One step of each optimizer is taken on a copy, and every kernel that it calls is counted with its multiplications and
the numbers that it puts out.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hessdiag.machine.shortage import ran_out
from hessdiag.questions.escape.contenders import Entrant
from hessdiag.questions.escape.frozen import training
from hessdiag.questions.escape.runs.counting import Tally
from hessdiag.questions.escape.runs.draws import Order, draws
from hessdiag.questions.escape.runs.run import taking
from hessdiag.questions.escape.runs.stepping import NeedsGraphError
from hessdiag.questions.escape.start import Start

CALL = {"cpu": 2.5e-6, "cuda": 1.2e-5}  # seconds of a kernel, with what autograd and Python do around it
FLOPS = {"cpu": 6e10, "cuda": 5e12}  # a second, sustained
NUMBERS = {"cpu": 3e9, "cuda": 1e11}  # that kernels put out in a second, matrix products aside


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts kernels, the numbers that they put out, and multiplications by torch's formulas."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls, self.numbers, self.multiplications = 0, 0, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not to be kept from the compiler, which would be imported for that: a second. torch's own counter is."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls += 1
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.multiplications += int(formula(*args, **(kwargs or {}), out_val=found))
        if isinstance(found, torch.Tensor):
            self.numbers += found.numel()
        return found


def effort(start: Start, entrant: Entrant, order: Order) -> float:
    """Seconds of a backpropagation of one optimizer, about: its first step, counted.

    Nothing where that fails, which its run will say.
    """
    for graph in (False, True):
        try:
            return _first_step(start, entrant, order, graph)
        except NeedsGraphError:
            continue
        except Exception as error:
            if ran_out(error):
                raise
            break
    return 0.0


def _first_step(start: Start, entrant: Entrant, order: Order, graph: bool) -> float:
    with training(start.problem, 0) as model:
        optimizer = entrant.recipe.build(model, [name for name, _ in start.problem.named_parameters])
        tally = Tally()
        take = taking(start, entrant, model, optimizer, tally, [], graph=graph)
        draw = next(draws(start.problem, entrant.samples, order, 0))
        return counted(start.problem.device, lambda: take(draw)) / max(tally.backprops, 1)


def gradient_seconds(start: Start, samples: int, order: Order) -> float:
    """Of a gradient of so many samples."""
    with training(start.problem, 0) as model:
        draw = next(draws(start.problem, samples, order, 0))
        return counted(start.problem.device, lambda: draw.loss(start.problem, model).backward())  # type: ignore[no-untyped-call]


def look_seconds(start: Start) -> float:
    """Of a look at the loss."""
    with training(start.problem, 0) as model:
        return counted(start.problem.device, lambda: start.loss(model))


def counted(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds that some work takes on a usual machine, about."""
    kernels = _Kernels()
    with kernels:
        work()
    kind = device.type if device.type in CALL else "cpu"
    return kernels.calls * CALL[kind] + kernels.multiplications / FLOPS[kind] + kernels.numbers / NUMBERS[kind]
