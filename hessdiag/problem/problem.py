"""The `Problem`: what every diagnostic is handed. A model, its data and a scalar objective of the two."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import HessdiagError, LoadError, SpecError
from hessdiag.numbers import counted
from hessdiag.problem import finite, layers, order
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.batches import indices
from hessdiag.problem.batches.data import given_batches
from hessdiag.problem.evaluation import kernels
from hessdiag.problem.evaluation.batch_norm import could_fold
from hessdiag.problem.evaluation.evaluator import Evaluator
from hessdiag.problem.layers import Layer
from hessdiag.problem.lightning import seen, step
from hessdiag.problem.losses import averages, recognised
from hessdiag.problem.losses import loss as losses
from hessdiag.problem.wrappers import unwrapped


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """A model, batches and an objective: the function of the parameters whose Hessian is measured.

    The function is the average of the objective over the batches, weighted by what the loss averages over: targets that
    are not ignored, elements of the output, or samples (a sum, if the loss sums).
    Parameters are the model's trainable ones, in the order of `model.parameters()`; tied ones count once.

    Args:
        model: The network. It is never modified: training flags and buffers are put back after each use.
        data: Batches: `(x, y)`, `((x1, x2), y)`, a mapping, or anything that `objective` takes; or a DataLoader or
            Dataset, of which the first batch is taken.
        loss: A name (`ce`, `mse`, `bce`, `nll`, `output`) or a function of (output, target).
        objective: A function of (model, batch) returning a scalar; instead of `loss`. A LightningModule brings its own.
        reduction: "mean" or "sum", where the loss does not tell.
        layers: Glob over parameter names; only the matching parameters are differentiated.
        train_mode: Evaluate in training mode (BatchNorm by batch statistics, dropout with one fixed mask).
        seed: Fixes the dropout mask.
        source: How it came to be, for the report: spec, files, what was stripped or assumed.
        notes: Sentences that a reader of the result must see.
        one_draw: Start torch's random numbers anew from `seed` in every evaluation, so that a model that draws some in
            its forward pass is one function: that of this draw.

    Raises:
        SpecError: if both or neither of `loss` and `objective` are given, or `layers` matches nothing.
        LoadError: if there is no batch or no trainable parameter, or a batch is not finite.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> problem = Problem(model, data=[(torch.zeros(4, 2), torch.zeros(4, 1))], loss="mse")
    >>> problem.n_parameters, problem.n_samples, [layer.name for layer in problem.layer_slices]
    (13, 4, ['0', '2'])
    """

    model: nn.Module
    data: Sequence[Any]
    loss: Any = None
    objective: losses.Objective | None = None
    reduction: losses.Reduction | None = None
    layers: str | None = None
    train_mode: bool = False
    seed: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    one_draw: bool = False

    def __post_init__(self) -> None:
        if self.loss is None and self.objective is None:
            object.__setattr__(self, "objective", step.objective_of(self.model))
        if (self.loss is None) == (self.objective is None):
            raise SpecError("a problem needs a loss or an objective, and not both.", "loss='ce'")
        given, more = given_batches(self.data, self.seed)
        vars(self).update(data=given, notes=(*self.notes, *more), model=unwrapped(self.model))
        finite.check_batches(self.data)
        self._leave_out_uncounted()
        layers.refuse_odd(self.model)
        if not self.named_parameters:
            layers.refuse_none(self.model, self.layers)

    def _leave_out_uncounted(self) -> None:
        """Batches in which no target counts: their mean is over nothing, NaN, and their weight is zero."""
        if len(self.data) == 1 or self.criterion is None or self.criterion.kind not in averages.CLASSES:
            return
        counted = [batch for batch in self.data if self.terms(batch).count]
        if left := len(self.data) - len(counted):
            note = f"data: {left} of {len(self.data)} batches are left out, for all their targets are ignored"
            vars(self).update(data=counted or self.data[:1], notes=(*self.notes, note))

    def __repr__(self) -> str:
        what = f"{self.n_parameters:,} parameters, {self.loss_name} of {counted(len(self.data), 'batch', 'batches')}"
        return f"<{type(self).__name__} of {type(self.model).__name__}: {what}>"

    @cached_property
    def criterion(self) -> losses.Loss | None:
        """`loss` as a function of (output, target), with what is known of it; `None` of `output` and an objective."""
        named = isinstance(self.loss, str) and self.loss == "output"
        return None if self.loss is None or named else losses.resolve(self.loss)

    @cached_property
    def loss_of_output(self) -> losses.Loss | None:
        """The loss as a function of what the model puts out; `None` where it is none, see `why_no_loss_of_output`.

        It is the loss itself; one that the model computes is compared with those that are known, on all batches.
        """
        return self.criterion or self._recognition.loss

    @property
    def why_no_loss_of_output(self) -> str:
        """Why the loss is no known function of the model's output."""
        return self._recognition.why_none

    @cached_property
    def _recognition(self) -> recognised.Recognition:
        if self.objective is not None:
            return seen.recognise(self.model, self.data, self.objective, self.evaluation)
        return recognised.recognise(self.model, self.data, self.parameters, self.evaluation)

    @cached_property
    def objective_function(self) -> losses.Objective:
        """The objective `(model, batch) -> scalar`: the one that was given, or the loss of the model's output."""
        if self.objective is not None:
            return self.objective
        return losses.objective(self.criterion) if self.criterion is not None else losses.output_loss

    @cached_property
    def named_parameters(self) -> tuple[tuple[str, nn.Parameter], ...]:
        """Trainable parameters that `layers` admits, each once."""
        return layers.trainable(self.model, self.layers)

    @cached_property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The tensors that the parameter vector consists of, in order."""
        return tuple(parameter for _, parameter in self.named_parameters)

    @cached_property
    def n_parameters(self) -> int:
        """Length N of the parameter vector."""
        return sum(parameter.numel() for parameter in self.parameters)

    @cached_property
    def _places(self) -> tuple[slice, ...]:
        stops = list(accumulate(parameter.numel() for parameter in self.parameters))
        return tuple(slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True))

    def places(self, layer: Layer | None = None) -> tuple[slice, ...]:
        """Where each parameter tensor, or each of one layer, lies in the parameter vector."""
        return tuple(place for place in self._places if layer is None or layer.start <= place.start < layer.stop)

    def parameters_of(self, layer: Layer | None = None) -> tuple[nn.Parameter, ...]:
        """All parameter tensors, or those of one layer."""
        own = {place.start for place in self.places(layer)}
        return tuple(item for item, place in zip(self.parameters, self._places, strict=True) if place.start in own)

    @cached_property
    def layer_slices(self) -> tuple[Layer, ...]:
        """Parameters grouped by the module that owns them, in the order of the parameter vector."""
        return layers.slices(self.model, self.named_parameters)

    @cached_property
    def _order(self) -> order.Order:
        """In which order the first batch meets the layers; one evaluation, watched."""
        owner = [index for index, layer in enumerate(self.layer_slices) for _ in self.parameters_of(layer)]
        batch = self.data[0]
        try:
            with self._evaluation(fold=False):  # folding would mix layers
                modules = self._evaluator.modules
                buffers = [item for module in modules for item in module._buffers.values() if item is not None]
                pairs = zip(owner, self.parameters, strict=True)
                return order.observed(pairs, buffers, batches.tensors(batch), lambda: self._evaluator.value(batch))
        except (HessdiagError, RuntimeError, NotImplementedError, TypeError, AttributeError, AssertionError):
            return order.by_registration(len(self.layer_slices))  # what fails here is said where it is needed

    @cached_property
    def executed_layers(self) -> tuple[Layer, ...]:
        """The layers of `layer_slices` in the order of their first use, those that are never used last."""
        return tuple(self.layer_slices[index] for index in self._order.sequence)

    @cached_property
    def depths(self) -> tuple[int | None, ...]:
        """How deep each of `executed_layers` lies, counted in layers that multiply by a matrix, from 1.

        `None` for what is not on the longest way from the data to the loss: norms, scalars of the loss, shortcuts.
        """
        return tuple(self._order.depths[index] for index in self._order.sequence)

    def terms(self, batch: Any) -> averages.Terms:
        """What the loss of a batch is a mean of, of this problem or of another of the same form."""
        if self.criterion is None:
            if self.objective is not None:
                with self.evaluation():
                    return seen.terms(self._recognition.loss, self.model, batch)
            return averages.of_labels(batch, lambda other: self.evaluate(other).detach())
        asked = averages.may_broadcast(self.criterion) and len(self.data) > 1  # else nothing hangs on it
        return averages.of_loss(self.criterion, batch, self.output(batch) if asked else None)

    def output(self, batch: Any) -> Any:
        """What the model puts out for a batch."""
        with self.evaluation(), indices.watched(self.model):  # and with gradients, which a model may need
            return batches.forward(self.model, batches.split(batch)[0])

    @cached_property
    def averaged(self) -> averages.Terms:
        """What the loss is a mean of, in all batches."""
        return averages.joined(self._terms)

    @cached_property
    def _terms(self) -> tuple[averages.Terms, ...]:
        return tuple(map(self.terms, self.data))

    @cached_property
    def n_samples(self) -> int:
        """Samples in all batches, see `batch.samples`."""
        return sum(batches.samples(batch) for batch in self.data)

    @cached_property
    def n_targets(self) -> int:
        """Targets in all batches: samples, but of cross-entropy each token, node or pixel that has a target."""
        return self.averaged.positions

    @cached_property
    def n_outputs(self) -> int | None:
        """Numbers that the loss receives of the model per target; `None` where only an objective is known."""
        return None if self.criterion is None else self._outputs_per_target(self.output(self.data[0]))

    def remember(self, output: Any) -> None:
        """Take what the model puts out for the first batch from who has computed it, for `n_outputs`."""
        vars(self)["n_outputs"] = None if self.criterion is None else self._outputs_per_target(output)

    def _outputs_per_target(self, output: Any) -> int | None:
        numbers = self.criterion.numbers(output) if self.criterion is not None else 0
        return numbers // max(self._terms[0].positions, 1) if numbers else None

    @cached_property
    def loss_name(self) -> str:
        """Name of the loss, for people."""
        own = "output" if self.objective is None else getattr(self.objective, "__name__", "objective")
        return own if self.criterion is None else self.criterion.name

    @cached_property
    def loss_reduction(self) -> losses.Reduction:
        """How the loss joins samples: a mean and a sum scale the Hessian differently."""
        known = self.criterion if self.objective is None else self._recognition.loss
        return self.reduction or (known.reduction if known is not None else "unknown")

    @cached_property
    def batch_weights(self) -> tuple[float, ...]:
        """Weight of each batch's objective in the whole: 1 for a sum, else its share of what the loss averages over."""
        if self.loss_reduction == "sum":
            return (1.0,) * len(self.data)
        if not self.averaged.count:
            raise LoadError("every target is ignored (-100): the loss is a mean over nothing.")
        return tuple(terms.count / self.averaged.count for terms in self._terms)

    @property
    def rewritten(self) -> tuple[str, ...]:
        """Parameters that the model's own forward pass changes; empty until one was run."""
        return self._evaluator.rewritten

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    @cached_property
    def dtype(self) -> torch.dtype:
        """The widest dtype among the parameters."""
        return layers.dtype(self.parameters)

    @cached_property
    def kernels_forced(self) -> tuple[str, ...]:
        """What is switched off because it has no second derivative."""
        return kernels.forced(self.model, self._evaluator.modules, self.device)

    @property
    def is_alone(self) -> bool:
        """Whether an evaluation needs no other process, and may be made by one alone."""
        return True

    @cached_property
    def _folds(self) -> bool:
        """Whether batch norm can become part of convolutions: only if value and gradient of the first batch stay."""
        # They do not where a convolution's output is detached, changed by `.data`, hooked, or differentiated by.
        if self.train_mode or not could_fold(self._evaluator.modules):
            return False
        try:
            plain, folded = (self._value_and_gradient(fold) for fold in (False, True))
        except (HessdiagError, RuntimeError):
            return False
        close = torch.finfo(self.dtype).eps ** 0.5
        return all(bool((a - b).norm() <= close * a.norm()) for a, b in zip(plain, folded, strict=True))

    def as_written(self, **changes: Any) -> "Problem":
        """A copy with these attributes changed in which nothing is folded: for gradients, and for what checks it."""
        other = self.like(**changes)
        vars(other)["_folds"] = False
        return other

    def like(self, **changes: Any) -> "Problem":
        """A copy with these attributes changed, for the same loss and function.

        What the loss was recognised as stays, and that an evaluation rewrote parameters: its private copy is kept.
        """
        other = replace(self, **changes)
        if "_recognition" in vars(self):
            vars(other)["_recognition"] = self._recognition
        if self.rewritten:
            other._evaluator.rewritten, other._evaluator.harmless = self.rewritten, self._evaluator.harmless
        return other

    def _value_and_gradient(self, fold: bool) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), self._evaluation(fold):
            return self.slopes(self._evaluator.value, self.data[0])

    def slopes(self, f: Callable[[Any], Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        """What an evaluation f gives, and its slopes along the parameters; where these are spread, along some."""
        slopes = torch.autograd.grad(value := f(batch), self.parameters, materialize_grads=True, allow_unused=True)
        return value.detach(), torch.cat([part.reshape(-1).to(self.dtype) for part in slopes])

    def draw_once(self) -> None:
        """Go on with `one_draw`: the function is that of one draw from here on."""
        object.__setattr__(self, "one_draw", True)
        self._evaluator.one_draw = True

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Everything that an evaluation needs, undone afterwards: mode, buffers, random state, kernels, arithmetic."""
        with self._evaluation(self._folds):
            yield

    @contextmanager
    def _evaluation(self, fold: bool) -> Iterator[None]:
        try:
            with self._evaluator.evaluation(fold=fold):
                yield
        finally:
            self._keep_up()

    @cached_property
    def _evaluator(self) -> Evaluator:
        where = self.source.get("weights") or self.source.get("model") or "the model"
        return Evaluator(
            model=self.model,
            data=self.data,
            objective=self.objective_function,
            device=self.device,
            where=where,
            train_mode=self.train_mode,
            one_draw=self.one_draw,
            seed=self.seed,
        )

    def _keep_up(self) -> None:
        """Take the private copy of the model, where an evaluation has put one in its place."""
        if self._evaluator.model is not self.model:
            object.__setattr__(self, "model", self._evaluator.model)
            for name in ("named_parameters", "parameters"):
                vars(self).pop(name, None)

    def value(self) -> float:
        """The function whose Hessian is measured: the objective of all batches, each in its weight.

        Raises:
            ComputeError: if a value is not a finite scalar, or model, batch and loss do not fit.

        >>> model = nn.Linear(1, 1, bias=False).double()
        >>> _ = nn.init.ones_(model.weight)
        >>> batches = [(torch.ones(1, 1).double(), torch.zeros(1, 1).double()), (torch.zeros(3, 1), torch.zeros(3, 1))]
        >>> Problem(model, data=[(x.double(), y.double()) for x, y in batches], loss="mse").value()
        0.25
        """
        pairs = zip(self.batch_weights, self.data, strict=True)
        return sum(weight * float(self.evaluate(batch).detach()) for weight, batch in pairs)

    def evaluate(self, batch: Any) -> Tensor:
        """The objective of one batch, a scalar with a graph that can be differentiated twice.

        Raises:
            ComputeError: if the value is not a finite scalar, or model, batch and loss do not fit.
        """
        try:
            return self._evaluator.evaluate(batch, fold=self._folds)
        finally:
            self._keep_up()

    @contextmanager
    def asked_once(self) -> Iterator[None]:
        """Ask a GPU at the end whether the values of all evaluations within are finite: each time it is waited for.

        Raises:
            ComputeError: if one of them is not.
        """
        with self._evaluator.asked_once():
            yield
