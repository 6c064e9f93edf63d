"""`--data`, `--loss` and `--objective`: what they name takes the place of what came with the model."""

from dataclasses import replace
from typing import Any

from torch import nn

from hessdiag.errors import SpecError
from hessdiag.problem.batches import data
from hessdiag.problem.batches.images import Images, paired
from hessdiag.problem.batches.known import Known
from hessdiag.problem.files import checkpoint
from hessdiag.problem.loading import hub, lightning, python, stored, synthetic
from hessdiag.problem.loading.model import looked_at, parts_of
from hessdiag.problem.loading.request import Parts, Session
from hessdiag.problem.losses import loss as losses
from hessdiag.problem.problem import Problem
from hessdiag.problem.spec import Spec, parse


def overridden(parts: Parts, session: Session) -> Parts:
    """The parts with what the options say instead."""
    request = session.request
    parts = replace(
        parts,
        train_mode=request.train_mode or parts.train_mode,
        layers=request.layers or parts.layers,
    )
    if request.objective is not None:
        spec = _code(request.objective, "--objective", "FILE.py:f, with f(model, batch) -> scalar")
        parts = replace(parts, objective=python.load_object(spec, session.scripts), loss=None, reduction=None)
    if request.loss is not None:
        parts = replace(parts, loss=_loss(session, request.loss), objective=None, reduction=None)
    if request.data is not None:
        own = _data(session, request.data, parts.model, free_form=parts.free_form)
        parts = replace(parts, data=own)
    return parts


def _loss(session: Session, text: str) -> Any:
    if text in losses.NAMES:
        return text
    spec = _code(text, "--loss", "FILE.py:f, with f(output, target) -> scalar")
    found = python.load_object(spec, session.scripts)
    return python.call(spec, found) if isinstance(found, type) else found


def _code(text: str, option: str, form: str) -> Spec:
    spec = parse(text)
    if spec.kind not in ("script", "module"):
        raise SpecError(f"{option} {text!r} names no function.", f"{option} {form}")
    return spec


def _data(session: Session, text: str, model: nn.Module, *, free_form: bool) -> Any:
    spec = parse(text)
    if spec.kind in ("file", "builtin"):
        content = session.shared.contents.get(text)
        if content is None:
            content = _stored(session, spec, model, free_form=free_form)
            if not isinstance(content, Known) or isinstance(content, Images):  # others hang on model, seed and number
                session.shared.contents[text] = content
        session.files += content.sources if isinstance(content, Known) else [checkpoint.existing(spec.source)]
        if free_form or isinstance(content, Known):
            return content
        batches, notes = data.plain_numbers(data.as_batches(content)[0], tokens=stored.takes_tokens(model))
        session.notes += notes
        return batches
    if spec.kind not in ("script", "module"):
        raise SpecError(f"--data {text!r} names no data.", "--data batch.npz or --data train.py:batches")
    found = None if spec.arguments is not None else python.load_object(spec, session.scripts)
    value = found if lightning.is_loader(found) else lightning.of_checkpoint(session, spec, lambda: looked_at(session))
    value = python.load_value(spec, session.scripts) if value is None else value
    whole = isinstance(value, Problem) or (
        isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], nn.Module)
    )
    if whole:
        return parts_of(value, spec).data
    return lightning.data(value, spec, session.notes)


def _stored(session: Session, spec: Spec, model: nn.Module, *, free_form: bool) -> Any:
    """What a data file or a built-in data set holds."""
    if spec.kind == "builtin":
        content = hub.load_builtin_data(spec)
        return paired(content, None, spec.text, reconstructs=synthetic.reconstructs(model), free_form=free_form)
    return stored.read(session, spec, model, free_form=free_form)
