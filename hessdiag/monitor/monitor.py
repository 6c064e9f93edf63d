"""`Monitor`: curvature along a training run, at most so often and within a share of training's time."""

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

import torch

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import SpecError, said
from hessdiag.machine.shortage import ran_out
from hessdiag.monitor.budget import Budget, share_of
from hessdiag.monitor.look import QUANTITIES, USUALLY, WITHOUT_PRODUCTS, Here, clock, measured, planned, probe, tops
from hessdiag.monitor.outlets import Outlets
from hessdiag.monitor.tracking import COLD, WARM, Found
from hessdiag.monitor.untouched import untouched
from hessdiag.optimizers.recipe import of_gradients, recipe, settings_of
from hessdiag.problem.describe import describe
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.provenance import versions
from hessdiag.questions.report.run.record import SCHEMA, Reading, Record
from hessdiag.suggest import meant

TRIES = 3  # of a quantity that fails, one look after the other, before it is tried no more


class Monitor:
    """Looks at a model while it is trained, and leaves training as it is.

    Call `step()` after each step of the optimizer. Every so many steps it measures the chosen quantities at the live
    weights, unless that would take more than its share of training's time: then that is recorded, and the look is made
    at the first step at which there is time for it. A look that fails is recorded and warned of once; it never ends the
    training.

    Random numbers, gradients, modes, buffers and hooks are as they were: training is the same to the bit with and
    without it. Largest eigenvalues go on from the last look's eigenvectors, by at most 5 products; they are mostly
    within 2 % of the converged value, which is typical and not guaranteed: `converged` and `stderr` say of each.

    Args:
        problem: The model that is trained, as it is, and the fixed batches and loss that it is looked at with. A batch
            as large as training's makes a product about as long as three training steps.
        every: Steps between looks, at least.
        budget: Share of training's own time that all looks may take, as "5%" or 0.05; `None` for no limit. A look that
            there is no time for when it is due is made as soon as there is.
        optimizer: That trains the model: for `sharpness`, against the threshold of its present settings.
        quantities: Of "loss", "gradient_norms" (per layer), "lambda_max", "sharpness" (curvature in the optimizer's
            metric over its threshold), "negative_curvature" (the lowest Ritz value), "trace" and "diag_share". Default:
            the first four, `sharpness` with an optimizer only; the others take up to 8, 10 and 72 products more.
        log: A file of JSON lines, or a function that is called with each line as a dict.
        resume: Add to a file that is there, if it is of the same run; otherwise such a file is refused.
        tensorboard: A `SummaryWriter`, or the folder of a new one.
        wandb: A run of Weights & Biases, as `wandb.init()` gives it.
        seed: Of the random vectors.

    Attributes:
        records: Of all looks so far, and of those that were left out or failed.

    Raises:
        SpecError: if an argument cannot be meant so, or the file is there already.
        LoadError: if the file cannot be written, or a package is missing.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> x, y = torch.randn(8, 2), torch.randn(8, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> problem = Problem(model, data=[(x, y)], loss="mse")
        >>> with Monitor(problem, every=5, budget=None, optimizer=optimizer) as monitor:
        ...     for _ in range(10):
        ...         optimizer.zero_grad()
        ...         torch.nn.functional.mse_loss(model(x), y).backward()
        ...         optimizer.step()
        ...         record = monitor.step()
        >>> [record.step for record in monitor.records], sorted(record.readings)
        ([5, 10], ['gradient_norms', 'lambda_max', 'loss', 'sharpness'])
    """

    def __init__(
        self,
        problem: Problem,
        every: int = 50,
        budget: str | float | None = "5%",
        *,
        optimizer: torch.optim.Optimizer | None = None,
        quantities: Sequence[str] | None = None,
        log: str | os.PathLike[str] | Callable[[dict[str, Any]], object] | None = None,
        resume: bool = False,
        tensorboard: Any = None,
        wandb: Any = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(problem, Problem) or problem.rewritten:
            raise SpecError(
                "a monitor takes a hessdiag.Problem of the live model, of one process, that was not measured before.",
                "hessdiag.Monitor(hessdiag.Problem(model, data=[batch], loss='ce'))",
            )
        if not isinstance(every, int) or every < 1:
            raise SpecError(f"every is a number of steps, not {every!r}.", "every=50")
        self._problem, self._model, self._optimizer = problem, problem.model, optimizer
        self._every, self._seed = every, seed
        self._budget = Budget(share_of(budget))
        self._asked = _chosen(quantities, optimizer, problem)
        self._planned = planned(self._asked, optimizer)  # products
        self._tops: dict[str, Found] = {}
        self._failures: Counter[str] = Counter()
        self._steps = 0
        self._when = math.inf  # there is time for a look that there was none for when it was due
        self.records: list[Record] = []
        header = self._header(budget)
        self._outlets = Outlets(header, log, resume=resume, tensorboard=tensorboard, wandb=wandb)
        self._steps = self._outlets.last or 0
        self._next = self._after(self._steps)

    def step(self, step: int | None = None) -> Record | None:
        """Say that the optimizer has stepped; look, if it is time.

        Args:
            step: How many steps were made. Default: counted here; of a log that is resumed, from its last record on.

        Returns:
            What was found, or why a look that was due was left out; `None` where none was due.
        """
        self._steps = self._steps + 1 if step is None else step
        if self._budget.began is None:
            self._budget.began, self._budget.first = time.perf_counter(), self._steps
            self._next = self._after(self._steps - 1)
        due = self._steps >= self._next
        if not self._asked or not (due or (time.perf_counter() >= self._when and self._affords(time.perf_counter()))):
            return None
        self._next = self._steps + self._every
        record = self._due()
        self._when = self._affordable() if record.skipped or record.left_out else math.inf
        self.records.append(record)
        self._outlets.write(record)
        return record

    def close(self) -> None:
        """Close the log, and what was opened for TensorBoard. Nothing is looked at any more.

        A run in which no look at the curvature fitted the budget is warned of.
        """
        rest = [name for name in self._asked if name not in WITHOUT_PRODUCTS]
        seen = any(name in record.readings or name in (record.failed or ()) for record in self.records for name in rest)
        if self.records and rest and not seen:
            self._outlets.warn(
                ["budget"],
                f"none of {len(self.records)} looks had {' or '.join(rest)}: too small a budget for so short a run. "
                "A smaller fixed batch, a larger budget or budget=None gives some.",
            )
        self._asked = ()
        self._outlets.close()

    def __enter__(self) -> "Monitor":
        """The monitor itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _after(self, step: int) -> int:
        """The next step at which a look is due."""
        return (step // self._every + 1) * self._every

    def _due(self) -> Record:
        """A look, if the budget allows."""
        budget, device = self._budget, self._problem.device
        began = clock(device)
        if not self._affords(began):
            why = _beyond("a look takes", self._price(began), budget.left(began))
            return Record(step=self._steps, skipped=why, share=round(budget.used(began), 6))
        try:
            record = self._look(began)
        except Exception as error:  # whatever it is, training goes on
            record = self._judged({}, {}, dict.fromkeys(self._asked, said(error)))
        seconds = clock(device) - began
        budget.spent += seconds
        return replace(record, seconds=round(seconds, 6), share=round(budget.used(began + seconds), 6))

    def _affordable(self) -> float:
        """When there will be time for a look, if training goes on."""
        now = time.perf_counter()
        return now + max(self._price(now) - self._budget.left(now), 0.0) / self._budget.share

    def _affords(self, now: float) -> bool:
        return self._price(now) <= self._budget.left(now)

    def _price(self, now: float) -> float:
        """Seconds that a look is expected to take."""
        single = self._budget.trained(now) / max(self._steps - self._budget.first, 1)
        return self._budget.look(self._planned, single)

    def _look(self, began: float) -> Record:
        """All that was asked for, as far as the budget reaches."""
        budget, device = self._budget, self._problem.device
        products, searches = self._planned, tops(self._asked, self._optimizer)
        readings: dict[str, Reading] = {}
        failed: dict[str, str] = {}
        rest = [name for name in self._asked if name not in WITHOUT_PRODUCTS]
        with untouched(self._model, device):
            problem = self._problem.as_written(model=self._model)
            operator = HessianOperator(problem, check=False)
            here = Here(problem, operator, self._optimizer, self._tops, self._seed + self._steps)
            _measure(here, [name for name in self._asked if name in WITHOUT_PRODUCTS], readings, failed)
            first = clock(device)
            budget.learn(first - began)
            why, left = None, budget.left(began) - (first - began)
            if budget.probing and rest and not failed:
                probe(here)
                budget.learn_products(clock(device) - first, 1)
                left -= clock(device) - first
                if (seconds := budget.products(products)) > left:
                    why = _beyond(f"{products} products take", seconds, left)
            if why is None:
                first = clock(device)
                here.cold = WARM + int(min(budget.spare(left, products) / max(len(searches), 1), COLD - WARM))
                _measure(here, rest, readings, failed)
                budget.learn_products(clock(device) - first, sum(one.products for one in readings.values()))
            self._tops.update(here.found)
        return self._judged(readings, {} if why is None else dict.fromkeys(rest, why), failed)

    def _judged(self, readings: dict[str, Reading], left_out: dict[str, str], failed: dict[str, str]) -> Record:
        """The record; what has failed too often is tried no more."""
        for name in readings:
            self._failures[name] = 0
        self._failures.update(failed.keys())
        hopeless = tuple(name for name in failed if self._failures[name] >= TRIES)
        self._asked = tuple(name for name in self._asked if name not in hopeless)
        self._planned = planned(self._asked, self._optimizer)
        for why in dict.fromkeys(failed.values()):
            same = [name for name in failed if failed[name] == why]
            self._outlets.warn(same, f"{', '.join(same)} failed at step {self._steps}, and training goes on: {why}")
        return Record(
            step=self._steps,
            readings=readings,
            products=sum(reading.products for reading in readings.values()),
            left_out=left_out or None,
            failed=failed or None,
            gave_up=hopeless or None,
        )

    def _header(self, budget: str | float | None) -> dict[str, Any]:
        """The first line of a log."""
        with untouched(self._model, self._problem.device):
            described = describe(self._problem.as_written())
        own = self._optimizer
        return {
            "schema": SCHEMA,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "problem": described,
            "optimizer": None if own is None else {"kind": type(own).__name__, "settings": settings_of(own)},
            "every": self._every,
            "budget": budget,
            "quantities": self._asked,
            "seed": self._seed,
            "versions": versions(),
        }


def _chosen(
    quantities: Sequence[str] | None, optimizer: torch.optim.Optimizer | None, problem: Problem
) -> tuple[str, ...]:
    """The quantities, in the order in which they are measured.

    Raises:
        SpecError: if there is no such quantity, or the optimizer does not go with the model.
    """
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise SpecError(
            f"optimizer is the one that trains the model, not a {type(optimizer).__name__}.", "optimizer=optimizer"
        )
    if optimizer is not None:
        of_gradients(recipe(optimizer, None, model=problem.model))
    if isinstance(quantities, str):
        quantities = (quantities,)
    for name in quantities or ():
        if name not in QUANTITIES:
            near = meant(str(name), QUANTITIES) or next(iter(QUANTITIES))
            what = f"a quantity is one of {', '.join(QUANTITIES)}, not {name!r}."
            raise SpecError(what, f'quantities=["{near}"]')
    if "sharpness" in (quantities or ()) and optimizer is None:
        raise SpecError("sharpness is against an optimizer's threshold, and none was given.", "optimizer=optimizer")
    wanted = USUALLY if quantities is None else quantities
    return tuple(name for name in QUANTITIES if name in wanted and (name != "sharpness" or optimizer is not None))


def _beyond(what: str, seconds: float, left: float) -> str:
    """Why something is not done that the budget does not allow."""
    return f"{what} about {seconds:.2g} s, and {max(left, 0):.2g} s of the budget are left"


def _measure(here: Here, names: Sequence[str], readings: dict[str, Reading], failed: dict[str, str]) -> None:
    """Measure each, and note what fails."""
    for name in names:
        try:
            readings[name] = measured(here, name)
            continue
        except Exception as error:  # whatever it is, training goes on
            failed[name] = said(error)
            short = ran_out(error)
        if short:  # now that the error holds no tensors any more
            here.operator.forget()
            if here.problem.device.type == "cuda":
                torch.cuda.empty_cache()
