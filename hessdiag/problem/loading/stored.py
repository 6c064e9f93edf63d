"""What a file or a folder that `--data` names holds, as the model can take it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from hessdiag.errors import SpecError
from hessdiag.problem.batches import data, pictures, tables
from hessdiag.problem.batches.data import ALL, DEFAULT_BATCH_SIZE
from hessdiag.problem.batches.images import IMAGES
from hessdiag.problem.batches.known import Known
from hessdiag.problem.files import lines
from hessdiag.problem.files.checkpoint import existing, sniff
from hessdiag.problem.loading import preparation, synthetic
from hessdiag.problem.loading.request import ProblemRequest, Session
from hessdiag.problem.spec import Spec, parse


def read(session: Session, spec: Spec, model: nn.Module, *, free_form: bool) -> Any:
    """What a path holds: a table of text, a folder of pictures, or arrays.

    Args:
        session: What is being loaded.
        spec: Of kind `file`.
        model: Which size, channels and scale of pictures suit it, and whether it takes tokens.
        free_form: Whether an objective will take batches of any form.

    Raises:
        SpecError: if its options are none of those that such data take.
        LoadError: if it cannot be read.
    """
    path = existing(spec.source)
    if path.is_dir() and sniff(path) == "folder" and not _holds_arrays(path):
        return _pictures(session, spec, path, model, free_form=free_form)
    form = None if path.is_dir() else lines.form_of(path)
    if form is not None:
        return _table(session.request, spec, path, form, model)
    _allowed(spec, ())
    return data.from_file(
        spec.source, spec.key, read=session.read, free_form=free_form, reconstructs=synthetic.reconstructs(model)
    )


def _holds_arrays(path: Path) -> bool:
    return any((path / name).is_file() for name in ("model.safetensors", "pytorch_model.bin", "config.json"))


def _allowed(spec: Spec, names: tuple[str, ...]) -> dict[str, Any]:
    """The options of a spec.

    Raises:
        SpecError: if one is none of those that such data take.
    """
    for name in spec.keywords:
        if name not in names:
            there = f"there is {', '.join(names)}" if names else "arrays and images of a file take none"
            hint = f"--data file:{spec.text}, if that is the whole name" if not names else f"--data '{spec.source}'"
            raise SpecError(f"{spec.text!r}: no option {name!r}; {there}.", hint)
    return spec.keywords


def wanted(request: ProblemRequest) -> int | None:
    """How many samples of a data set are needed; `None` for all."""
    if request.batches == ALL:
        return None
    return (request.batches or 1) * (request.batch_size or request.samples or DEFAULT_BATCH_SIZE)


def takes_tokens(model: nn.Module) -> bool:
    """Whether a model has an embedding, which takes whole numbers."""
    return any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in model.modules())


def _switch(options: Mapping[str, Any], name: str, usual: bool | None) -> bool | None:
    value = options.get(name, usual)
    if value is not usual and not isinstance(value, bool):
        raise SpecError(f"{name} is True or False, not {value!r}.", f"({name}=True)")
    return value


def _table(request: ProblemRequest, spec: Spec, path: Path, form: lines.Form, model: nn.Module) -> Known:
    options = _allowed(spec, tables.OPTIONS)
    inputs = options.get("inputs")
    names = [inputs] if isinstance(inputs, (str, int)) else inputs
    if names is not None and not (isinstance(names, (tuple, list)) and names):
        raise SpecError(f"inputs are names of columns, not {inputs!r}.", "(inputs=('a', 'b'))")
    return tables.read(
        path,
        form,
        spec.key,
        seed=request.seed,
        most=wanted(request),
        whole_inputs=takes_tokens(model),
        header=_switch(options, "header", None),
        inputs=None if names is None else [str(name) for name in names],
        shuffle=bool(_switch(options, "shuffle", True)),
    )


def _pictures(session: Session, spec: Spec, path: Path, model: nn.Module, *, free_form: bool) -> Known:
    request, options = session.request, _allowed(spec, preparation.OPTIONS)
    folder = pictures.listed(path)
    key = [name.strip() for name in (spec.key or "").split(",")]
    if spec.key is not None and (set(key) != {IMAGES} or len(key) > 2):
        raise SpecError(
            f"{spec.key!r} names nothing of a folder of pictures, whose labels are its folders or its labels.csv.",
            f"--data {spec.source}, or '{spec.source}#{IMAGES},{IMAGES}' for pictures as their own targets",
        )
    itself = len(key) == 2 or (spec.key is None and synthetic.reconstructs(model))
    alone = free_form and (spec.key is not None or folder.labels is None) and not itself
    if folder.labels is None and not (itself or alone):
        raise pictures.without_labels(path)
    shuffle = _switch(options, "shuffle", True)
    made, about = preparation.preparation(model, parse(request.model), folder, options, request.max_unpacked)
    return pictures.Pictures(
        replace(folder, labels=None) if alone else folder,
        made,
        request.seed if shuffle else None,
        request.max_unpacked,
        alone=alone,
        itself=itself,
        about=about,
    )
