"""What a file or a folder that `--data` names holds, as the model can take it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from hessdiag.errors import SpecError
from hessdiag.problem.batches import batch as batch_forms
from hessdiag.problem.batches import data as data_forms
from hessdiag.problem.batches import pictures, tables, texts
from hessdiag.problem.batches.data import ALL, DEFAULT_BATCH_SIZE
from hessdiag.problem.batches.images import IMAGES
from hessdiag.problem.batches.known import Known
from hessdiag.problem.files import lines
from hessdiag.problem.files.checkpoint import existing, sniff
from hessdiag.problem.loading import fit, preparation, synthetic, tokens
from hessdiag.problem.loading.asked import allowed, switch
from hessdiag.problem.loading.request import ProblemRequest, Session, Shared
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
    if path.is_dir() and texts.is_saved(path):
        return tokens.read(session.request, spec, path, model)
    if path.is_dir() and sniff(path) == "folder" and not _holds_arrays(path):
        return _pictures(session, spec, path, model, free_form=free_form)
    form = None if path.is_dir() else lines.form_of(path)
    if form is not None:
        return _table(session.request, spec, path, form, model)
    allowed(spec, ())
    return data_forms.from_file(
        spec.source, spec.key, read=session.read, free_form=free_form, reconstructs=synthetic.reconstructs(model)
    )


def _holds_arrays(path: Path) -> bool:
    return any((path / name).is_file() for name in ("model.safetensors", "pytorch_model.bin", "config.json"))


def read_data(
    data: str, model: nn.Module, *, batches: int = 1, batch_size: int = DEFAULT_BATCH_SIZE, seed: int = 0
) -> tuple[list[Any], tuple[str, ...]]:
    """Batches of what lies on the disk: pictures, tables, arrays, data sets of Hugging Face's; as `--data` takes them.

    Args:
        data: `images/`, `iris.csv#species`, `batch.npz`, `images/(size=224, mean='imagenet')`, ...
        model: The model that they are for: it decides the size of pictures, and which tokenizer is meant.
        batches: How many to take; -1 for all. A file of arrays is one batch, unless it holds more.
        batch_size: Samples in a batch.
        seed: Of the order in which samples are drawn.

    Returns:
        Batches, and notes on what was done: `Problem(model, data=batches, loss="ce", notes=notes)`.

    Raises:
        SpecError: if `data` is no path, or has no such options.
        LoadError: if it cannot be read.
    """
    spec = parse(data)
    if spec.kind != "file":
        raise SpecError(f"{data!r} is no path.", "read_data('./images/', model)")
    home = str(getattr(getattr(model, "config", None), "name_or_path", "") or "")
    origin = f"hf:{home}" if home else "file:model"
    request = ProblemRequest(origin, data=data, batches=batches, batch_size=batch_size, seed=seed)
    session = Session(request, Shared())
    found = read(session, spec, model, free_form=False)
    if not isinstance(found, Known):
        found, notes = data_forms.plain_numbers(data_forms.as_batches(found)[0], tokens=takes_tokens(model))
        return found, notes
    taken, notes = data_forms.as_batches(found, batches=batches, batch_size=batch_size, seed=seed)
    notes += found.notes
    if isinstance(found, pictures.Pictures):
        taken, more = fit.flattened(model, taken)
        notes += more
    return [batch_forms.placed(batch, model) for batch in taken], notes


def wanted(request: ProblemRequest) -> int | None:
    """How many samples of a data set are needed; `None` for all."""
    if request.batches == ALL:
        return None
    return (request.batches or 1) * (request.batch_size or request.samples or DEFAULT_BATCH_SIZE)


def takes_tokens(model: nn.Module) -> bool:
    """Whether a model has an embedding, which takes whole numbers."""
    return any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in model.modules())


def _table(request: ProblemRequest, spec: Spec, path: Path, form: lines.Form, model: nn.Module) -> Known:
    options = allowed(spec, tables.OPTIONS)
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
        header=switch(options, "header", None),
        inputs=None if names is None else [str(name) for name in names],
        shuffle=bool(switch(options, "shuffle", True)),
    )


def _pictures(session: Session, spec: Spec, path: Path, model: nn.Module, *, free_form: bool) -> Known:
    request, options = session.request, allowed(spec, preparation.OPTIONS)
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
    shuffle = switch(options, "shuffle", True)
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
