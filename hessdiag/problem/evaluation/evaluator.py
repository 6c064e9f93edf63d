"""Evaluating the objective of a batch: as a graph that can be differentiated twice, and without a trace."""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hessdiag.errors import ComputeError, LoadError, NotFiniteError, first_line
from hessdiag.machine import arithmetic, lost_gpu
from hessdiag.machine.shortage import ran_out
from hessdiag.problem import finite
from hessdiag.problem.batches import indices
from hessdiag.problem.evaluation import guard, kernels, privately
from hessdiag.problem.evaluation.batch_norm import plain_batch_norm
from hessdiag.problem.losses.loss import Objective
from hessdiag.problem.measuring import measuring
from hessdiag.problem.modes import mode


@dataclass(eq=False)
class Evaluator:
    """A model and its objective, how they are evaluated, and what evaluations have found out about them.

    Attributes:
        model: A private copy takes its place once an evaluation has changed parameters.
        data: The batches that are evaluated again and again; others come and go.
        objective: The function of (model, batch).
        device: Where the parameters are.
        where: What the model came from, for messages.
        train_mode: Whether to evaluate in training mode.
        one_draw: Whether random numbers start anew from `seed` in evaluation mode, too.
        seed: Of the random numbers.
        rewritten: Parameters that the model's own forward pass changes; empty until one was run.
        harmless: Whether evaluations are known to leave the parameters alone.
        draws: Whether evaluations draw random numbers; `None` as long as it is not known.
        checkpoints: How activation checkpoints are run.
        unasked: Values that nobody has asked yet whether they are finite; `None` where each is asked at once.
    """

    model: nn.Module
    data: Sequence[Any]
    objective: Objective
    device: torch.device
    where: str
    train_mode: bool
    one_draw: bool
    seed: int
    rewritten: tuple[str, ...] = ()
    harmless: bool = False
    draws: bool | None = None
    checkpoints: Callable[[], AbstractContextManager[None]] = guard.plain_checkpoints
    unasked: list[tuple[Tensor, Any]] | None = None
    _looked: set[int] = field(default_factory=set)

    @cached_property
    def modules(self) -> tuple[nn.Module, ...]:
        """All modules, looked up once: walking a deep model takes as long as a Hessian-vector product."""
        return tuple(self.model.modules())

    def evaluate(self, batch: Any, *, fold: bool) -> Tensor:
        """The objective of one batch; once more, where the first time has changed parameters."""
        model = self.model
        with self.evaluation(fold=fold), self._first_look(batch):
            value = self.value(batch)
        return value if self.model is model else self.evaluate(batch, fold=fold)

    @contextmanager
    def evaluation(self, *, fold: bool) -> Iterator[None]:
        """Everything that an evaluation needs, undone afterwards: mode, buffers, random state, kernels, arithmetic.

        Args:
            fold: Whether batch norm becomes part of convolutions.
        """
        with ExitStack() as stack:
            stack.enter_context(measuring(self.device))
            if not self.harmless:
                stack.enter_context(self._parameters_kept())
            stack.enter_context(mode(self.model, self.train_mode, self.modules))
            stack.enter_context(privately.private_buffers(self.modules))
            stack.enter_context(kernels.dense_embeddings(self.modules))
            stack.enter_context(kernels.plain_embedding_bag())
            stack.enter_context(kernels.plain_weight_norm())
            stack.enter_context(self.checkpoints())
            if self.rewritten:
                stack.enter_context(guard.idle_renorm())
            stack.enter_context(plain_batch_norm(fold=fold))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(kernels.plain_transformer())
            if "torch._dynamo" in sys.modules:  # whoever compiles has loaded it; by itself it takes a second
                stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled graphs: no double backward
            if kernels.uses_cudnn(self.modules, self.device):
                stack.enter_context(kernels.no_cudnn())
            if self._may_draw and self.draws is not False:
                stack.enter_context(privately.own_draws(self.device, self.seed))
            yield

    @property
    def _may_draw(self) -> bool:
        return self.train_mode or self.one_draw

    @contextmanager
    def _parameters_kept(self) -> Iterator[None]:
        """Put parameters back that an evaluation changes, as embeddings with `max_norm` do; the first one is watched.

        Where one changes them, a private copy of the model takes its place, so that all later numbers are of one point.
        """
        model = self.model
        kept = guard.snapshot(model)
        returned = False
        try:
            yield
            returned = True
        finally:
            changed = guard.restore(model, kept)
            if changed and self.model is model:
                self.rewritten = changed
                self.harmless = self._part_from(model)
            elif returned and not self.rewritten:
                self.harmless = True

    def _part_from(self, model: nn.Module) -> bool:
        """Go on with a copy of the model; whether it can be copied."""
        try:
            self.model = copy.deepcopy(model)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError):
            return False
        vars(self).pop("modules", None)
        return True

    @contextmanager
    def _first_look(self, batch: Any) -> Iterator[None]:
        """Watch the indices in the first evaluation of a batch, where one out of range cannot be mended afterwards."""
        if id(batch) in self._looked:
            yield
            return
        with indices.watched(self.model):
            yield
        if any(batch is own for own in self.data):  # others come and go, and their numbers with them
            self._looked.add(id(batch))

    @contextmanager
    def asked_once(self) -> Iterator[None]:
        """Ask a GPU at the end whether the values of all evaluations within are finite: each time it is waited for.

        Raises:
            ComputeError: if one of them is not.
        """
        if self.device.type == "cpu" or self.unasked is not None:
            yield
            return
        values = self.unasked = []
        try:
            yield
        finally:
            self.unasked = None
        if values and not bool(torch.stack([value.isfinite() for value, _ in values]).all()):
            raise next(self._not_finite(value.item(), batch) for value, batch in values if not bool(value.isfinite()))

    @contextmanager
    def _draws_watched(self) -> Iterator[None]:
        """Find out in the first forward pass on a GPU whether it draws: to put the numbers back is to wait for it."""
        device = self.device
        if device.type == "cpu" or self.draws is not None or not self._may_draw:
            yield
            return
        before = privately.draws_taken(device)
        yield
        after = privately.draws_taken(device)
        self.draws = not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

    def value(self, batch: Any) -> Tensor:
        """The objective of one batch, within an `evaluation`.

        Raises:
            ComputeError: if it is not a finite scalar, or model, batch and loss do not fit.
        """
        try:
            with self._draws_watched():
                value = self.objective(self.model, batch)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if ran_out(error):
                raise
            if lost_gpu.is_lost(error):
                raise LoadError(lost_gpu.WHAT, lost_gpu.HINT) from error
            raise ComputeError(f"model, batch and loss do not fit: {first_line(error)}", None) from error
        arithmetic.insist()  # a model may allow rounding in its forward pass
        value = _scalar(value)
        if self.unasked is not None:
            self.unasked.append((value.detach(), batch))
        elif not bool(torch.isfinite(value)):
            raise self._not_finite(value.item(), batch)
        return value

    def _not_finite(self, value: float, batch: Any) -> NotFiniteError:
        """That the loss is no number, and where that begins: in the weights, in a layer or in the loss."""
        if (wrong := finite.culprits(self.model)) is not None:
            return NotFiniteError(
                f"the loss is {value}, for {self.where} holds what is no number: {wrong}.",
                finite.DIVERGED,
            )
        layer = finite.origin(self.model, lambda: self.objective(self.model, batch))
        begins = f"it begins in the output of {layer}" if layer else "no module puts out anything that is not finite"
        return NotFiniteError(
            f"the loss is {value}, though parameters and data are finite: {begins}.",
            "--dtype float64, smaller inputs or weights, or a loss without logarithms of zero",
        )


def _scalar(value: Any) -> Tensor:
    """What an objective returned, as a real scalar.

    Raises:
        ComputeError: if it is none.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        form = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ComputeError(
            f"the objective must return a scalar; it returned {form}.",
            "average it, as reduction='mean' does",
        )
    if value.is_complex():
        raise ComputeError("the loss is complex; the Hessian is that of a real number.", "its .real, or .abs()")
    return value.reshape(())
