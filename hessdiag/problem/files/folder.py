"""The folder of a transformers model: its texts and weights are looked at before anything is built of them."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError, said
from hessdiag.problem.files import trust
from hessdiag.problem.files.allowance import Allowance

COST = 32  # bytes of Python objects for one of JSON, as of lists in lists
DEEPEST = 100  # levels of JSON: configs have five
LEAST = 4096  # bytes that a parameter counts for at least: its objects, and the time to make it
_TEXTS = ("config.json", "generation_config.json", "adapter_config.json")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_REPEATED = re.compile("layer|depth|block")  # in the names of what says how often parts are repeated


def parsed(path: Path, most: int | None = None) -> Any:
    """What a JSON file holds, within what it may take.

    Args:
        path: The file.
        most: Bytes that it may unpack to; by default what `Allowance` gives it.

    Raises:
        LoadError: if it is no file, takes more, is nested too deeply or is no JSON.
    """
    if path.exists() and not path.is_file():
        raise LoadError(f"{path} is no regular file.")
    try:
        size = path.stat().st_size
        Allowance.of(path, most).check(COST * size)
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise _deep(path) from None
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read: {said(error)}") from error
    if _depth(content) > DEEPEST:
        raise _deep(path)
    return content


def _deep(path: Path) -> LoadError:
    return LoadError(f"{path} is damaged or made up: it is nested more than {DEEPEST} levels deep.")


def _depth(content: Any) -> int:
    """How deeply lists and mappings are nested; no more than `DEEPEST` + 1 are looked at."""
    level, depth = [content], 0
    while level and depth <= DEEPEST:
        inner = [
            list(item.values()) if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))
        ]
        level, depth = [item for items in inner for item in items], depth + bool(inner)
    return depth


def checked(folder: Path, most: int | None, *, trust_code: bool) -> tuple[Mapping[str, Any], Allowance]:
    """The config of a model's folder, and what the model may take: a multiple of its weights.

    Args:
        folder: With a config.json.
        most: Bytes that it may take, if another number was asked for.
        trust_code: Whether pickles of weights may be anything.

    Raises:
        LoadError: if a text is too large, too deep or no JSON, weights are damaged or made up, or the config repeats
            parts more often than the weights could fill.
        UntrustedFileError: if weights are a pickle that would run code.
    """
    texts = {path.name: parsed(path, most) for path in _texts(folder)}
    config = texts["config.json"]
    if not isinstance(config, Mapping):
        raise LoadError(f"{folder / 'config.json'} holds a {type(config).__name__}, and no settings by name.")
    files = [path for pattern in _WEIGHTS for path in sorted(folder.glob(pattern)) if path.is_file()]
    if not trust_code:
        for path in files:
            found = trust.scan(path, Allowance.of(path, most)) if path.suffix == ".bin" else None
            if found is not None and found.error is not None:
                raise trust.refused(path, found.error)
    allowance = Allowance.of_files(folder, files, most)
    allowance.check(LEAST * max(_repeated(config), default=0))
    return config, allowance


def _texts(folder: Path) -> Iterator[Path]:
    names = [*_TEXTS, *(path.name for path in sorted(folder.glob("*.index.json")))]
    yield from (folder / name for name in names if (folder / name).exists() or name == _TEXTS[0])


def _repeated(config: Mapping[str, Any]) -> Iterator[int]:
    """How often a config says that parts are repeated, those of nested configs included."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _repeated(value)
        elif _REPEATED.search(str(name)):
            numbers = value if isinstance(value, list) else [value]
            yield sum(number for number in numbers if isinstance(number, int))


@contextmanager
def bounded(allowance: Allowance) -> Iterator[None]:
    """Refuse, within this context, modules whose parameters and buffers together are larger than they may.

    Args:
        allowance: Of the files that fill them.
    """
    sizes: dict[tuple[int, str], int] = {}
    total = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal total
        if tensor is not None and not isinstance(tensor, nn.parameter.UninitializedParameter):
            size = max(tensor.numel() * tensor.element_size(), LEAST)
            total += size - sizes.get((id(module), name), 0)
            sizes[id(module), name] = size
            allowance.check(total)

    home = torch.nn.modules.module
    handles = [
        home.register_module_parameter_registration_hook(count),
        home.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
