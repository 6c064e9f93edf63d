"""How near a run is to what its optimizer stands, looked at now and then: a few products, which are not the run's."""

import math

import torch
from torch import Tensor, nn

from hessdiag.curvature.differences import NoDoubleBackwardError, refuse_cut
from hessdiag.curvature.local import LocalHessian
from hessdiag.curvature.metric import Scaled
from hessdiag.errors import HessdiagError, said
from hessdiag.machine.memory import free_bytes
from hessdiag.machine.shortage import ran_out
from hessdiag.optimizers.closure import ClosureOptimizer
from hessdiag.optimizers.state.denominators import NEEDED
from hessdiag.optimizers.state.held import of_instance
from hessdiag.optimizers.state.seen import Preconditioning, of_state
from hessdiag.questions.escape.contenders import Entrant
from hessdiag.questions.escape.result import Stability
from hessdiag.questions.escape.runs.counting import Tally
from hessdiag.questions.escape.runs.draws import whole
from hessdiag.questions.escape.runs.leading import MOST, leading
from hessdiag.questions.escape.runs.watch import Watch
from hessdiag.questions.escape.start import Start

APART = 3  # a look at three times as many steps as at the last one
SHARE, FIRST = 0.1, 8  # products per backpropagation of the run, and those that it may begin with
ROSE = 0.1  # of the reference loss, above the lowest so far: then it is looked at once more
ALARMS = 3  # times that it is, for that


class StabilityLooks:
    """Looks at the largest curvature in the metric of a run's optimizer.

    Args:
        start: Where the run starts.
        entrant: What runs.
        model: What is trained.
        optimizer: Trains it.

    Attributes:
        why: Why there is none, where it could not be measured.
    """

    def __init__(self, start: Start, entrant: Entrant, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._start, self._entrant, self._model, self._optimizer = start, entrant, model, optimizer
        self._looks: list[tuple[int, int, float, float]] = []
        self._threshold = 2.0
        self._products, self._due, self._alarms = 0, 0, ALARMS
        self._vector: Tensor | None = None
        self._lowest = math.inf
        self._off = isinstance(optimizer, ClosureOptimizer)
        self.why = ""

    @property
    def found(self) -> Stability | None:
        """What was seen."""
        if not self._looks:
            return None
        steps, backprops, ratios, losses = zip(*self._looks, strict=True)
        return Stability(
            steps=steps,
            backprops=backprops,
            ratio=ratios,
            loss=losses,
            threshold=self._threshold,
            products=self._products,
        )

    def look(self, watch: Watch, tally: Tally, *, last: bool = False) -> None:
        """Look, if it is time: at three times as many steps each time, at the end, and where the loss has risen.

        Args:
            watch: What was seen of the loss.
            tally: What the run has cost.
            last: Whether the run is over.
        """
        level = watch.levels[0].loss / watch.levels[0].share if watch.levels[0].share else 0.0
        alarmed = self._alarms > 0 and watch.last > self._lowest + ROSE * abs(level)
        self._lowest = min(self._lowest, watch.last)
        affordable = self._products <= FIRST + SHARE * tally.backprops
        if self._off or not math.isfinite(watch.last):
            return
        if not (alarmed or (affordable and (last or tally.steps >= self._due))):
            return
        if self._looks and self._looks[-1][0] == tally.steps:
            return
        self._alarms -= alarmed
        self._due = max(APART * tally.steps, 1)
        try:
            self._measure(tally)
        except NoDoubleBackwardError as error:
            self._off, self.why = True, str(error)
        except (HessdiagError, RuntimeError, NotImplementedError, MemoryError) as error:
            self._off, self.why = True, "memory ran out" if ran_out(error) else said(error)

    def _measure(self, tally: Tally) -> None:
        made = self._made()
        if made is None:
            return
        if made.threshold is None:
            self._off = True
            return
        problem = self._start.problem
        parameters = dict(self._model.named_parameters())
        tensors = [parameters[name] for name, _ in problem.named_parameters]
        if (MOST + 4) * problem.n_parameters * problem.dtype.itemsize > free_bytes(problem.device) // 2:
            self._off, self.why = True, "its vectors do not fit in memory"
            return
        draw = whole(problem, self._entrant.samples)
        with torch.enable_grad():
            value = draw.loss(problem, self._model)
            refuse_cut([value])
            hessian = LocalHessian(value, tensors)
            metric = made.metric(problem)
            scale = None if metric is None else metric.to(hessian.dtype).rsqrt()
            matrix = Scaled(hessian, scale, made.weight_decay if made.coupled else 0.0)
            top = leading(matrix, self._vector, seed=len(self._looks))
        self._products += top.products
        self._threshold = made.threshold
        if math.isfinite(top.value):
            self._vector = top.vector
            ratio = made.lr * max(top.value, 0.0) / made.threshold
            self._looks.append((tally.steps, tally.backprops, ratio, float(value.detach())))

    def _made(self) -> Preconditioning | None:
        """What the optimizer makes of gradients now; `None` before it has a state, where it needs one."""
        state = of_instance(self._optimizer, self._model, lambda _: self._optimizer)
        if state.origin == "gradients" and state.kind.lower() in NEEDED:
            return None
        return of_state(self._start.problem, state)
