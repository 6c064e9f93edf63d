"""Batches that suit the model, and a loss that suits both: those asked for, or those that they suggest."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from hessdiag.errors import HessdiagError, LoadError
from hessdiag.machine.shortage import ran_out
from hessdiag.problem import finite
from hessdiag.problem.batches import batch as batch_forms
from hessdiag.problem.batches import data
from hessdiag.problem.batches.data import ALL
from hessdiag.problem.batches.images import Images
from hessdiag.problem.batches.known import Known
from hessdiag.problem.batches.pictures import Pictures
from hessdiag.problem.lightning.step import TrainingStep
from hessdiag.problem.loading import cutting, fit, naming, own_loss, synthetic, synthetic_step
from hessdiag.problem.loading.request import Parts, Session
from hessdiag.problem.losses import loss as losses


def suited(session: Session, parts: Parts, model: nn.Module) -> tuple[list[Any], Any]:
    """Batches, moved to the model, and the loss: the one asked for or the one that they suggest."""
    request, loss = session.request, parts.loss
    free_form = parts.free_form
    if parts.data is None:
        count = None if request.batches == ALL else request.batches
        size = request.batch_size or request.samples
        if loss in (None, "output") and parts.objective is None and own_loss.computes_loss(model):
            loss = "output"
            taken, notes = own_loss.make(model, batch_size=size, batches=count, seed=request.seed)
        elif isinstance(parts.objective, TrainingStep):
            taken, notes = synthetic_step.make(
                model, parts.objective, batch_size=size, batches=count, seed=request.seed
            )
        else:
            loss = session.usual_loss if loss is None and not free_form else loss
            taken, notes = synthetic.make(model, loss, batch_size=size, batches=count, seed=request.seed)
        taken = [batch_forms.placed(batch, model) for batch in taken]
        session.notes += notes
    else:
        taken, notes = data.as_batches(
            parts.data,
            batches=request.batches,
            batch_size=request.batch_size or request.samples,
            free_form=free_form,
            seed=request.seed,
            cut=_first_rows if request.samples else _Cutter(parts, model, session, request.data or ""),
        )
        session.drawn(taken)
        taken, loss, more = _given(parts, model, taken, request.data or "")
        session.notes += [*notes, *more]
    if loss is not parts.loss:
        own = "the model's own, of the labels" if own_loss.takes_labels(model) else "the model's own"
        why = own if loss == "output" else "assumed"
        session.notes.append(f"loss: {loss}, {why}; --loss {'|'.join(losses.NAMES)} changes it")
    return taken, loss


def _given(parts: Parts, model: nn.Module, batches: list[Any], where: str) -> tuple[list[Any], Any, list[str]]:
    """Batches that were given, as the model takes them, the loss asked for or the one that they suggest, and notes."""
    notes: list[str] = []
    loss = parts.loss
    taken = [batch_forms.placed(batch, model) for batch in batches]
    try:
        finite.check_batches(taken, f"{where} in the model's dtype".strip(), "--dtype float64, or smaller numbers")
    except LoadError:
        finite.check_batches(batches, where)  # whether they came like this is said first
        raise
    if isinstance(parts.data, Known):
        notes += parts.data.notes
    if isinstance(parts.data, (Images, Pictures)):
        taken, more = fit.flattened(model, taken)
        notes += more
    if parts.objective is None:
        taken, more = naming.suited(model, taken)
        notes += more
        taken, more = own_loss.labelled(model, loss, taken)
        notes += more
        loss = fit.default_loss(model, taken[0]) if loss is None else loss
    return taken, loss, notes


def _first_rows(batch: Any, size: int) -> list[Any]:
    """At most so many samples of a batch; the others are left."""
    return [next(cutting.CUTS[0].parts(batch, size))]


@dataclass
class _Cutter:
    """Cuts batches to size, once it is proven on the first that is too long that its parts make the whole."""

    parts: Parts
    model: nn.Module
    session: Session
    where: str
    cut: cutting.Cut | None = None

    def __call__(self, batch: Any, size: int) -> Iterator[Any]:
        if self.cut is None and cutting.CUTS[0].length(batch) > size:
            self.session.drawn([batch])
            self.cut = self._proven(batch, size)
        return (self.cut or cutting.CUTS[0]).parts(batch, size)

    def _proven(self, batch: Any, size: int) -> cutting.Cut:
        """The cut for this model and loss. What does not fit even as a whole is said first, and in other words."""
        parts = self.parts
        whole, loss, _ = _given(parts, self.model, [batch], self.where)
        problem = self.session.kind(
            model=self.model,
            data=whole,
            loss=loss,
            objective=parts.objective,
            reduction=parts.reduction,
            layers=parts.layers,
            train_mode=parts.train_mode,
            seed=self.session.request.seed if parts.seed is None else parts.seed,
        )
        if sum(tensor.numel() for tensor in batch_forms.tensors(batch)) <= cutting.WHOLE_NUMBERS:
            try:
                fit.check_fit(problem)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
            except HessdiagError:
                if not self.session.request.broken_loss:
                    raise
                fit.check_fit(problem, broken_loss=True)
                return cutting.CUTS[0]  # nothing can be proven of it
        return cutting.proven(problem, size)
