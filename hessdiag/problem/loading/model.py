"""MODEL and `--weights`: what a spec gives, and weights that are put into it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.files import checkpoint, foreign, weights
from hessdiag.problem.files.allowance import Allowance
from hessdiag.problem.loading import adapters, hub, lightning, python
from hessdiag.problem.loading.request import Parts, Session
from hessdiag.problem.problem import Problem
from hessdiag.problem.spec import Spec, parse


def named(session: Session, spec: Spec) -> Parts:
    """What the MODEL spec gives."""
    trust = session.request.trust_code
    if spec.kind in ("script", "module"):
        made = lightning.of_checkpoint(session, spec, lambda: looked_at(session))
        return parts_of(python.load_value(spec, session.scripts) if made is None else made, spec)
    if spec.kind == "file":
        if spec.arguments is not None:
            raise SpecError(
                f"{spec.text!r}: a file of a model takes no options.", f"file:{spec.text}, if that is the whole name"
            )
        return Parts(_model_file(session, spec))
    if spec.kind == "hf":
        if adapters.is_adapter(Path(spec.source).expanduser()):
            adapter = adapters.looked_at(spec, session.request.max_unpacked)
            session.files += adapter.files
            model, notes = adapters.load(adapter, partial(_of_hf, session), trust_code=trust)
        else:
            model, notes = _of_hf(session, spec)
        return Parts(model, notes=notes)
    if spec.kind == "builtin":
        return parts_of(hub.load_builtin(spec, session.request.seed), spec)
    by_name = {"timm": hub.load_timm, "torchvision": hub.load_torchvision}
    model = by_name[spec.kind](spec)
    if hub.is_classifier(spec, model):
        session.usual_loss = "ce"
    return Parts(model)


def _of_hf(session: Session, spec: Spec) -> tuple[nn.Module, tuple[str, ...]]:
    """A transformers model, with notes."""
    request, folder = session.request, Path(spec.source).expanduser()
    session.files += [*folder.glob("config.json"), *sorted(folder.glob("*.safetensors"))] if folder.is_dir() else []
    reachable = lambda: session.shared.hub_answers  # noqa: E731 - asked late, for it takes seconds
    return hub.load_hf(spec, trust_code=request.trust_code, reachable=reachable, most=request.max_unpacked)


def parts_of(value: Any, spec: Spec) -> Parts:
    """What the user's code returned, as far as it is a model with or without its batches and loss.

    Raises:
        LoadError: if it is none.
    """
    if isinstance(value, nn.Module):
        return Parts(value)
    if isinstance(value, Problem):
        return Parts(
            model=value.model,
            data=list(value.data),
            loss=value.loss,
            objective=value.objective,
            reduction=value.reduction,
            layers=value.layers,
            train_mode=value.train_mode,
            seed=value.seed,
            notes=value.notes,
        )
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], nn.Module):
        return Parts(*value)
    if isinstance(value, Mapping) and isinstance(value.get("model"), nn.Module):
        known = {"data" if key == "batches" else str(key): item for key, item in value.items()}
        unknown = [key for key in known if key not in ("model", "data", "loss", "objective")]
        if not unknown:
            return Parts(known["model"], known.get("data"), known.get("loss"), known.get("objective"))
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


def _model_file(session: Session, spec: Spec) -> nn.Module:
    path = checkpoint.existing(spec.source)
    if path.is_dir() and (other := foreign.folder(path) or foreign.model_folder(path)) is not None:
        raise other
    content = _content(session, spec, path)
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


def _content(session: Session, spec: Spec, path: Path) -> Any:
    """What a file holds, or of several things in it the one that the spec names."""
    content = session.read(path)
    session.files.append(path)
    return content if spec.key is None else weights.pick(content, spec.key, spec.source)


def load_weights(session: Session, parts: Parts) -> Parts:
    """Put the weights of `--weights` into the model; the parts with what else the file says of training."""
    content, where, _ = read_weights(session)
    take_weights(session, parts.model, content, where)
    return lightning.at_epoch(parts, content, session.notes)


def read_weights(session: Session) -> tuple[Any, str, Path]:
    """What the file of `--weights` holds, what it is called in messages, and its path."""
    if session.weights is not None:
        held, session.weights = session.weights, None
        return held
    text = session.request.weights
    assert text is not None
    spec = parse(text if text.startswith("file:") else f"file:{text}")  # only a path makes sense here
    path = checkpoint.existing(spec.source)
    content = _content(session, spec, path)
    return content, spec.source if spec.key is None else f"{spec.source}#{spec.key}", path


def looked_at(session: Session) -> Any:
    """What the file of `--weights` holds, which is read only once."""
    session.weights = read_weights(session)
    return session.weights[0]


def take_weights(session: Session, model: nn.Module, content: Any, where: str) -> None:
    """Put what a file of weights holds into the model."""
    loaded = weights.load_content(model, content, where, strict=session.request.strict)
    session.notes += loaded.notes
    session.left_out = loaded.left_out
