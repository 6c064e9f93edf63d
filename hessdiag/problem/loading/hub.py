"""Models by name: the built-in networks, Hugging Face transformers, timm and torchvision."""

import contextlib
import difflib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from hessdiag.errors import LoadError, SpecError, UntrustedFileError, said
from hessdiag.nets import BUILTINS, TASKS
from hessdiag.packages import distribution
from hessdiag.problem.batches.images import Images, digits
from hessdiag.problem.files import foreign
from hessdiag.problem.files.allowance import Allowance
from hessdiag.problem.files.checkpoint import existing
from hessdiag.problem.files.folder import bounded, checked
from hessdiag.problem.files.state_dicts import some
from hessdiag.problem.loading import online
from hessdiag.problem.loading.python import call
from hessdiag.problem.spec import Spec

DATA_SETS = {"digits": digits}


def load_builtin(spec: Spec, seed: int = 0) -> Any:
    """A network of `hessdiag.nets`; of a training task, also its data and loss.

    Args:
        spec: What follows `builtin:`.
        seed: Of a task, unless the spec gives one.

    Raises:
        SpecError: if there is none of this name, or it does not take these arguments.
    """
    known = BUILTINS | TASKS
    if spec.source not in known:
        close = difflib.get_close_matches(spec.source, known, n=1)
        hint = f"builtin:{close[0]}" if close else "hessdiag ls builtins"
        raise SpecError(f"there is no built-in network {spec.source!r}; there are {', '.join(known)}.", hint)
    home, _, name = known[spec.source][0].partition(":")
    made = getattr(importlib.import_module(home), name)
    if spec.source in TASKS:
        return call(replace(spec, arguments=tuple(({"seed": seed} | spec.keywords).items())), made)
    return _module(spec, call(spec, made))


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


def load_hf(
    spec: Spec, *, trust_code: bool, reachable: Callable[[], bool], most: int | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    """A transformers model with the head that its config names; from a local folder nothing is downloaded.

    Args:
        spec: What follows `hf:`.
        trust_code: Let the model bring code of its own.
        reachable: Whether the hub can be reached; asked for no local folder.
        most: Bytes that a local folder may unpack to; by default a multiple of its weights.

    Returns:
        The model, and a note on weights that its files lack, which are random then.

    Raises:
        UntrustedFileError: if the model brings code of its own.
        SpecError: if the hub can have no such name.
        LoadError: if transformers is not installed, or the model cannot be loaded.
    """
    local = spec.source.startswith((".", "/", "~")) or Path(spec.source).is_dir()
    source = str(existing(spec.source)) if local else spec.source
    try:
        cached = local or online.is_cached(spec.source, spec.revision)
    except ValueError as error:
        raise SpecError(
            f"{spec.source!r} is no name that the hub can have. {error}",
            "hf:NAME or hf:OWNER/NAME; hf:./FOLDER for one of yours",
        ) from error
    _found("transformers")  # takes seconds to import, which nobody has to wait for to hear that there is no network
    cached_only = not local and not reachable()
    if cached_only and not cached:
        raise _not_cached(spec.source)
    online.hide_if_broken("torchvision")
    transformers = package("transformers")
    if not cached:
        warnings.warn(f"{spec.source} is being downloaded; `hf download {spec.source}` shows how far", stacklevel=2)
    common = {"revision": spec.revision, "trust_remote_code": trust_code, "local_files_only": local or cached_only}
    allowance = checked_folder(Path(source), most, trust_code=trust_code) if local else None
    try:
        with online.offline(cached_only), contextlib.nullcontext() if allowance is None else bounded(allowance):
            _, head = architecture(transformers, source, **common)
            options = {"attn_implementation": "eager", "output_loading_info": True, **common, **spec.keywords}
            model, loaded = head.from_pretrained(source, **options)
    except LoadError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise _remote_code(spec.source) from error
        if cached_only and isinstance(error, OSError):
            raise _not_cached(spec.source) from error
        hint = None if local else f"https://huggingface.co/{spec.source} says whether it exists and who may read it"
        raise LoadError(f"transformers cannot load {spec.source}: {said(error)}", hint) from error
    notes = [f"weights: from this machine's cache of {spec.source}; the hub does not answer"] if cached_only else []
    if lacking := sorted(map(str, loaded.get("missing_keys", ()))):
        notes.append(f"weights: {some(lacking)} not in {spec.source}, drawn at random")
    if unused := sorted(map(str, loaded.get("unexpected_keys", ()))):
        notes.append(f"weights: {some(unused)} of {spec.source} not used by {type(model).__name__}")
    return _module(spec, model), tuple(notes)


def architecture(transformers: Any, source: str, **options: Any) -> tuple[Any, Any]:
    """The config of a transformers model, and the class that it names, with its head."""
    config = transformers.AutoConfig.from_pretrained(source, **options)
    names = [name for name in config.architectures or () if hasattr(transformers, name)]
    return config, getattr(transformers, names[0]) if names else transformers.AutoModel


def _not_cached(name: str) -> LoadError:
    return LoadError(
        f"{name} is not in this machine's cache, and huggingface.co cannot be reached from here.",
        f"hf download {name} --local-dir {name.rpartition('/')[2]}, where there is a network; "
        f"then hf:./{name.rpartition('/')[2]}",
    )


def checked_folder(folder: Path, most: int | None, *, trust_code: bool) -> Allowance:
    """What the model in a folder may take; its files are looked at first.

    Raises:
        LoadError: if it is no folder of a transformers model, or its files are damaged or made up.
        UntrustedFileError: if it brings code of its own, or its weights would run some.
    """
    if not (folder / "config.json").exists():
        if (other := foreign.folder(folder)) is not None:
            raise other
        raise LoadError(f"{folder} has no config.json: it is not a folder of a transformers model.")
    config, allowance = checked(folder, most, trust_code=trust_code)
    if config.get("auto_map") and not trust_code:
        raise _remote_code(str(folder), config["auto_map"])
    return allowance


def _remote_code(source: str, auto_map: Any = None) -> UntrustedFileError:
    names = ", ".join(map(str, auto_map.values())) if isinstance(auto_map, dict) else "code of its own"
    return UntrustedFileError(
        f"{source} brings its own model code ({names}); nothing of it was run.",
        "--trust-code, if you have read that code",
    )


def load_timm(spec: Spec) -> nn.Module:
    """A timm model, without pretrained weights unless the spec asks for them."""
    timm = package("timm")
    return _by_name(spec, timm.create_model, getattr(timm, "list_models", list), pretrained=False)


def load_torchvision(spec: Spec) -> nn.Module:
    """A torchvision model, without pretrained weights unless the spec asks for them."""
    models = package("torchvision.models")
    return _by_name(spec, models.get_model, getattr(models, "list_models", list), weights=None)


def is_classifier(spec: Spec, model: nn.Module) -> bool:
    """Whether a model came from a library of image classifiers, with its head."""
    return spec.kind in ("timm", "torchvision") and getattr(model, "num_classes", None) != 0


def _by_name(spec: Spec, create: Any, known: Any, **defaults: Any) -> nn.Module:
    options = {**defaults, **spec.keywords}
    host = online.TORCHVISION if spec.kind == "torchvision" else "https://huggingface.co"
    wanted = any(options.get(name) for name in ("pretrained", "weights"))
    cached_only = wanted and not (online.answers(host) if spec.kind == "torchvision" else online.hub_answers())
    try:
        with online.offline(cached_only):
            model = create(spec.source, **options)
    except Exception as error:
        if cached_only and isinstance(error, OSError):
            raise LoadError(
                f"the pretrained weights of {spec.source} are not in this machine's cache, and "
                f"{host.partition('//')[2]} cannot be reached from here.",
                f"'{spec.kind}:{spec.source}', with random weights, and --weights FILE",
            ) from error
        near = difflib.get_close_matches(spec.source, known(), n=1)
        hint = f"{spec.kind}:{near[0]}" if near and near[0] != spec.source else None
        raise SpecError(f"{spec.kind} does not build {spec.source!r}: {said(error)}", hint) from error
    return _module(spec, model)


def _found(name: str) -> None:
    """Refuse a spec whose package is not installed, without importing it."""
    missing = sys.modules[name] is None if name in sys.modules else importlib.util.find_spec(name) is None
    if missing:
        raise LoadError(f"this spec needs {name}, which is not installed.", f"pip install {name}")


def package(name: str) -> ModuleType:
    """A package that a spec needs.

    Raises:
        LoadError: if it is not installed, or cannot be imported.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        reason = "is not installed" if error.name in (name, package) else f"lacks {error.name}"
        raise LoadError(
            f"this spec needs {package}, which {reason}.", f"pip install {distribution(error.name or package)}"
        ) from error
    except Exception as error:  # a broken installation raises many things
        raise LoadError(
            f"this spec needs {package}, which cannot be imported ({said(error)}).",
            f"pip install --force-reinstall torch {package}, both from one index: they have to fit",
        ) from error


def _module(spec: Spec, value: Any) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise LoadError(f"{spec.text} gives a {type(value).__name__}, not a torch.nn.Module.")
    return value
