"""From the text of a command line to a `Problem`."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hessdiag.errors import HessdiagError, LoadError, SpecError, said
from hessdiag.problem import finite
from hessdiag.problem.batches import batch as batch_forms
from hessdiag.problem.batches.data import ALL
from hessdiag.problem.device import device_named
from hessdiag.problem.device import notes as device_notes
from hessdiag.problem.device import operations as operations_of
from hessdiag.problem.files import appetite, checkpoint
from hessdiag.problem.lightning.step import TrainingStep
from hessdiag.problem.loading import fit, lightning, own_loss
from hessdiag.problem.loading import model as models
from hessdiag.problem.loading.options import overridden
from hessdiag.problem.loading.request import DTYPES, Parts, ProblemRequest, Session, Shared
from hessdiag.problem.loading.suiting import suited
from hessdiag.problem.problem import Problem
from hessdiag.problem.seeds import seeded
from hessdiag.problem.spec import parse
from hessdiag.problem.wrappers import unwrapped

__all__ = ["ALL", "DTYPES", "ProblemRequest", "Shared", "load_problem"]

_MODED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def load_problem(request: ProblemRequest, shared: Shared | None = None) -> Problem:
    """Load the model, the weights, the batches and the loss that a request names, and check that they fit.

    The same seed gives the same problem; the process's own random state is left as it was.

    Args:
        request: What to load.
        shared: Scripts and data of earlier loads, which are used again and added to.

    Raises:
        SpecError: if the request cannot be understood (exit 2).
        LoadError: if something cannot be loaded, or model, batch and loss do not fit (exit 3).
        UntrustedFileError: if a file would run code, and `trust_code` is not set (exit 3).

    >>> problem = load_problem(ProblemRequest("builtin:mlp(depth=3, width=4)", device="cpu"))
    >>> problem.n_parameters, problem.dtype, problem.source["synthetic"]
    (48, torch.float64, True)
    """
    if request.shard:
        raise SpecError("--shard is not for this command, which builds whole models.", "hessdiag eigs MODEL --shard")
    dtype = request.torch_dtype
    device = device_named(request.device)
    request.check()
    with explained(request):
        return _load(Session(request, shared or Shared()), device, dtype)


@contextlib.contextmanager
def explained(request: ProblemRequest) -> Iterator[None]:
    """Load with the usual random generators seeded, and say which file is at fault where one holds what it should not.

    Raises:
        LoadError: naming the files, for errors that are not this package's.
    """
    with seeded(request.seed):
        try:
            yield
        except (HessdiagError, ImportError):
            raise
        except Exception as error:
            if files := [text for text in (request.model, request.weights, request.data) if text and _is_foreign(text)]:
                what = f"{' and '.join(files)} cannot be used: {said(error)}"  # a file may hold anything
                raise LoadError(what, "--traceback shows where it fails") from error
            raise


def _is_foreign(text: str) -> bool:
    """Whether a spec names a file, or code that is not of this package."""
    try:
        return parse(text).kind in ("file", "script", "module")
    except SpecError:
        return True


def _load(session: Session, device: torch.device, dtype: torch.dtype | None) -> Problem:
    request = session.request
    parts = models.named(session, parse(request.model))
    parts = lightning.completed(overridden(replace(parts, model=unwrapped(parts.model)), session))
    session.notes += parts.notes
    if request.weights is not None:
        parts = models.load_weights(session, parts)
    where = origin(request)
    finite.check_parameters(parts.model, where, finite.DIVERGED)
    # Looked at on the CPU first: perhaps the GPU is not worth its start, which only model and batches together tell.
    first = device_named(request.device, operations_of(parts.model, [None]))
    model = _on(parts.model, first, dtype)
    if dtype is not None:
        finite.check_parameters(model, f"{where}, cast to {request.dtype},", "--dtype float32, or the model's own")
    with contextlib.nullcontext() if session.stranger is None else appetite.bounded(model, session.stranger):
        problem = fitted(session, parts, model)
    if first != device and device_named(request.device, operations_of(problem.model, problem.data)) == device:
        return _moved(problem, device, request.broken_loss)
    return problem.like(notes=(*problem.notes, *device_notes(request.device, first)))


def _moved(problem: Problem, device: torch.device, broken_loss: bool = False) -> Problem:
    """The same problem on another device, evaluated once there."""
    model = _on(problem.model, device, None)
    loss = problem.loss.to(device) if isinstance(problem.loss, nn.Module) else problem.loss
    moved = problem.like(model=model, loss=loss, data=[batch_forms.to(batch, device) for batch in problem.data])
    fit.check(moved, broken_loss=broken_loss)
    return moved


def origin(request: ProblemRequest) -> str:
    """Where the weights are from, in words."""
    own_file = request.weights or (request.model if parse(request.model).kind == "file" else None)
    return f"the model of {request.model}" if own_file is None else f"the file {own_file}"


def fitted(session: Session, parts: Parts, model: nn.Module) -> Problem:
    """Model, batches and loss as one problem that was evaluated once."""
    request = session.request
    batches, loss = suited(session, parts, model)
    if isinstance(loss, nn.Module) and (parameter := batch_forms.real_parameter(model)) is not None:
        loss = loss.to(parameter.device, parameter.dtype)  # class weights meet the outputs
    if parts.train_mode and any(isinstance(module, _MODED) for module in model.modules()):
        session.notes.append("train mode: BatchNorm takes each batch's statistics, dropout keeps one fixed mask")
    problem = session.kind(
        model=model,
        data=batches,
        loss=loss,
        objective=parts.objective,
        reduction=parts.reduction or (own_loss.reduction(model) if loss == "output" else None),
        layers=parts.layers,
        train_mode=parts.train_mode,
        seed=request.seed if parts.seed is None else parts.seed,
        source=_source(session, synthetic_data=parts.data is None),
        notes=tuple(session.notes),
    )
    notes = fit.check(problem, broken_loss=request.broken_loss)
    if isinstance(problem.objective, TrainingStep):
        notes += problem.objective.notes
    return problem.like(notes=(*problem.notes, *notes)) if notes else problem


def _on(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    try:
        return model.to(device=device, dtype=dtype)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise LoadError(f"the model cannot be moved to {device}: {said(error)}") from error


def _source(session: Session, *, synthetic_data: bool) -> dict[str, Any]:
    request = session.request
    return {
        "model": request.model,
        "weights": request.weights,
        "weights_left_out": {name: list(names) for name, names in session.left_out.items()},
        "data": request.data,
        "loss": request.loss or request.objective,
        "files": checkpoint.hashes([*session.scripts, *session.files]),
        "trusted_code": request.trust_code,
        "synthetic": synthetic_data,
    }
