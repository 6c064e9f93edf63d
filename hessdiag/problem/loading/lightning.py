"""LightningModules and LightningDataModules that a spec gives: their loss, their data, their checkpoints."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader

from hessdiag.errors import LoadError, said
from hessdiag.problem.files.state_dicts import some
from hessdiag.problem.lightning import kinds, step
from hessdiag.problem.loading import python
from hessdiag.problem.loading.request import Parts, Session
from hessdiag.problem.spec import Spec

CHECKPOINT = "pytorch-lightning_version"
_PLAIN = (bool, int, float, str, type(None))


def completed(parts: Parts) -> Parts:
    """The parts with what a LightningModule among them brings where nothing else was said: its loss, and its batches.

    Raises:
        LoadError: if its training step is no objective, or its own batches cannot be had.
    """
    model = parts.model
    if not kinds.is_module(model):
        return parts
    if kinds.overrides(model, "configure_model"):
        _run(model, "configure_model", "the model is built there")
    if parts.data is None and kinds.overrides(model, "train_dataloader"):
        note = f"data: train_dataloader of {type(model).__name__}"
        parts = replace(parts, data=_loaded(model, "train_dataloader"), notes=(*parts.notes, note))
    if parts.loss is not None or parts.objective is not None:
        return parts
    return replace(parts, objective=step.objective_of(model), notes=(*parts.notes, *step.notes(model)))


def at_epoch(parts: Parts, content: Any, notes: list[str]) -> Parts:
    """The parts with the epoch and the step of a Lightning checkpoint, for a training step that reads them."""
    if not (isinstance(parts.objective, step.TrainingStep) and is_checkpoint(content)):
        return parts
    if kinds.overrides(parts.model, "on_load_checkpoint"):
        notes.append(f"weights: the on_load_checkpoint of {type(parts.model).__name__} is not run")
    epoch, count = (_number(content.get(name)) for name in ("epoch", "global_step"))
    return replace(parts, objective=step.TrainingStep(epoch, count))


def is_checkpoint(content: Any) -> bool:
    """Whether a file's content is what Lightning saves."""
    return isinstance(content, Mapping) and CHECKPOINT in content


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def of_checkpoint(session: Session, spec: Spec, content: Callable[[], Any]) -> Any:
    """A module or data module whose class a spec names, with its settings of the checkpoint; `None` for other specs.

    The class is called with the checkpoint's `hyper_parameters` that it takes, and with those of the spec instead where
    it gives some. Settings that were saved as one argument (`save_hyperparameters(config)`) are given as that, a dict.

    Args:
        session: Of this load.
        spec: Of a script or a module.
        content: Gives what `--weights` names.
    """
    if session.request.weights is None:
        return None
    kind = python.load_object(replace(spec, arguments=None), session.scripts)
    what, prefix = next((which for test, *which in _SAVED if test(kind)), (None, ""))
    if what is None:
        return None
    found = content()
    saved = found.get(f"{prefix}hyper_parameters") if is_checkpoint(found) else None
    if not isinstance(saved, Mapping):
        return None
    whole = found.get(f"{prefix}hparams_name")
    if whole in _taken(kind, {}) and whole not in saved:
        saved = {whole: dict(saved)}
    taken = {name: value for name, value in saved.items() if name in _taken(kind, saved) and _is_plain(value)}
    own = {name: value for name, value in taken.items() if name not in spec.keywords}
    if not own:
        return None
    shown = some([f"{name}={value!r}" for name, value in own.items()])
    session.notes.append(f"{what}: {kind.__name__} with the checkpoint's {prefix}hyper_parameters {shown}")
    return python.call(replace(spec, arguments=tuple({**own, **spec.keywords}.items())), kind)


_SAVED = ((kinds.is_module_class, "model", ""), (kinds.is_data_module_class, "data", "datamodule_"))


def _taken(kind: type, saved: Mapping[str, Any]) -> set[str]:
    """Names that a class takes."""
    parameters = inspect.signature(kind).parameters.values()
    named = {one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return {name for name in saved if not name.startswith("_")} if anything else named


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, (list, tuple)) else isinstance(value, _PLAIN)


def is_loader(value: Any) -> bool:
    """Whether something is a method of a data module, which is to be called after others of its."""
    return kinds.is_data_module(getattr(value, "__self__", None))


def data(value: Any, spec: Spec, notes: list[str]) -> Any:
    """The batches of a data module: for training, or of the loader that the spec names; other data as it is.

    Args:
        value: What the spec gave.
        spec: For messages.
        notes: Added to.

    Raises:
        LoadError: if the data module cannot be set up, or gives no batches.
    """
    owner = getattr(value, "__self__", value)
    if not kinds.is_data_module(owner):
        return value
    name = "train_dataloader" if owner is value else value.__name__
    notes.append(f"data: {name} of {type(owner).__name__}, after setup('fit'); prepare_data was not called")
    if hooks := kinds.idle_hooks(owner):
        notes.append(f"data: not run: the {', '.join(hooks)} of {type(owner).__name__}")
    return _loaded(owner, name)


def _loaded(owner: Any, name: str) -> Any:
    """What a loader method of a module or a data module gives, once it is set up."""
    kind = type(owner).__name__
    if kinds.overrides(owner, "setup"):
        how = f"{kind}.prepare_data(), which may download, is not called here" if _prepares(owner) else ""
        _run(owner, "setup", how, "fit")
    return _stream(_run(owner, name, ""), f"{kind}.{name}")


def _prepares(owner: Any) -> bool:
    return kinds.overrides(owner, "prepare_data")


def _run(owner: Any, name: str, why: str, *args: Any) -> Any:
    kind = type(owner).__name__
    try:
        return getattr(owner, name)(*args)
    except Exception as error:  # the user's own code
        prepare = f"{kind}(...).prepare_data() once, in Python" if _prepares(owner) else None
        raise LoadError(f"{kind}.{name} raised {said(error)}{'; ' if why else ''}{why}", prepare) from error


def _stream(loaders: Any, where: str) -> Any:
    """The batches of a loader; of several loaders together, as a Trainer does: the shorter ones again."""
    if not isinstance(loaders, Mapping) and not (
        isinstance(loaders, (list, tuple)) and any(isinstance(one, DataLoader) for one in loaders)
    ):
        return loaders
    named = list(loaders.items()) if isinstance(loaders, Mapping) else list(enumerate(loaders))
    if not all(isinstance(loader, DataLoader) for _, loader in named):
        raise LoadError(f"{where} gives several things that are not all DataLoaders.", "--data lit.py:one_loader")
    keys = [key for key, _ in named]

    def again(loader: DataLoader[Any]) -> Iterator[Any]:
        while True:
            yield from loader

    def together() -> Iterator[Any]:
        longest = max(len(loader) for _, loader in named)
        for batches in itertools.islice(zip(*(again(loader) for _, loader in named), strict=True), longest):
            yield dict(zip(keys, batches, strict=True)) if isinstance(loaders, Mapping) else list(batches)

    return together()
