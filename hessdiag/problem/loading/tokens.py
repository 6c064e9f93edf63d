"""Texts for a model of tokens: its tokenizer, found in a folder beside it, and how much of a text it takes."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from hessdiag.errors import LoadError, SpecError, said
from hessdiag.problem.batches import texts
from hessdiag.problem.batches.known import printable
from hessdiag.problem.loading import online, own_inputs, own_loss
from hessdiag.problem.loading.asked import allowed, switch
from hessdiag.problem.loading.request import ProblemRequest
from hessdiag.problem.spec import Spec, parse

_FILES = ("tokenizer.json", "tokenizer_config.json")
_NAME = "tokenizer"


def read(request: ProblemRequest, spec: Spec, path: Path, model: nn.Module) -> texts.Texts:
    """The rows of a data set of Hugging Face's as the model takes them.

    Args:
        request: Whose model spec says where the tokenizer may be, and whose seed draws the rows.
        spec: Of the data: split after `#`, options in parentheses.
        path: The folder.
        model: Of transformers, or one that takes the same names.

    Raises:
        SpecError: if split, columns or options are none.
        LoadError: if the folder is damaged, or there is no tokenizer.
    """
    options = allowed(spec, texts.OPTIONS)
    dataset = texts.opened(path, spec.key)
    _without_pictures(dataset, spec.source)
    causal = own_loss.takes_labels(model) and own_loss.is_causal(model)
    used = texts.columns(dataset, spec.source, options.get("text"), options.get("label"), causal=causal)
    _labelled(request, model, dataset, used)
    tokenizer, about = (None, ()) if used.tokens else _tokenizer(request, options.get("tokenizer"), path)
    names = [name for name in (*used.texts, *used.tokens, used.label) if name is not None]
    padding = getattr(tokenizer, "pad_token_id", None)
    return texts.Texts(
        dataset.with_format(None).select_columns(list(dict.fromkeys(names))),
        used,
        tokenizer,
        _length(options.get("length"), model, tokenizer),
        _padding(model) if padding is None else padding,
        request.seed if switch(options, "shuffle", True) else None,
        about,
        spec.source,
    )


def _without_pictures(dataset: Any, source: str) -> None:
    """Refuse a data set of pictures.

    Raises:
        LoadError: naming the column.
    """
    pictures = [name for name, kind in dataset.features.items() if type(kind).__name__ == "Image"]
    if pictures:
        raise LoadError(
            f"{printable(pictures[0])} of {source} holds pictures, which are read from folders and from your own code.",
            "--data train.py:loader, a DataLoader whose batches hold pixel_values and labels; or a folder of pictures",
        )


def _labelled(request: ProblemRequest, model: nn.Module, dataset: Any, used: texts.Columns) -> None:
    """Refuse texts without labels for a model whose loss is of labels.

    Raises:
        SpecError: if a column could hold them, and none was named and none is called so.
        LoadError: if none could.
    """
    if used.label or request.loss or request.objective or not own_loss.takes_labels(model) or own_loss.is_causal(model):
        return
    there = [name for name in dataset.column_names if name not in (*used.texts, *used.tokens)]
    likely = [name for name in there if name not in ("id", "idx", "index")]
    if likely:
        shown = ", ".join(map(printable, there[:8]))
        raise SpecError(
            f"which column of {request.data} holds the labels cannot be told; there is {shown}.",
            f"(label={printable(likely[0])!r}) at the end of --data",
        )
    raise LoadError(
        f"{request.data} holds no labels, and the loss of {type(model).__name__} is of labels: where tokens are "
        "masked, a collator makes them.",
        "--data train.py:loader, a DataLoader with the collator of your Trainer",
    )


def _length(asked: Any, model: nn.Module, tokenizer: Any) -> int:
    """How many tokens of a sample are taken."""
    config: Any = getattr(model, "config", None)
    limits = [getattr(tokenizer, "model_max_length", None), getattr(config, "max_position_embeddings", None)]
    most = min(limit for limit in (*limits, 1 << 20) if isinstance(limit, int) and limit > 0)
    if asked is None:
        return min(texts.LENGTH, most)
    if not isinstance(asked, int) or isinstance(asked, bool) or not 2 <= asked <= most:
        raise SpecError(
            f"length={asked!r} is no number of tokens from 2 to {most:,}, which the model takes.",
            f"(length={min(texts.LENGTH, most)})",
        )
    return asked


def _padding(model: nn.Module) -> int:
    """A token to fill up with where the tokenizer has none for it: it is masked, and never predicted."""
    found = getattr(getattr(model, "config", None), "pad_token_id", None)
    return found if isinstance(found, int) and 0 <= found < max(own_inputs.vocabulary(model), 1) else 0


def _tokenizer(request: ProblemRequest, asked: Any, data: Path) -> tuple[Any, tuple[str, ...]]:
    if asked is not None and not isinstance(asked, str):
        raise SpecError(f"tokenizer={asked!r} is no folder.", "(tokenizer='./FOLDER')")
    places = [Path(asked).expanduser()] if asked is not None else list(_places(request, data))
    found = next((place for place in places if any((place / name).is_file() for name in _FILES)), None)
    name = parse(request.model).source if parse(request.model).kind == "hf" else None
    if found is None and (asked is not None or name is None or Path(name).is_dir()):
        looked, plain = ", ".join(map(str, places)), (request.data or "").partition("(")[0]
        raise LoadError(
            f"{data} holds texts, and there is no tokenizer ({_FILES[0]}) in {looked}.",
            f"{plain}(tokenizer='FOLDER'), where tokenizer.save_pretrained('FOLDER') wrote it",
        )
    source = str(found if found is not None else name)
    try:
        transformers = importlib.import_module("transformers")
        with online.offline(True):
            made = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise LoadError(
            f"the tokenizer of {source} cannot be loaded: {said(error)}", "(tokenizer='FOLDER') with another one"
        ) from error
    return made, (f"data: the tokenizer is that of {source}",)


def _places(request: ProblemRequest, data: Path) -> Iterator[Path]:
    """Folders in which the tokenizer may be: the model's, and those called so beside model and data."""
    spec = parse(request.model)
    homes = [Path(spec.source).expanduser()] if spec.kind in ("hf", "file") else []
    for home in homes:
        yield from (home, home / _NAME, home.parent / _NAME)
    yield from (data / _NAME, data.parent / _NAME)
