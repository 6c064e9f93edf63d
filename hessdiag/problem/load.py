"""From the text of a command line to a `Problem`."""

import contextlib
import functools
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from hessdiag.errors import HessdiagError, LoadError, SpecError
from hessdiag.machine.shortage import ran_out
from hessdiag.problem import hub, online, python
from hessdiag.problem.batches import batch as batch_forms
from hessdiag.problem.batches import cutting, data, finite, synthetic
from hessdiag.problem.batches.data import ALL
from hessdiag.problem.batches.images import Images, paired
from hessdiag.problem.device import device_named
from hessdiag.problem.device import notes as device_notes
from hessdiag.problem.device import operations as operations_of
from hessdiag.problem.files import appetite, checkpoint, foreign, weights
from hessdiag.problem.files.allowance import Allowance
from hessdiag.problem.files.trust import said
from hessdiag.problem.losses import fit, own_loss
from hessdiag.problem.losses import loss as losses
from hessdiag.problem.problem import Problem, uncompiled
from hessdiag.problem.spec import Spec, parse

__all__ = ["ALL", "DTYPES", "ProblemRequest", "Shared", "load_problem"]

_MODED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class ProblemRequest:
    """What the options of a command say about the problem.

    Attributes:
        model: Spec of the model, or of a function that returns model, batches and loss.
        weights: PATH[#KEY] of weights to load into the model.
        data: Spec of the batches; without it they are the model spec's own, or synthetic.
        loss: A name (`ce`, `mse`, `bce`, `nll`, `output`) or the spec of a function of (output, target).
        objective: Spec of a function of (model, batch) that returns a scalar; instead of `loss`.
        batches: How many batches to take, `ALL` for all; by default the first of an iterable, else all.
        batch_size: Cut batches to parts of at most so many samples, where these make the whole.
        samples: Take only the first so many samples of each batch, or draw so many; instead of `batch_size`.
        device: `auto` (a GPU where there is one and the problem is worth its start, else the CPU), `cpu`, `cuda`,
            `cuda:1`.
        dtype: A key of `DTYPES`; by default the model's own.
        seed: Of initialization, synthetic data and the dropout mask.
        layers: Glob over parameter names; only the matching ones are differentiated.
        train_mode: Evaluate in training mode.
        trust_code: Let files run code of their own.
        strict: Refuse weights of other names or shapes than the model's; else leave out what does not fit, and say so.
        max_unpacked: Bytes that a file may unpack to; by default a multiple of its own size (`Allowance`).
    """

    model: str
    weights: str | None = None
    data: str | None = None
    loss: str | None = None
    objective: str | None = None
    batches: int | None = None
    batch_size: int | None = None
    samples: int | None = None
    device: str = "auto"
    dtype: str | None = None
    seed: int = 0
    layers: str | None = None
    train_mode: bool = False
    trust_code: bool = False
    strict: bool = True
    max_unpacked: int | None = None


@dataclass(frozen=True)
class _Parts:
    """What a model spec gave, before the options; `data` in any form that `as_batches` takes."""

    model: nn.Module
    data: Any = None
    loss: Any = None
    objective: Any = None
    reduction: losses.Reduction | None = None
    layers: str | None = None
    train_mode: bool = False
    seed: int | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Shared:
    """What several loads of one command have in common: each script runs once, each data file is read once."""

    scripts: dict[Path, ModuleType] = field(default_factory=dict)
    contents: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def hub_answers(self) -> bool:
        """Whether the Hugging Face hub can be reached, which takes seconds to find out where it cannot."""
        return online.hub_answers()


@dataclass
class _Session:
    """What is gathered while one request is loaded."""

    request: ProblemRequest
    shared: Shared
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stranger: Allowance | None = None  # of the file that the model itself was in
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    usual_loss: str = "mse"  # of a model that came without data, a loss and labels

    @property
    def scripts(self) -> dict[Path, ModuleType]:
        """Scripts that ran."""
        return self.shared.scripts

    def read(self, path: Path) -> Any:
        """What a file holds, within what the request lets it do and take."""
        return checkpoint.read(path, trust_code=self.request.trust_code, most=self.request.max_unpacked)


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
    dtype = _dtype(request.dtype)
    device = device_named(request.device)
    for name, value in (
        ("batches", request.batches),
        ("batch-size", request.batch_size),
        ("batch", request.samples),
    ):
        if value is not None and value < 1 and (name, value) != ("batches", ALL):
            raise SpecError(f"--{name} must be at least 1, not {value}.", f"--{name} 1")
    if request.loss is not None and request.objective is not None:
        raise SpecError(
            "--loss and --objective exclude each other: an objective is the whole scalar.",
            "--objective alone",
        )
    if request.loss is not None and ":" not in request.loss and request.loss != "output":
        losses.resolve(request.loss)  # before anything costly is loaded
    with _seeded(request.seed):
        try:
            return _load(_Session(request, shared or Shared()), device, dtype)
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


def _load(session: _Session, device: torch.device, dtype: torch.dtype | None) -> Problem:
    request = session.request
    parts = _override(_model(session, parse(request.model)), session)
    session.notes += parts.notes
    if request.weights is not None:
        _weights(session, parts.model)
    own_file = request.weights or (request.model if parse(request.model).kind == "file" else None)
    where = f"the model of {request.model}" if own_file is None else f"the file {own_file}"
    finite.check_parameters(parts.model, where, finite.DIVERGED)
    # Looked at on the CPU first: perhaps the GPU is not worth its start, which only model and batches together tell.
    first = device_named(request.device, operations_of(parts.model, [None]))
    model = _on(parts.model, first, dtype)
    if dtype is not None:
        finite.check_parameters(model, f"{where}, cast to {request.dtype},", "--dtype float32, or the model's own")
    with contextlib.nullcontext() if session.stranger is None else appetite.bounded(model, session.stranger):
        problem = _fitted(session, parts, model)
    if first != device and device_named(request.device, operations_of(problem.model, problem.data)) == device:
        return _moved(problem, device)
    return problem.like(notes=(*problem.notes, *device_notes(request.device, first)))


def _moved(problem: Problem, device: torch.device) -> Problem:
    """The same problem on another device, evaluated once there."""
    model = _on(problem.model, device, None)
    loss = problem.loss.to(device) if isinstance(problem.loss, nn.Module) else problem.loss
    moved = problem.like(model=model, loss=loss, data=[batch_forms.to(batch, device) for batch in problem.data])
    fit.check(moved)
    return moved


def _fitted(session: _Session, parts: _Parts, model: nn.Module) -> Problem:
    """Model, batches and loss as one problem that was evaluated once."""
    request = session.request
    batches, loss = _batches(session, parts, model)
    if isinstance(loss, nn.Module) and (parameter := batch_forms.real_parameter(model)) is not None:
        loss = loss.to(parameter.device, parameter.dtype)  # class weights meet the outputs
    if parts.train_mode and any(isinstance(module, _MODED) for module in model.modules()):
        session.notes.append("train mode: BatchNorm takes each batch's statistics, dropout keeps one fixed mask")
    problem = Problem(
        model,
        batches,
        loss,
        parts.objective,
        parts.reduction or (own_loss.reduction(model) if loss == "output" else None),
        parts.layers,
        parts.train_mode,
        request.seed if parts.seed is None else parts.seed,
        _source(session, synthetic_data=parts.data is None),
        tuple(session.notes),
    )
    notes = fit.check(problem)
    return problem.like(notes=(*problem.notes, *notes)) if notes else problem


def _batches(session: _Session, parts: _Parts, model: nn.Module) -> tuple[list[Any], Any]:
    """Batches, moved to the model, and the loss: the one asked for or the one that they suggest."""
    request, loss = session.request, parts.loss
    free_form = parts.objective is not None
    if parts.data is None:
        count = None if request.batches == ALL else request.batches
        size = request.batch_size or request.samples
        if loss in (None, "output") and not free_form and own_loss.computes_loss(model):
            loss = "output"
            taken, notes = own_loss.make(model, batch_size=size, batches=count, seed=request.seed)
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
            cut=_first_rows if request.samples else _Cutter(parts, model, request.seed, request.data or ""),
        )
        taken, loss, more = _suited(parts, model, taken, request.data or "")
        session.notes += [*notes, *more]
    if loss is not parts.loss:
        own = "the model's own, of the labels" if own_loss.takes_labels(model) else "the model's own"
        why = own if loss == "output" else "assumed"
        session.notes.append(f"loss: {loss}, {why}; --loss {'|'.join(losses.NAMES)} changes it")
    return taken, loss


def _suited(parts: _Parts, model: nn.Module, batches: list[Any], where: str) -> tuple[list[Any], Any, list[str]]:
    """Batches that were given, as the model takes them, the loss asked for or the one that they suggest, and notes."""
    notes: list[str] = []
    loss = parts.loss
    batch_forms.check_finite(batches, where)
    taken = [batch_forms.placed(batch, model) for batch in batches]
    batch_forms.check_finite(taken, f"{where} in the model's dtype".strip(), "--dtype float64, or smaller numbers")
    if isinstance(parts.data, Images):
        taken, more = fit.flattened(model, taken)
        notes += [parts.data.note, *more]
    if parts.objective is None:
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

    parts: _Parts
    model: nn.Module
    seed: int
    where: str
    cut: cutting.Cut | None = None

    def __call__(self, batch: Any, size: int) -> Iterator[Any]:
        if self.cut is None and cutting.CUTS[0].length(batch) > size:
            self.cut = self._proven(batch, size)
        return (self.cut or cutting.CUTS[0]).parts(batch, size)

    def _proven(self, batch: Any, size: int) -> cutting.Cut:
        """The cut for this model and loss. What does not fit even as a whole is said first, and in other words."""
        parts = self.parts
        whole, loss, _ = _suited(parts, self.model, [batch], self.where)
        seed = self.seed if parts.seed is None else parts.seed
        problem = Problem(
            self.model, whole, loss, parts.objective, parts.reduction, parts.layers, parts.train_mode, seed
        )
        if sum(tensor.numel() for tensor in batch_forms.tensors(batch)) <= cutting.WHOLE_NUMBERS:
            try:
                fit.check_fit(problem)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
        return cutting.proven(problem, size)


def _model(session: _Session, spec: Spec) -> _Parts:
    trust = session.request.trust_code
    if spec.kind in ("script", "module"):
        value = python.load_value(spec, session.scripts)
        return _parts(value, spec)
    if spec.kind == "file":
        return _Parts(_model_file(session, spec))
    if spec.kind == "hf":
        folder = Path(os.path.expanduser(spec.source))
        session.files += [*folder.glob("config.json"), *sorted(folder.glob("*.safetensors"))] if folder.is_dir() else []
        model, notes = hub.load_hf(
            spec, trust_code=trust, reachable=lambda: session.shared.hub_answers, most=session.request.max_unpacked
        )
        return _Parts(model, notes=notes)
    by_name = {"builtin": hub.load_builtin, "timm": hub.load_timm, "torchvision": hub.load_torchvision}
    model = by_name[spec.kind](spec)
    if hub.is_classifier(spec, model):
        session.usual_loss = "ce"
    return _Parts(model)


def _parts(value: Any, spec: Spec) -> _Parts:
    if isinstance(value, nn.Module):
        return _Parts(value)
    if isinstance(value, Problem):
        taken = {name: getattr(value, name) for name in _Parts.__dataclass_fields__}
        return _Parts(**{**taken, "data": list(value.data)})
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], nn.Module):
        return _Parts(*value)
    if isinstance(value, Mapping) and isinstance(value.get("model"), nn.Module):
        known = {"data" if key == "batches" else str(key): item for key, item in value.items()}
        unknown = [key for key in known if key not in ("model", "data", "loss", "objective")]
        if not unknown:
            return _Parts(**known)
        raise LoadError(
            f"{spec.text} gave a dict with {', '.join(map(repr, unknown))}.",
            "model, batches, and loss or objective",
        )
    form = f"a {type(value).__name__}" + (f" of {len(value)} items" if isinstance(value, (tuple, list)) else "")
    raise LoadError(
        f"{spec.text} gave {form}; a model spec gives a torch.nn.Module, (model, batches, loss), "
        "a dict of these or a hessdiag.Problem.",
        "return model, batches, loss",
    )


def _model_file(session: _Session, spec: Spec) -> nn.Module:
    path = checkpoint.existing(spec.source)
    if path.is_dir() and (other := foreign.folder(path) or foreign.model_folder(path)) is not None:
        raise other
    content = session.read(path)
    session.files.append(path)
    if spec.key is not None:
        content = weights.pick(content, spec.key, spec.source)
    module = weights.find_module(content)
    if module is not None:
        if not session.request.trust_code:
            weights.sound(module)
            session.stranger = Allowance.of(path, session.request.max_unpacked)
        return module
    try:
        state = weights.find_state_dict(content, spec.source)[0]
        what = f"a state_dict ({weights.describe(state)})"
    except SpecError:
        state, what = {}, "a checkpoint with several state_dicts"
    except LoadError as error:
        raise LoadError(
            f"{spec.source} holds no model.", "a file of torch.save(model, FILE), or 'train.py:build_model'"
        ) from error
    if foreign.is_adapter(state):
        raise foreign.adapter(path)
    if isinstance(content, Mapping) and "pytorch-lightning_version" in content:
        what = f"a Lightning checkpoint, {what}"
    beside = foreign.model_folder(path.parent)
    raise SpecError(
        f"{spec.source} is {what}: it has no architecture, data or loss.",
        (beside and beside.hint) or f"hessdiag ... 'train.py:build_model' --weights {spec.text}",
    )


def _override(parts: _Parts, session: _Session) -> _Parts:
    """The parts with what the options say instead."""
    request = session.request
    changes: dict[str, Any] = {
        "train_mode": request.train_mode or parts.train_mode,
        "layers": request.layers or parts.layers,
    }
    if request.objective is not None:
        spec = _code(request.objective, "--objective", "FILE.py:f, with f(model, batch) -> scalar")
        changes |= {"objective": python.load_object(spec, session.scripts), "loss": None, "reduction": None}
    if request.loss is not None:
        changes |= {"loss": _loss(session, request.loss), "objective": None, "reduction": None}
    if request.data is not None:
        free_form = changes.get("objective", parts.objective) is not None
        changes["data"] = _data(session, request.data, parts.model, free_form=free_form)
    return replace(parts, **changes)


def _takes_tokens(model: nn.Module) -> bool:
    return any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in model.modules())


def _loss(session: _Session, text: str) -> Any:
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


def _data(session: _Session, text: str, model: nn.Module, *, free_form: bool) -> Any:
    spec = parse(text)
    if spec.kind in ("file", "builtin"):
        content = session.shared.contents.get(text)
        if content is None:
            content = _stored(session, spec, free_form=free_form, reconstructs=synthetic.reconstructs(model))
            session.shared.contents[text] = content
        own = [checkpoint.existing(spec.source)] if spec.kind == "file" else []
        session.files += content.files if isinstance(content, Images) else own
        if free_form or isinstance(content, Images):
            return content
        batches, notes = data.plain_numbers(data.as_batches(content)[0], tokens=_takes_tokens(model))
        session.notes += notes
        return batches
    if spec.kind not in ("script", "module"):
        raise SpecError(f"--data {text!r} names no data.", "--data batch.npz or --data train.py:batches")
    value = python.load_value(spec, session.scripts)
    whole = isinstance(value, Problem) or (
        isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], nn.Module)
    )
    return _parts(value, spec).data if whole else value


def _stored(session: _Session, spec: Spec, *, free_form: bool, reconstructs: bool) -> Any:
    """What a data file or a built-in data set holds."""
    if spec.kind == "builtin":
        content = hub.load_builtin_data(spec)
        return paired(content, None, spec.text, reconstructs=reconstructs, free_form=free_form)
    return data.from_file(spec.source, spec.key, read=session.read, free_form=free_form, reconstructs=reconstructs)


def _weights(session: _Session, model: nn.Module) -> None:
    text = session.request.weights
    assert text is not None
    spec = parse(text if text.startswith("file:") else f"file:{text}")  # only a path makes sense here
    path = checkpoint.existing(spec.source)
    content = session.read(path)
    session.files.append(path)
    if spec.key is not None:
        content = weights.pick(content, spec.key, spec.source)
    where = spec.source if spec.key is None else f"{spec.source}#{spec.key}"
    loaded = weights.load_content(model, content, where, strict=session.request.strict)
    session.notes += loaded.notes
    session.left_out = loaded.left_out


def _dtype(name: str | None) -> torch.dtype | None:
    if name is not None and name not in DTYPES:
        raise SpecError(f"there is no dtype {name!r}; there are {', '.join(DTYPES)}.", "--dtype float64")
    return DTYPES[name] if name is not None else None


def _on(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    try:
        return uncompiled(model).to(device=device, dtype=dtype)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise LoadError(f"the model cannot be moved to {device}: {said(error)}") from error


def _source(session: _Session, *, synthetic_data: bool) -> dict[str, Any]:
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


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The usual random generators seeded, and put back afterwards."""
    ours, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)
