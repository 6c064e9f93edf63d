"""`hf:FOLDER` of a PEFT adapter: its weights on the model that it belongs to, which stays frozen."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hessdiag.errors import LoadError, said
from hessdiag.problem.files import trust
from hessdiag.problem.files.allowance import Allowance
from hessdiag.problem.files.folder import bounded, parsed
from hessdiag.problem.loading.hub import package
from hessdiag.problem.spec import Spec

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_OF_INPUTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT", "ADAPTION_PROMPT")
_RANKS = ("r", "init_r", "target_r", "n_frequency", "num_vectors")
_OF_OTHER_FILES = ("XLORA",)
_SCRIPT = "'train.py:setup', with PeftModel.from_pretrained(BASE, FOLDER, is_trainable=True) as the model"


@dataclass(frozen=True)
class Adapter:
    """A folder of a PEFT adapter, looked at and not loaded.

    Attributes:
        folder: Where it is.
        config: What its adapter_config.json says.
        weights: The file of its weights.
        base: Spec of the model that it belongs to: a folder, or a name on the hub.
        kind: LORA, IA3, ...
        most: Bytes that it may unpack to, if it was asked for.
    """

    folder: Path
    weights: Path
    base: Spec
    kind: str
    most: int | None

    @property
    def files(self) -> tuple[Path, ...]:
        """What the adapter is read from."""
        return self.folder / CONFIG, self.weights


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").exists()


def looked_at(spec: Spec, most: int | None = None) -> Adapter:
    """An adapter's folder, by its texts.

    Args:
        spec: `hf:FOLDER`, with `base=` where the model has moved.
        most: Bytes that it may unpack to; by default a multiple of its weights.

    Raises:
        LoadError: if the folder lacks what an adapter has, or the adapter is of a kind that cannot be differentiated.
    """
    folder = Path(spec.source).expanduser()
    config = parsed(folder / CONFIG, most)
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if not isinstance(config, Mapping) or weights is None:
        what = "says no settings" if weights is not None else f"lies without {_WEIGHTS[0]}"
        raise LoadError(f"{folder} is no whole PEFT adapter: its {CONFIG} {what}.", "model.save_pretrained(FOLDER)")
    kind = str(config.get("peft_type"))
    if kind in _OF_INPUTS:
        raise LoadError(
            f"{folder} is a {kind} adapter: it changes the inputs, and peft loads it only frozen.",
            "'train.py:setup', with the model as it is trained",
        )
    odd = [name for name in ("megatron_config", "layer_replication", "arrow_config") if config.get(name)]
    if odd or kind in _OF_OTHER_FILES:
        raise LoadError(
            f"{folder} asks for more than its own weights ({', '.join([*odd, *([kind] if not odd else [])])}).", _SCRIPT
        )
    ranks = [config.get(name) for name in _RANKS]
    pattern = config.get("rank_pattern")
    ranks += list(pattern.values()) if isinstance(pattern, Mapping) else []
    rank = max((number for number in ranks if isinstance(number, int)), default=0)
    if rank > weights.stat().st_size:  # peft makes room for it before anything is read
        raise LoadError(
            f"{folder} is damaged or made up: it says a rank of {rank:,}, and {weights.name} holds "
            f"{weights.stat().st_size:,} bytes.",
            "copy it again",
        )
    base = spec.keywords.get("base", config.get("base_model_name_or_path"))
    if not isinstance(base, str) or not base:
        raise LoadError(f"{folder} does not say which model it belongs to.", f"'hf:{folder}(base=\"./FOLDER\")'")
    source, own = _found(base, folder), [(name, value) for name, value in spec.keywords.items() if name != "base"]
    revision = config.get("revision")
    of = replace(
        spec,
        text=f"hf:{source}",
        source=source,
        arguments=tuple(own) or None,
        revision=revision if isinstance(revision, str) else None,
    )
    return Adapter(folder, weights, of, kind, most)


def _found(base: str, folder: Path) -> str:
    """The model's folder, where there is one: from here, or from the adapter's own; else its name, for the hub."""
    path = Path(base).expanduser()
    for one in (path, folder / path, folder.parent / path):
        if one.is_dir():
            return str(one) if one.is_absolute() else f"./{one}"
    if base.startswith((".", "/", "~")):
        raise LoadError(
            f"the adapter in {folder} belongs to the model in {base}, which is not there.",
            f"'hf:{folder}(base=\"./FOLDER\")', with the folder where that model is now",
        )
    return base


def load(
    adapter: Adapter, load_base: Callable[[Spec], tuple[nn.Module, tuple[str, ...]]], *, trust_code: bool = False
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with an adapter on it, whose weights alone are trainable; not merged.

    Args:
        adapter: By `looked_at`.
        load_base: Loads the model that it belongs to; with notes.
        trust_code: Whether a pickle of weights may be anything.

    Raises:
        LoadError: if peft is not installed, or the adapter does not fit the model.
        UntrustedFileError: if its weights are a pickle that would run code.
    """
    allowance = Allowance.of(adapter.weights, adapter.most)
    if adapter.weights.suffix == ".bin" and not trust_code:
        found = trust.scan(adapter.weights, allowance)
        if found.error is not None:
            raise trust.refused(adapter.weights, found.error)
    peft = package("peft")
    model, notes = load_base(adapter.base)
    frozen = sum(parameter.numel() for parameter in model.parameters())
    where = f"{adapter.folder} on {adapter.base.source}"
    try:
        with bounded(allowance), warnings.catch_warnings(record=True) as by_peft:
            warnings.simplefilter("always")
            made = peft.PeftModel.from_pretrained(model, str(adapter.folder), is_trainable=True)
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"peft cannot put {where}: {said(error)}", _SCRIPT) from error
    if lacking := [text for one in by_peft if "missing adapter keys" in (text := str(one.message))]:
        short = lacking[0].splitlines()[0][:200]
        raise LoadError(f"peft cannot put {where}: {short}", "the model that the adapter was trained on")
    made.eval()  # as transformers leaves the model
    own = sum(parameter.numel() for parameter in made.parameters() if parameter.requires_grad)
    note = (
        f"model: the {adapter.kind} adapter of {where}, not merged; its {own:,} parameters are differentiated, the "
        f"{frozen:,} of the model are frozen"
    )
    return made, (*notes, note)
