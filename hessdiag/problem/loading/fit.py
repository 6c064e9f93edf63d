"""Whether model, batch and loss fit, by one evaluation, and which loss a batch suggests."""

import contextlib
import traceback
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hessdiag.errors import HessdiagError, LoadError, NotFiniteError, said
from hessdiag.machine import lost_gpu
from hessdiag.machine.meeting import LostRankError
from hessdiag.machine.shortage import fewer, ran_out, sentence
from hessdiag.problem.batches import batch as forms
from hessdiag.problem.batches import indices
from hessdiag.problem.losses.loss import attached
from hessdiag.problem.modes import mode
from hessdiag.problem.problem import Problem


def default_loss(model: nn.Module, batch: Any) -> str:
    """The loss that a batch's targets suggest."""
    inputs, target = forms.split(batch)
    if isinstance(batch, Mapping) and attached(_output(model, batch)) is not None:
        return "output"
    if target is None and isinstance(batch, Mapping):
        there = ", ".join(map(str, list(batch)[:6])) or "nothing"
        raise LoadError(f"the batch has no target: it holds {there}.", "labels beside its inputs, or --objective")
    if not isinstance(target, Tensor):
        raise LoadError("the loss cannot be told from this batch: its target is no tensor.", "--loss or --objective")
    if target.is_floating_point():
        return "mse"
    output = _output(model, inputs)
    if isinstance(output, Tensor) and output.numel() == target.numel():
        raise LoadError(
            "whole-number targets with one output each could be classes or counts.",
            "--loss bce or --loss mse",
        )
    last = list(model.modules())[-1]
    return "nll" if isinstance(last, nn.LogSoftmax) else "ce"


def _output(model: nn.Module, inputs: Any) -> Any:
    """What the model returns; `None` if it fails, which is said later and with the shapes."""
    with mode(model, train=False), contextlib.suppress(Exception), indices.watched(model):
        return forms.forward(model, inputs)
    return None


def takes(model: nn.Module, *forms_of_inputs: Tensor) -> bool:
    """Whether a model takes inputs in one of these forms."""
    return any(_output(model, forms.placed(inputs, model)) is not None for inputs in forms_of_inputs)


def flattened(model: nn.Module, batches: list[Any]) -> tuple[list[Any], tuple[str, ...]]:
    """Batches of images as vectors, where the model takes vectors and not images; with a note that says so."""
    images = batches[0] if isinstance(batches[0], Tensor) else batches[0][0]
    if _output(model, images) is not None or _output(model, images.flatten(1)) is None:
        return batches, ()

    def flat(tensor: Tensor) -> Tensor:
        return tensor.flatten(1) if tensor.ndim == images.ndim else tensor

    note = f"data: each image was flattened to {images[0].numel()} inputs"
    return [forms.map_tensors(flat, batch) for batch in batches], (note,)


def check(problem: Problem, *, broken_loss: bool = False) -> tuple[str, ...]:
    """Find out now, on one batch, what would fail later: shapes that do not fit, no memory.

    Args:
        problem: What was put together.
        broken_loss: Whether to let a loss pass that is not finite, or depends on no parameter.

    Returns:
        A note, if the model puts out several tensors and the loss takes one of them.

    Raises:
        LoadError: in terms of the shapes, or of the memory.
        ComputeError: if the loss is not a finite scalar.
    """
    try:
        check_fit(problem, broken_loss=broken_loss)
        which = _which_output(problem)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        samples = forms.samples(problem.data[0])
        smaller = f"--batch-size {fewer(samples)}" if samples > 1 else "a smaller model"
        raise LoadError(
            f"one batch (samples: {samples:,}) does not fit the memory of {problem.device}: {sentence(error)}.",
            smaller if problem.device.type == "cpu" else f"{smaller}, or --device cpu",
        ) from error
    return (f"output: the loss takes {which}; --loss FILE.py:f of (output, target) takes all",) if which else ()


def _which_output(problem: Problem) -> str | None:
    """Which of several tensors a loss takes that wants one."""
    if problem.criterion is None or not problem.criterion.of_tensor:
        return None
    with problem.evaluation():
        return forms.which_output(forms.forward(problem.model, forms.split(problem.data[0])[0]))


def check_fit(problem: Problem, *, broken_loss: bool = False) -> None:
    """One evaluation, so that what does not fit is said now and in terms of shapes."""
    batch = problem.data[0]
    try:
        value = problem.evaluate(batch)
    except HessdiagError as error:
        if broken_loss and isinstance(error, NotFiniteError):
            return
        if error.__cause__ is None or isinstance(error, LostRankError):
            raise
        raise _misfit(problem, batch, error.__cause__) from error
    except Exception as error:
        if ran_out(error):
            raise
        raise _misfit(problem, batch, error) from error
    if not (value.requires_grad or broken_loss):
        raise LoadError(
            "the loss does not depend on any trainable parameter through autograd.",
            "no torch.no_grad() or .detach() in the model",
        )


def _misfit(problem: Problem, batch: Any, error: BaseException) -> LoadError:
    if lost_gpu.is_lost(error):
        return LoadError(lost_gpu.WHAT, lost_gpu.HINT)
    if problem.is_alone:
        try:
            with indices.Watch(problem.model), problem.evaluation():
                problem.objective_function(problem.model, batch)
        except LoadError as first:
            return first
        except Exception:
            pass
    if problem.objective is not None or problem.loss == "output":
        return LoadError(f"{problem.loss_name} fails on the batch ({_shapes(batch)}): {said(error)}")
    inputs, target = forms.split(batch)
    output: Any = None
    try:
        if problem.is_alone:
            with problem.evaluation():
                output = forms.forward(problem.model, inputs)
        elif _is_of(problem.model, error):  # the others, which it would ask, may be elsewhere
            raise error
    except Exception as first:
        return LoadError(
            f"the model does not take this batch, inputs {_shapes(inputs)}: {said(first)}",
            "--data with another shape",
        )
    own = callable(problem.loss)
    outputs = "its outputs" if output is None else f"outputs {_shapes(output)}"
    return LoadError(
        f"the loss {problem.loss_name} does not take {outputs} with targets {_shapes(target)}: {said(error)}",
        "a loss is f(output, target); for f(model, batch) return hessdiag.Problem(model, data=batches, objective=f)"
        if own
        else "--loss with another name, or targets of another form",
    )


def _is_of(model: nn.Module, error: BaseException) -> bool:
    """Whether an error came up while the model ran."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_locals.get("self") is model for frame, _ in frames)


def _shapes(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return "a mapping of " + ", ".join(f"{name}: {_shapes(item)}" for name, item in batch.items())
    return ", ".join(f"{tuple(item.shape)} {str(item.dtype).removeprefix('torch.')}" for item in forms.tensors(batch))
