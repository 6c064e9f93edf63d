"""The spec of a model of any depth: text with a place for the depth in it."""

import shlex

from hessdiag.errors import SpecError
from hessdiag.problem import spec

PLACE = "{depth}"
DEPTH_OF = {
    "mlp": "depth",
    "fcn": "depth",
    "resnet": "depth",
    "chain": "length",
    "gpt": "layers",
}  # what builtins call it


def check(model: str) -> None:
    """Refuse a spec that names one network only, or that cannot be read, before torch is loaded.

    Raises:
        SpecError: with the spelling that would work.
    """
    if PLACE not in model:
        raise SpecError(
            f"{model!r} is one network, and depth is what is varied: its spec must have {PLACE} in it.",
            f"hessdiag vanishing {shlex.quote(_with_place(spec.parse(model)))}",
        )
    spec.parse(at_depth(model, 1))


def at_depth(model: str, depth: int) -> str:
    """The spec of the network of one depth.

    >>> at_depth("builtin:mlp(depth={depth})", 4)
    'builtin:mlp(depth=4)'
    """
    return model.replace(PLACE, str(depth))


def _with_place(model: spec.Spec) -> str:
    """A spec with the place for the depth in it, as like the given one as can be."""
    if model.kind in ("script", "module"):
        head = f"{model.source}:{model.attribute}"
    elif model.kind == "builtin" and model.source in DEPTH_OF:
        head = f"builtin:{model.source}"
    else:
        return f"train.py:build(depth={PLACE})"
    name = DEPTH_OF.get(model.source, "depth")
    others = "".join(f", {key}={value!r}" for key, value in model.keywords.items() if key != name)
    return f"{head}({name}={PLACE}{others})"
