"""Whether results asked the same of the same network: what else than weights and seeds differs between them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hessdiag.numbers import MISSING
from hessdiag.questions.compare.readings import at
from hessdiag.questions.compare.result import SettingDifference

DIGITS = 12  # of a sha256, to tell two apart
LONGEST = 60  # characters of a setting
# Of a given model, by their paths in a document's "problem".
OF_MODEL = {
    "parameters": "parameters",
    "layers": "layers",
    "data_sha256": "data",
    "samples": "samples",
    "batches": "batches",
    "loss_definition": "loss",
    "reduction": "reduction",
    "dtype": "dtype",
    "layers_glob": "parameters chosen by --layers",
    "train_mode": "training mode",
}
# By their paths in the result of a command.
SETTINGS: dict[str, tuple[str, ...]] = {
    "check": ("step.optimizer",),
    "diag-share": ("metric.optimizer",),
    "eigs": ("metric.optimizer",),
    "spectrum": ("operator", "metric.optimizer"),
    "bounds": ("metric.optimizer",),
    "blocks": ("partition",),
    "precondition": ("damping", "optimizer_name"),
    "trust-radius": ("band",),
    "sharpness": ("optimizer.name",),
    "forward": ("inits.0.depth", "inits.0.width", "inits.0.activation", "inits.0.distribution"),
    "vanishing": ("width", "init", "distribution", "activation", "batch", "depths.0.depth", "depths.-1.depth"),
    "transfer": ("varied", "asked", "steps"),
    "chain": ("length", "distribution", "scale"),
    "escape": ("threshold", "budget"),
}
# These change errors, and not what is measured.
EFFORT = ("method", "probes", "steps", "seeds", "hessian_seeds", "inits.0.seeds", "tol")
# Options of the command line that stand in a document by what they led to, or say nothing of its numbers.
ELSEWHERE = frozenset((
    "json", "format", "o", "output", "force", "color", "no-progress", "allow-inexact", "fail-if", "baseline",
    "exit-zero", "max-change", "resume", "save", "config", "no-config", "traceback", "weights", "data", "loss",
    "batches", "batch-size", "device", "dtype", "seed", "layers", "train-mode", "no-train-mode", "strict", "no-strict",
    "trust-code", "max-unpacked", "shard", "rows", "probes", "steps", "seeds", "hessian-seeds", "tol", "metric",
    "state", "operator", "by", "width", "depth", "init", "distribution", "activation", "length", "scale", "widths",
    "depths", "budget", "threshold", "optimizer", "lr", "damping", "check",
))  # fmt: skip


def differences(docs: Sequence[Mapping[str, Any]]) -> tuple[SettingDifference, ...]:
    """All settings in which results of one command differ, those that matter first."""
    command = docs[0]["command"]
    problems, results = ([doc[place] for doc in docs] for place in ("problem", "result"))
    models = [{words: problem.get(path) for path, words in OF_MODEL.items()} for problem in problems]
    asked = [{path: at(result, path) for path in SETTINGS.get(command, ())} for result in results]
    effort = [
        {path: at(result, path) for path in EFFORT if path not in SETTINGS.get(command, ())} for result in results
    ]
    flags = [{"options": _options(doc["provenance"].get("argv") or ())} for doc in docs]
    known = all(doc["provenance"].get("argv") for doc in docs)
    return (
        *_differing([_without_layers_alike(one, models) for one in models], matters=True),
        *_differing(asked, matters=True),
        *(_differing(flags, matters=True) if known else ()),
        *_differing(effort, matters=False),
    )


def _without_layers_alike(one: Mapping[str, Any], all_of: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Layers are named where their sizes differ, not where models are known to have other numbers of parameters."""
    if len({other["parameters"] for other in all_of}) > 1:
        return {key: value for key, value in one.items() if key != "layers"}
    layers = [(layer["name"], layer["parameters"]) for layer in one["layers"] or ()]
    return {**one, "layers": " ".join(f"{name}:{size}" for name, size in layers)}


def _options(argv: Iterable[str]) -> str:
    """Names of the options that say what is measured, and leave no other trace."""
    names = {word.lstrip("-").partition("=")[0].replace("_", "-") for word in argv if word.startswith("-")}
    return " ".join(f"--{name}" for name in sorted(names - ELSEWHERE) if name.isascii() and name[:1].isalpha())


def _differing(settings: Sequence[Mapping[str, Any]], *, matters: bool) -> list[SettingDifference]:
    return [
        SettingDifference(
            setting=name.removeprefix("inits.0.").replace("_", " ").replace(".-1.", " to ").replace(".0.", " from "),
            values=tuple(_said(one[name]) for one in settings),
            matters=matters,
        )
        for name in settings[0]
        if any(one[name] != settings[0][name] for one in settings)
    ]


def _said(value: Any) -> str:
    """A setting in a few characters."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    looks_hashed = len(text) == 64 and all(sign in "0123456789abcdef" for sign in text)
    if looks_hashed:
        return text[:DIGITS]
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1].rstrip()}…"
