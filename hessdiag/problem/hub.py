"""Models by name: the built-in networks, Hugging Face transformers, timm and torchvision."""

import difflib
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from hessdiag.errors import LoadError, SpecError, UntrustedFileError
from hessdiag.nets import BUILTINS
from hessdiag.problem import foreign
from hessdiag.problem.checkpoint import existing
from hessdiag.problem.images import Images, digits
from hessdiag.problem.python import call
from hessdiag.problem.spec import Spec
from hessdiag.problem.state_dicts import some
from hessdiag.problem.trust import said

DATA_SETS = {"digits": digits}


def load_builtin(spec: Spec) -> nn.Module:
    """A network of `hessdiag.nets`.

    Raises:
        SpecError: if there is none of this name, or it does not take these arguments.
    """
    if spec.source not in BUILTINS:
        close = difflib.get_close_matches(spec.source, BUILTINS, n=1)
        hint = f"builtin:{close[0]}" if close else "hessdiag ls builtins"
        raise SpecError(f"there is no built-in network {spec.source!r}; there are {', '.join(BUILTINS)}.", hint)
    home, _, name = BUILTINS[spec.source][0].partition(":")
    return _module(spec, call(spec, getattr(importlib.import_module(home), name)))


def load_builtin_data(spec: Spec) -> Images:
    """A data set that comes with a library.

    Raises:
        SpecError: if there is none of this name, or it does not take these arguments.
        LoadError: if the library is not installed.
    """
    if spec.source not in DATA_SETS:
        raise SpecError(
            f"there is no built-in data set {spec.source!r}; there is {', '.join(DATA_SETS)}.", "--data builtin:digits"
        )
    images: Images = call(spec, DATA_SETS[spec.source])
    return images


def load_hf(spec: Spec, *, trust_code: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """A transformers model with the head that its config names; from a local folder nothing is downloaded.

    Returns:
        The model, and a note on weights that its files lack, which are random then.

    Raises:
        UntrustedFileError: if the model brings code of its own.
        LoadError: if transformers is not installed, or the model cannot be loaded.
    """
    local = spec.source.startswith((".", "/", "~")) or Path(spec.source).is_dir()
    source = str(existing(spec.source)) if local else spec.source
    transformers = _package("transformers", "hf")
    common = {"revision": spec.revision, "trust_remote_code": trust_code, "local_files_only": local}
    if local and not trust_code:
        _refuse_remote_code(Path(source))
    try:
        config = transformers.AutoConfig.from_pretrained(source, **common)
        names = [name for name in config.architectures or () if hasattr(transformers, name)]
        head = getattr(transformers, names[0]) if names else transformers.AutoModel
        options = {"attn_implementation": "eager", "output_loading_info": True, **common, **spec.keywords}
        model, loaded = head.from_pretrained(source, **options)
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise _remote_code(spec.source) from error
        hint = None if local else f"hf:./FOLDER, with {spec.source} downloaded into it"
        raise LoadError(f"transformers cannot load {spec.source}: {said(error)}", hint) from error
    lacking = sorted(map(str, loaded.get("missing_keys", ())))
    note = f"weights: {some(lacking)} not in {spec.source}, drawn at random"
    return _module(spec, model), (note,) if lacking else ()


def _refuse_remote_code(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (other := foreign.folder(folder)) is not None:
            raise other from None
        raise LoadError(f"{folder} has no config.json: it is not a folder of a transformers model.") from None
    except (OSError, ValueError) as error:
        raise LoadError(f"{folder / 'config.json'} cannot be read: {said(error)}") from error
    if config.get("auto_map"):
        raise _remote_code(str(folder), config["auto_map"])


def _remote_code(source: str, auto_map: Any = None) -> UntrustedFileError:
    names = ", ".join(map(str, auto_map.values())) if isinstance(auto_map, dict) else "code of its own"
    return UntrustedFileError(
        f"{source} brings its own model code ({names}); nothing of it was run.",
        "--trust-code, if you have read that code",
    )


def load_timm(spec: Spec) -> nn.Module:
    """A timm model, without pretrained weights unless the spec asks for them."""
    timm = _package("timm", "timm")
    return _by_name(spec, timm.create_model, pretrained=False)


def load_torchvision(spec: Spec) -> nn.Module:
    """A torchvision model, without pretrained weights unless the spec asks for them."""
    models = _package("torchvision.models", None)
    return _by_name(spec, models.get_model, weights=None)


def _by_name(spec: Spec, create: Any, **defaults: Any) -> nn.Module:
    try:
        model = create(spec.source, **{**defaults, **spec.keywords})
    except Exception as error:
        raise SpecError(f"{spec.kind} does not build {spec.source!r}: {said(error)}") from error
    return _module(spec, model)


def _package(name: str, extra: str | None) -> ModuleType:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation raises many things
        command = f"pip install 'hessdiag[{extra}]'" if extra else f"pip install {package}"
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({said(error)})"
        raise LoadError(f"this spec needs {package}, which {reason}.", command) from error


def _module(spec: Spec, value: Any) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise LoadError(f"{spec.text} gives a {type(value).__name__}, not a torch.nn.Module.")
    return value
