"""From the text of a command line to a problem of pieces, with no process holding the whole model where that can be."""

import weakref
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import torch
from torch import nn

from hessdiag.errors import LoadError
from hessdiag.machine import meeting
from hessdiag.machine.collectives import summed
from hessdiag.machine.memory import LARGE_AT_FIRST, apart
from hessdiag.machine.ranks import ranks
from hessdiag.problem import finite, load
from hessdiag.problem.device import device_named
from hessdiag.problem.loading.request import ProblemRequest, Session, Shared
from hessdiag.problem.problem import Problem
from hessdiag.shards import agreement, sources
from hessdiag.shards.kinds import KINDS
from hessdiag.shards.placeholder import OutsideUnitError, noting, placeholder, with_placeholders
from hessdiag.shards.problem import ShardedProblem
from hessdiag.shards.reading import Pieces
from hessdiag.shards.units import Units

NOT_CUT = "shards: samples of a batch cannot be parted here, so that each process evaluates whole batches"


def load_problem(request: ProblemRequest | str, shared: Shared | None = None) -> Problem:
    """Load the model, the weights, the batches and the loss that a request names, and check that they fit.

    The same seed gives the same problem; the process's own random state is left as it was.

    With `request.shard` each process keeps a piece of every parameter. Pieces are read straight from files: of the
    folder of a transformers model, of `--weights` in safetensors or as torch.save writes it. Where that cannot be, as
    with a script that gives a model with its weights, each process builds the whole model, keeps its pieces and lets
    go of the rest; a note says so.

    Args:
        request: What to load; a text alone names a model, as on the command line.
        shared: Scripts and data of earlier loads, which are used again and added to.

    Raises:
        SpecError: if the request cannot be understood (exit 2).
        LoadError: if something cannot be loaded, or model, batch and loss do not fit, or processes were given
            different models or batches (exit 3).
        UntrustedFileError: if a file would run code, and `trust_code` is not set (exit 3).

    >>> problem = load_problem(ProblemRequest("builtin:mlp(depth=3, width=4)", device="cpu", shard=True))
    >>> problem.n_parameters, problem.dtype, problem.source["synthetic"], problem.layout.own
    (48, torch.float64, True, 48)
    """
    request = ProblemRequest(request) if isinstance(request, str) else request
    if not request.shard:
        return load.load_problem(request, shared)
    apart(LARGE_AT_FIRST)
    try:
        device = device_named(request.device)
        request.check()
        meeting.spread()
        with load.explained(request):
            return _loaded(request, shared or Shared(), device)
    finally:
        apart()


def _loaded(request: ProblemRequest, shared: Shared, device: torch.device) -> Problem:
    found = sources.unread(*_start(request, shared, device))
    if not agreement.all_of(found is not None, device) or found is None:
        found = sources.whole(*_start(request, shared, device))
    model, session = found.parts.model, found.session
    losses = agreement.of_loss(found.parts.loss, found.parts.objective)
    agreement.same(losses | found.digests, agreement.MODELS, device)
    _check_finite(model, found.pieces, load.origin(request), request.dtype)
    before = [weakref.ref(parameter) for parameter in model.parameters()]
    model = _of_pieces(model, found.pieces)
    units = Units(model, KINDS)
    _mended(model, units)
    session.kind = partial(ShardedProblem, units=units)
    parts = replace(found.parts, model=model)
    del found
    problem = load.fitted(session, parts, model)
    assert isinstance(problem, ShardedProblem)
    problem.refuse(before)
    note = () if problem.cut is not None else (NOT_CUT,)
    return problem.like(notes=(*problem.notes, *note))


def _mended(model: nn.Module, units: Units) -> None:
    """Let calls of the model, which come before there is a problem, enlarge units where that is needed."""
    forward = model.forward

    @wraps(forward)
    def again(*args: Any, **kwargs: Any) -> Any:
        try:
            with noting():
                return forward(*args, **kwargs)
        except OutsideUnitError as error:
            units.enlarge(error)
        return model(*args, **kwargs)

    vars(model)["forward"] = again


def _start(request: ProblemRequest, shared: Shared, device: torch.device) -> tuple[Session, Pieces]:
    session = Session(
        request, shared, kind=ShardedProblem, drawn=lambda batches: agreement.same_batches(batches, device)
    )
    return session, Pieces(*ranks(), device, request.torch_dtype)


def _check_finite(model: nn.Module, pieces: Pieces, where: str, dtype: str | None) -> None:
    """Refuse a model with a NaN or an infinity in a trainable parameter, in all processes, whoever holds it.

    Raises:
        LoadError: naming the first of these parameters, as of whole models.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    kept = [pieces.found[id(parameter)] for _, parameter in trained]
    for counts, place, hint in (
        ([piece.wrong for piece in kept], where, finite.DIVERGED),
        ([piece.wrong_cast for piece in kept], f"{where}, cast to {dtype},", "--dtype float32, or the model's own"),
    ):
        totals = summed(torch.tensor(counts, device=pieces.device).reshape(-1, 2)).tolist()
        named = zip(trained, totals, strict=True)
        found = finite.said((name, parameter.numel(), *total) for (name, parameter), total in named)
        if found is not None:
            raise LoadError(f"{place} holds weights that are no numbers: {found}.", hint)


def _of_pieces(model: nn.Module, pieces: Pieces) -> nn.Module:
    """The model with placeholders for parameters, and its buffers where pieces are, in their dtype."""
    stand_ins = {
        id(parameter): placeholder(
            pieces.found[id(parameter)].numbers, parameter.shape, requires_grad=parameter.requires_grad, path=name
        )
        for name, parameter in model.named_parameters()
    }
    made = with_placeholders(model, stand_ins)
    for module in made.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                dtype = pieces.dtype if buffer.is_floating_point() else None
                module._buffers[name] = buffer.to(pieces.device, dtype)
    return made
