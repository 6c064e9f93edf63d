"""A problem whose parameters are spread over processes, and how a whole one becomes one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor

from hessdiag.errors import NotFiniteError
from hessdiag.machine import meeting
from hessdiag.machine.collectives import summed
from hessdiag.machine.memory import apart
from hessdiag.machine.processes import together
from hessdiag.machine.ranks import ranks
from hessdiag.problem import order
from hessdiag.problem.evaluation.evaluator import Evaluator
from hessdiag.problem.evaluation.guard import idle_checkpoints
from hessdiag.problem.layers import Layer
from hessdiag.problem.loading.cutting import CUTS, Cut
from hessdiag.problem.losses import averages, recognised
from hessdiag.problem.problem import Problem
from hessdiag.shards import agreement, refuse, samples
from hessdiag.shards.exchanges import END, meet_at
from hessdiag.shards.graphs import refuse_passed
from hessdiag.shards.kinds import KINDS
from hessdiag.shards.layout import Layout, layout_of
from hessdiag.shards.placeholder import OutsideUnitError, Placeholder, hollow, noting
from hessdiag.shards.units import Units
from hessdiag.shards.vocabulary.streamed import all_logits

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class ShardedProblem(Problem):
    """A problem of which each process keeps a piece of every parameter, and evaluates its own samples.

    It is made by `sharded`, or loaded so. The model's parameters are placeholders that know their shape, so that names,
    layers and places in a whole vector are as ever; the numbers are in `pieces`. Every process is given the same
    batches.

    >>> import torch
    >>> model = torch.nn.Linear(3, 1).double()
    >>> problem = sharded(Problem(model, data=[(torch.ones(4, 3).double(), torch.zeros(4, 1).double())], loss="mse"))
    >>> problem.n_parameters, [tuple(piece.shape) for piece in problem.pieces], problem.layout.own
    (4, [(3,), (1,)], 4)

    Attributes:
        units: The modules that gather their parameters, compute and let go.
    """

    units: Units | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units is None:
            apart()
            meeting.spread()
            object.__setattr__(self, "units", Units(self.model, KINDS))

    @cached_property
    def layout(self) -> Layout:
        """Where each parameter's numbers lie."""
        return layout_of(self.named_parameters, *ranks())

    @property
    def pieces(self) -> tuple[Tensor, ...]:
        """This process's numbers of each differentiated parameter, flat and padded: the leaves of its graphs."""
        return tuple(parameter.piece for parameter in self.parameters if isinstance(parameter, Placeholder))

    def pieces_of(self, layer: Layer | None = None) -> tuple[Tensor, ...]:
        """All pieces, or those of one layer."""
        pairs = zip(self.pieces, self.places(), strict=True)
        return tuple(piece for piece, place in pairs if layer is None or layer.start <= place.start < layer.stop)

    def evaluate(self, batch: Any) -> Tensor:
        """This process's share of the objective of one batch: the sum over all processes is the whole.

        Raises:
            ComputeError: if the whole is not a finite scalar, or model, batch and loss do not fit.
        """
        own, weight = self.own_share(batch)
        value = self._alone(own) * weight
        whole = summed(value.detach())
        if not bool(whole.isfinite()):
            raise NotFiniteError(
                f"the loss is {whole.item()}.",
                "--dtype float64, smaller inputs or weights, or a loss without logarithms of zero",
            )
        return value

    def value(self) -> float:
        """The function whose Hessian is measured: the objective of all batches, each in its weight; of all processes.

        Raises:
            ComputeError: if a value is not a finite scalar, or model, batch and loss do not fit.
        """
        pairs = zip(self.batch_weights, self.data, strict=True)
        return sum(weight * float(summed(self.evaluate(batch).detach())) for weight, batch in pairs)

    def terms(self, batch: Any) -> averages.Terms:
        """What the loss of a batch is a mean of; each process asks the model about all samples."""
        if self.criterion is None and self.objective is None:
            return averages.of_counted_labels(batch, self._skips)
        return super().terms(batch)

    def _alone(self, batch: Any) -> Tensor:
        """The objective of a batch in this process alone; whether it is finite is not asked."""
        evaluator = self._evaluator
        evaluator.unasked = []
        try:
            with noting():
                return self.enlarging(partial(_by_units, evaluator, batch))
        finally:
            evaluator.unasked = None

    def enlarging(self, compute: Callable[[], T]) -> T:
        """What something gives that runs the model, with units made larger until each parameter is used in its own.

        Raises:
            ComputeError: if the model ran other modules in another process.
        """
        assert self.units is not None
        while True:
            try:
                found = compute()
            except OutsideUnitError as error:
                self.units.enlarge(error)
            else:
                meet_at(END, "its end")
                return found

    @cached_property
    def _evaluator(self) -> Evaluator:
        evaluator = super()._evaluator
        evaluator.harmless = True  # what a forward pass writes to is gathered anew
        evaluator.checkpoints = idle_checkpoints  # units run again by themselves
        return evaluator

    @cached_property
    def _recognition(self) -> recognised.Recognition:
        if self.objective is not None:
            return recognised.OF_AN_OBJECTIVE
        own = [self.own_share(batch)[0] for batch in self.data]

        def everywhere(forms: Sequence[recognised.Form]) -> list[recognised.Form]:
            agree = summed(torch.tensor([float(form in forms) for form in recognised.FORMS])).tolist()
            return [form for form, count in zip(recognised.FORMS, agree, strict=True) if count == ranks()[1]]

        with all_logits():
            return self.enlarging(
                lambda: recognised.recognise(self.model, own, self.pieces, self.evaluation, everywhere=everywhere)
            )

    def own_share(self, batch: Any) -> tuple[Any, float]:
        """This process's samples of a batch, and what their objective weighs in the whole."""
        rank, size = ranks()
        if size == 1 or self.cut is None:
            return batch, 1 / size
        part = samples.parts(batch, size, self._count, sums=self.loss_reduction == "sum", cut=self.cut)[rank]
        return (part.batch, part.weight) if self._adds_up(batch, part) else (batch, 1 / size)

    def _adds_up(self, batch: Any, part: samples.Part) -> bool:
        """Whether parts of this batch make the whole: of an objective of one's own it is asked for each, once."""
        if self.criterion is not None or self.objective is None:
            return True
        known = self._adding_up.get(id(batch))
        if known is None:
            known = samples.adds_up(batch, part, self._alone, self.dtype)
            if any(batch is own for own in self.data):  # others come and go, and their numbers with them
                self._adding_up[id(batch)] = known
        return known

    @cached_property
    def _adding_up(self) -> dict[int, bool]:
        return {}

    @cached_property
    def cut(self) -> Cut | None:
        """How batches are cut to the processes' own samples; `None` if each evaluates whole batches."""
        several = (batch for batch in self.data if max(cut.length(batch) for cut in CUTS) > 1)
        batch = next(several, None)
        if batch is None or ranks()[1] == 1:
            return CUTS[0]
        sums = self.loss_reduction == "sum"
        with self.evaluation():
            return samples.proven(batch, self._alone, self.pieces, self._count, sums=sums)

    def _count(self, part: Any) -> float:
        """What a mean over some samples is divided by."""
        if self.criterion is not None:
            return averages.of_loss(self.criterion, part).count
        if self.objective is not None:
            return averages.of_batch(part).count
        return averages.of_counted_labels(part, self._skips).count

    @cached_property
    def _skips(self) -> bool:
        return averages.skips_first(self.data[0], lambda other: self._alone(other).detach())

    def refuse(self, before: Iterable[refuse.Found]) -> None:
        """Refuse what one evaluation of a few samples shows, which would be wrong of a sharded problem.

        Args:
            before: Parameters that the model had before it was sharded.

        Raises:
            LoadError: saying what it is, and what works.
        """
        assert self.units is not None
        refuse.evaluated(self, self.units.every, self.own_share(self.data[0])[0], before)

    def slopes(self, f: Callable[[Any], Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        """The whole of which f gives this process's share, and its slopes along the smallest parameters."""
        return samples.value_and_slopes(partial(f, batch), self.pieces)

    def like(self, **changes: Any) -> "ShardedProblem":
        """A copy with these attributes changed; how batches are cut stays."""
        other = super().like(**changes)
        assert isinstance(other, ShardedProblem)
        if "cut" in vars(self):
            vars(other)["cut"] = self.cut
        return other

    @property
    def is_alone(self) -> bool:
        """Whether there is one process."""
        return not together()

    @property
    def _folds(self) -> bool:
        return False  # convolutions and batch norm may be different units

    @cached_property
    def _order(self) -> order.Order:
        return order.by_registration(len(self.layer_slices))


def _by_units(evaluator: Evaluator, batch: Any) -> Tensor:
    """The objective of a batch, whose graph leads through the results of units."""
    value = evaluator.evaluate(batch, fold=False)
    refuse_passed(value)
    return value


def sharded(problem: Problem) -> ShardedProblem:
    """The same problem, of which this process keeps only a piece of each parameter.

    To be called in every process, with the same problem; with one process it is the way to need less memory. The
    problem and its model stay as they are; drop them (`del problem, model`), and their memory is given back.

    Args:
        problem: Built whole in every process.

    Raises:
        LoadError: if the model cannot be copied, if processes have different models or batches, or if derivatives of
            the sharded model would be wrong: it drops at random, takes statistics of the batch, rewrites parameters.
        ComputeError: if the loss of the first batch is not a finite scalar.

    Example: a loss by pieces.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> problem = Problem(model, data=[(torch.ones(1, 1).double(), torch.zeros(1, 1).double())], loss="mse")
    >>> round(sharded(problem).value() - problem.value(), 12)
    0.0
    """
    if isinstance(problem, ShardedProblem):
        return problem
    whole = problem.model
    refuse.model(whole, train_mode=problem.train_mode)
    agreement.same_problem(problem, agreement.MODELS)
    given = {field.name: getattr(problem, field.name) for field in fields(Problem)}
    made = ShardedProblem(**{**given, "model": hollow(whole, *ranks())})
    made.evaluate(made.data[0])
    made.refuse([ref(parameter) for parameter in whole.parameters()])
    return made
