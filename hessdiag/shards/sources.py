"""A model and this process's pieces of it: read from files, or cut from a whole model that each process builds."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError
from hessdiag.problem.batches.batch import hash_tensors, tensors
from hessdiag.problem.files import appetite
from hessdiag.problem.files.allowance import amount
from hessdiag.problem.files.state_dicts import some
from hessdiag.problem.loading import model as models
from hessdiag.problem.loading import python
from hessdiag.problem.loading.options import overridden
from hessdiag.problem.loading.request import Parts, Session
from hessdiag.problem.spec import Spec, parse
from hessdiag.problem.wrappers import unwrapped
from hessdiag.shards import agreement, folders, refuse
from hessdiag.shards.mapped import Pages
from hessdiag.shards.reading import Pieces
from hessdiag.shards.unfilled import UnfilledTensor, without_numbers

WHOLE = "shards: each process built the whole model ({size}) and kept its pieces; --weights FILE reads pieces alone"
_CALLED = ("script", "module", "builtin", "timm", "torchvision")


@dataclass(frozen=True)
class Source:
    """What a request gave, before batches and loss are fitted to it.

    Attributes:
        session: Of the request.
        parts: The model, whole or without numbers, and what came with it.
        pieces: This process's, of every parameter.
        digests: What has to be the same in all processes, by its name.
    """

    session: Session
    parts: Parts
    pieces: Pieces
    digests: dict[str, str]


def unread(session: Session, pieces: Pieces) -> Source | None:
    """The model without numbers, and its pieces from files; `None` where the whole model is to be built.

    Then random numbers go on as if nothing had been tried.

    Raises:
        HessdiagError: if a file is wrong, or does not fit the model.
    """
    request, spec = session.request, parse(session.request.model)
    if spec.kind in ("script", "module"):  # what runs when it is imported keeps its numbers, and runs once
        python.load_object(replace(spec, arguments=None), session.scripts)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    found = None
    if spec.kind == "hf" and request.weights is None:
        found = _from_folder(session, spec, pieces)
    elif request.weights is not None and spec.kind in _CALLED:
        found = _from_weights(session, spec, pieces)
    if found is None or any(item.is_meta and id(item) not in pieces.found for item in found.model.parameters()):
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        return None  # what a file lacks is drawn at random
    for parameter in found.model.parameters():
        if not parameter.is_meta:
            pieces.read(parameter, parameter)
    digests = {name: agreement.form(item) for name, item in found.model.named_parameters()}
    return Source(session, found, pieces, digests | _of_buffers(found.model))


def _from_folder(session: Session, spec: Spec, pieces: Pieces) -> Parts | None:
    """A transformers model, filled from its folder."""
    found = folders.unread(session, spec)
    if found is None:
        return None
    refuse.model(found.model, train_mode=session.request.train_mode)
    session.files += [Path(spec.source).expanduser() / "config.json", *found.files]
    pieces.pages = Pages.of(found.files, found.state.values())
    with pieces.filling(found.model):
        found.model.load_state_dict(found.state, strict=False)
    return _with_options(session, Parts(found.model, notes=found.notes))


def _from_weights(session: Session, spec: Spec, pieces: Pieces) -> Parts | None:
    """The model that code builds, filled from the file of `--weights`."""
    parts = _built(session, spec)
    if parts is None:
        return None
    parts = _with_options(session, parts)
    session.mapped = True
    content, where, path = models.read_weights(session)
    session.mapped = False
    pieces.pages = Pages.of(_files(path), tensors(content))
    refuse.model(parts.model, train_mode=parts.train_mode)
    bare = _with_room(parts.model)
    with pieces.filling(parts.model):
        models.take_weights(session, parts.model, content, where)
    lost = [name for name, buffer in bare.items() if id(buffer) not in pieces.buffers]
    if lost:
        raise LoadError(
            f"the model was built on the device meta, and {some(lost)} not in {where}: a buffer without numbers.",
            "a model whose parameters alone are on meta; or, without meta, one built as usual",
        )
    return parts


def whole(session: Session, pieces: Pieces) -> Source:
    """The whole model, and this process's pieces of it.

    Raises:
        HessdiagError: if the model cannot be built, or its weights do not fit.
    """
    parts = models.named(session, parse(session.request.model))
    parts = _with_options(session, replace(parts, model=unwrapped(parts.model)))
    if session.stranger is not None and any(map(appetite.by_its_word, parts.model.modules())):
        raise LoadError(
            f"{session.request.model} holds layers whose results are as large as the file says, and of a sharded model "
            "that is not tried.",
            "--trust-code, if you trust the file",
        )
    if session.request.weights is not None:
        session.mapped = True
        parts = models.load_weights(session, parts)
        session.mapped = False
    refuse.numberless(parts.model, session.request.model)
    refuse.model(parts.model, train_mode=parts.train_mode)
    digests = {}
    for name, parameter in parts.model.named_parameters():
        digests[name] = f"{agreement.form(parameter)} {hash_tensors(iter([parameter]))}"
        pieces.read(parameter, parameter)
    size = sum(parameter.numel() * parameter.element_size() for parameter in parts.model.parameters())
    session.notes.append(WHOLE.format(size=amount(size)))
    return Source(session, parts, pieces, digests | _of_buffers(parts.model))


def _with_options(session: Session, parts: Parts) -> Parts:
    parts = overridden(parts, session)
    session.notes += parts.notes
    return parts


def _of_buffers(model: nn.Module) -> dict[str, str]:
    return {name: hash_tensors(iter([buffer])) for name, buffer in model.named_buffers()}


def _built(session: Session, spec: Spec) -> Parts | None:
    """What code makes of a model whose parameters have no numbers; `None` where it needs them."""
    if spec.kind in ("script", "module"):  # what runs when it is imported keeps its numbers, and runs once
        python.load_object(replace(spec, arguments=None), session.scripts)
    try:
        with without_numbers():
            parts = models.named(session, spec)
    except Exception:  # whatever it is, it is said of the whole model, or was for want of numbers
        return None
    parts = replace(parts, model=unwrapped(parts.model))
    made_of_none = (*parts.model.buffers(), *tensors(parts.data))
    return None if any(isinstance(item, UnfilledTensor) for item in made_of_none) else parts


def _with_room(model: nn.Module) -> dict[str, Tensor]:
    """Give buffers on the device meta room for numbers; which these are."""
    found = {}
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = found[f"{path}.{name}".lstrip(".")] = torch.empty_like(buffer, device="cpu")
    return found


def _files(path: Path) -> list[Path]:
    """A file of weights and those that it may name."""
    folder = path if path.is_dir() else path.parent
    return (
        [entry for entry in folder.iterdir() if entry.is_file()] if path.is_dir() or path.suffix == ".json" else [path]
    )
