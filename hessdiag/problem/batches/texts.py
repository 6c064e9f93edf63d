"""Data sets of Hugging Face's saved on disk: rows are drawn, and texts become tokens. Nothing is downloaded."""

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from hessdiag.errors import LoadError, SpecError, said
from hessdiag.problem.batches.known import Known, printable, shuffled
from hessdiag.problem.batches.tables import classes
from hessdiag.problem.files.folder import parsed

OPTIONS = ("text", "label", "length", "tokenizer", "shuffle")
LENGTH = 128  # tokens of a sample, unless the model takes fewer or others were asked for
IGNORED = -100
TEXTS = ("text", "sentence", "content", "document", "review")  # what a column of texts is usually called
LABELS = ("label", "labels")
_TOKENS = "input_ids"
_SHOWN = 8

Tokenizer = Callable[..., Mapping[str, Any]]


def is_saved(path: Path) -> bool:
    """Whether a folder is one of `save_to_disk`: a data set, or several splits of one."""
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def opened(path: Path, split: str | None) -> Any:
    """A data set of a folder, whose rows stay on the disk until they are asked for.

    Args:
        path: As `save_to_disk` wrote it.
        split: Which one of several.

    Raises:
        SpecError: if there are several splits, and none is named, or there is no such.
        LoadError: if the folder is damaged, or `datasets` is not installed.
    """
    if (path / "dataset_dict.json").is_file():
        content = parsed(path / "dataset_dict.json")
        names = content.get("splits") if isinstance(content, Mapping) else None
        there = [name for name in names or () if isinstance(name, str) and _inside(path, name)]
        if split is None and len(there) == 1:
            split = there[0]
        if split not in there:
            what = f"has no split {split!r}" if split is not None else "holds several splits"
            shown = ", ".join(map(printable, there)) or "none"
            raise SpecError(
                f"{path} {what}; there is {shown}.", f"--data '{path}#{printable((there or ['train'])[0])}'"
            )
        path = path / str(split)
    elif split is not None:
        raise SpecError(f"{path} is one data set, without splits such as {split!r}.", f"--data {path}")
    _check_files(path)
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise LoadError(
            f"{path} is a data set of Hugging Face's, and datasets does not work here ({said(error)}).",
            "pip install datasets",
        ) from error
    try:
        return datasets.load_from_disk(str(path), keep_in_memory=False)
    except Exception as error:
        raise LoadError(f"{path} is damaged as a data set: {said(error)}", "save_to_disk once more") from error


def _inside(path: Path, name: str) -> bool:
    return name not in ("", ".", "..") and Path(name).name == name and (path / name).is_dir()


def _check_files(path: Path) -> None:
    """That what a data set names lies in its own folder."""
    state = parsed(path / "state.json")
    files = state.get("_data_files") if isinstance(state, Mapping) else None
    names = [file.get("filename") for file in files if isinstance(file, Mapping)] if isinstance(files, list) else [None]
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (path / name).is_file():
            raise LoadError(f"{path} is damaged: its state.json names no file in it.", "save_to_disk once more")


@dataclass(frozen=True)
class Columns:
    """Which columns of a data set are used.

    Attributes:
        texts: One, or two that are read as a pair; empty where tokens are there already.
        label: Of classes or real numbers; `None` where the tokens themselves are predicted.
        tokens: Columns of tokens, masks and labels that are taken as they are.
    """

    texts: tuple[str, ...]
    label: str | None
    tokens: tuple[str, ...] = ()


def columns(dataset: Any, where: str, text: Any = None, label: Any = None, *, causal: bool) -> Columns:
    """Which columns to use: those asked for, or those that are called or made so.

    Args:
        dataset: With `column_names` and `features`.
        where: Its name for messages.
        text: Name of a column of texts, or two.
        label: Name of the column of labels.
        causal: Whether the tokens themselves are predicted.

    Raises:
        SpecError: if that does not tell, or there is no such column.
    """
    there = list(dataset.column_names)
    asked = [text] if isinstance(text, str) else list(text or ())
    for name in [*asked, *([label] if label is not None else [])]:
        if name not in there:
            shown = ", ".join(map(printable, there[:_SHOWN]))
            raise SpecError(f"{where} has no column {name!r}; there is {shown}.", f"(text='{printable(there[0])}')")
    if len(asked) > 2:
        raise SpecError("text is one column, or two that are read as a pair.", "(text=('premise', 'hypothesis'))")
    found_label = label or (None if causal else next((name for name in LABELS if name in there), None))
    if _TOKENS in there and not asked:
        own = ("labels",) if causal and "labels" in there else ()
        return Columns(
            (), found_label, (_TOKENS, *(n for n in ("attention_mask", "token_type_ids") if n in there), *own)
        )
    strings = [name for name in there if _is_text(dataset.features[name])]
    usual = [name for name in TEXTS if name in strings]
    chosen = asked or usual[:1] or (strings if len(strings) == 1 else [])
    if not chosen:
        shown = ", ".join(map(printable, there[:_SHOWN]))
        raise SpecError(
            f"which column of {where} is the text cannot be told; it has {shown}.",
            f"(text='{printable((strings or there or ['text'])[0])}')",
        )
    return Columns(tuple(chosen), found_label)


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


@dataclass(frozen=True, eq=False)
class Texts(Known, IterableDataset[Any]):
    """Rows of a data set as tokens, each made when it is asked for.

    Attributes:
        dataset: The rows.
        columns: Which ones are used.
        tokenizer: Makes tokens of texts; `None` where they are there.
        length: Tokens of a sample at most; later ones are cut off.
        padding: The token that fills up what is shorter than the longest of its batch; it is masked.
        seed: Of their order; `None` keeps that of the file.
        about: Where the tokenizer is from, in words.
        where: The folder, for messages.
    """

    dataset: Any
    columns: Columns
    tokenizer: Tokenizer | None
    length: int
    padding: int
    seed: int | None
    about: tuple[str, ...] = ()
    where: str = ""
    _left: list[int] = field(default_factory=list)  # rows of too few tokens

    @functools.cached_property
    def total(self) -> int:  # type: ignore[override]
        """All rows, those that are left out among them."""
        return len(self.dataset)

    @functools.cached_property
    def _classes(self) -> list[str]:
        """Names of the classes, where labels are text."""
        label = self.columns.label
        return sorted(self.dataset.unique(label)) if label and _is_text(self.dataset.features[label]) else []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        count, self._left[:] = len(self.dataset), []
        for place in range(count) if self.seed is None else shuffled(count, self.seed):
            sample = self._sample(self.dataset[place], place)
            if len(sample[_TOKENS]) < (2 if self.columns.label is None else 1):  # nothing follows
                self._left.append(place)
            else:
                yield sample

    def _sample(self, row: Mapping[str, Any], place: int) -> dict[str, Any]:
        if self.tokenizer is None:
            sample: dict[str, Any] = {name: list(row[name])[: self.length] for name in self.columns.tokens}
        else:
            texts = [row[name] for name in self.columns.texts]
            if not all(isinstance(text, str) for text in texts):
                name = self.columns.texts[[isinstance(text, str) for text in texts].index(False)]
                raise LoadError(
                    f"{self.where}, row {place}, column {printable(name)}: there is no text.", "filter it out"
                )
            sample = dict(self.tokenizer(*texts, truncation=True, max_length=self.length))
        if self.columns.label is not None:
            label = row[self.columns.label]
            if label is None:
                raise LoadError(f"{self.where}, row {place}: there is no label.", "filter it out")
            sample["labels"] = self._classes.index(label) if self._classes else label
        return sample

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """One batch, filled up at the end to its longest sample."""
        longest = max(len(sample[_TOKENS]) for sample in samples)
        fill = {_TOKENS: self.padding, "labels": IGNORED}
        batch = {}
        for name in samples[0]:
            values = [sample[name] for sample in samples]
            each = name != "labels" or self.columns.label is None
            if each:
                values = [list(value) + [fill.get(name, 0)] * (longest - len(value)) for value in values]
            batch[name] = torch.tensor(values)
        if "attention_mask" not in batch:
            lengths = torch.tensor([len(sample[_TOKENS]) for sample in samples])
            batch["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
        return batch

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Known`."""
        used = self.columns
        what = f"texts of column {' and '.join(map(printable, used.texts))}" if used.texts else "rows of tokens"
        labels = f", labels of column {printable(used.label)}" if used.label else ""
        order = "as filed" if self.seed is None else f"drawn from seed {self.seed}; (shuffle=False) keeps the file's"
        said = [
            f"data: {self.total:,} {what}{labels}; {self.length} tokens of each at most, padding masked",
            *self.about,
            *([classes(self._classes)] if self._classes else []),
            f"data: rows in an order {order}",
        ]
        if self._left:
            said.append(f"data: {len(self._left):,} rows of too few tokens are left out")
        return tuple(said)
