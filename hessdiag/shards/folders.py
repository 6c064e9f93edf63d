"""The folder of a transformers model, built without numbers; its weights stay in their files until they are read."""

import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem.files import checkpoint, fitting
from hessdiag.problem.files.folder import bounded, parsed
from hessdiag.problem.files.state_dicts import Candidate, some
from hessdiag.problem.loading import hub
from hessdiag.problem.loading.request import Session
from hessdiag.problem.spec import Spec
from hessdiag.shards.reading import UNREAD
from hessdiag.shards.unfilled import without_numbers

_FIRST = 5  # the major version of transformers from which a model is what its config says, whatever its files hold


@dataclass(frozen=True)
class Unread:
    """A model without numbers, and where these are.

    Attributes:
        model: Its parameters are on the device meta.
        state: Tensors by the model's names, in their files.
        files: These.
        notes: Sentences for the reader.
    """

    model: nn.Module
    state: Mapping[str, Tensor]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def unread(session: Session, spec: Spec) -> Unread | None:
    """The model of a folder of safetensors, without numbers; `None` where transformers does more than to copy weights.

    That is where the weights of the files have other names or shapes than the model's, are to be converted, or lack
    some that are drawn at random.

    Args:
        session: Of the request.
        spec: What follows `hf:`.

    Raises:
        LoadError: if the folder is damaged.
        UntrustedFileError: if it would run code.
    """
    folder = Path(os.path.expanduser(spec.source))
    request = session.request
    if not folder.is_dir() or spec.keywords or request.trust_code:
        return None
    allowance = hub.checked_folder(folder, request.max_unpacked, trust_code=False)
    files = _files(folder)
    config_text = parsed(folder / "config.json", request.max_unpacked)
    if not files or "quantization_config" in config_text:
        return None
    transformers = hub.package("transformers")
    if int(transformers.__version__.partition(".")[0]) < _FIRST:
        return None
    state: dict[str, Tensor] = {}
    for file in files:
        state |= checkpoint.read(file, most=request.max_unpacked, mapped=True)
    with bounded(allowance), without_numbers(drawing=False):
        config, head = hub.architecture(transformers, str(folder), local_files_only=True)
        dtype = config.dtype or next((item.dtype for item in state.values() if item.is_floating_point()), None)
        if not hasattr(head, "_from_config") or (dtype is not None and dtype.itemsize < torch.float32.itemsize):
            return None  # of some models parts stay in float32 then
        model = head._from_config(config, attn_implementation="eager", **({"dtype": dtype} if dtype else {})).eval()
    if any(buffer.is_meta for buffer in model.buffers()) or _converts(model, state):
        return None
    fitting_state = _named(model, state)
    if fitting_state is None:
        return None
    ignored = model._keys_to_ignore_on_load_unexpected or ()
    expected = fitting.expected_of(model)
    unused = sorted(
        name
        for name in fitting_state
        if name not in expected and not any(re.search(pattern, name) for pattern in ignored)
    )
    notes = (f"weights: {some(unused)} of {spec.source} not used by {type(model).__name__}",) if unused else ()
    return Unread(model, fitting_state, tuple(files), notes)


def _files(folder: Path) -> list[Path]:
    """The files of safetensors that transformers would take: the whole one, or those of the index."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    return [path for path in checkpoint.shards(index) if path.is_file()] if index.is_file() else []


def _converts(model: Any, names: Iterable[str]) -> bool:
    """Whether transformers renames or recomputes some of these weights, or finds tied ones apart."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    names = set(names)
    tied = model.all_tied_weights_keys.items()
    return any(one in names and other in names for one, other in tied) or any(
        change.compiled_sources.search(name) for change in get_model_conversion_mapping(model) for name in names
    )


def _named(model: Any, state: dict[str, Tensor]) -> "OrderedDict[str, Tensor] | None":
    """The state by the model's own names: with or without the prefix of the model below the head."""
    expected = fitting.expected_of(model)
    prefix = f"{model.base_model_prefix}."
    longer = OrderedDict((f"{prefix}{name}" if f"{prefix}{name}" in expected else name, state[name]) for name in state)
    shorter = OrderedDict(
        (name.removeprefix(prefix) if name.removeprefix(prefix) in expected else name, state[name]) for name in state
    )
    for form in (OrderedDict(state), longer, shorter):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", UNREAD)
            view = fitting.views(model, Candidate("", form), expected)[0]
        if len(form) == len(state) and view.report.complete:
            return form
    return None
