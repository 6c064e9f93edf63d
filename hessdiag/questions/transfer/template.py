"""The spec of networks of any size: text with one place in it, for the width or for the depth."""

import re
import shlex
from collections.abc import Collection

from hessdiag.errors import SpecError
from hessdiag.problem import spec
from hessdiag.questions.transfer.result import Varied

PLACES: dict[str, Varied] = {"{width}": "width", "{depth}": "depth"}
USUAL: dict[Varied, tuple[int, ...]] = {"width": (64, 128, 256), "depth": (4, 8, 16)}
_BRACES = re.compile(r"\{\w*\}")


def varied(model: str) -> Varied:
    """What a spec leaves open, refused before torch is loaded where that is nothing, or cannot be read.

    Raises:
        SpecError: with the spelling that would work.

    >>> varied("builtin:mlp(width={width}, depth=3)")
    'width'
    """
    there = [place for place in PLACES if place in model]
    strange = [found for found in _BRACES.findall(model) if found not in PLACES]
    if strange:
        raise SpecError(f"{strange[0]} in {model!r} is no size that can be varied.", "{width} or {depth}")
    if len(there) > 1:
        raise SpecError(
            f"{model!r} leaves width and depth open, and one of them is varied.", "a number in the place of {depth}"
        )
    if not there:
        raise SpecError(
            f"{model!r} is one network, and its size is what is varied: its spec must have {{width}} in it.",
            f"hessdiag transfer {shlex.quote(_with_place(spec.parse(model)))}",
        )
    spec.parse(at_size(model, 1))
    return PLACES[there[0]]


def refuse_single(sizes: Collection[int], of: Varied) -> None:
    """Refuse sizes that no slope is between.

    Raises:
        SpecError: with sizes that would do.
    """
    if len(set(sizes)) < 2:
        raise SpecError(
            f"a slope is between two {of}s or more, and {len(set(sizes)) or 'none'} was given.",
            f"--{of}s {','.join(map(str, USUAL[of]))}",
        )


def at_size(model: str, size: int) -> str:
    """The spec of the network of one size; a place may stand several times.

    >>> at_size("train.py:build(width={width}, heads={width})", 4)
    'train.py:build(width=4, heads=4)'
    """
    for place in PLACES:
        model = model.replace(place, str(size))
    return model


def _with_place(model: spec.Spec) -> str:
    """A spec with the place for the width in it, as like the given one as can be."""
    head = {"script": f"{model.source}:{model.attribute}", "module": f"{model.source}:{model.attribute}"}.get(
        model.kind, f"builtin:{model.source}" if model.kind == "builtin" else "train.py:build"
    )
    others = "".join(f", {key}={value!r}" for key, value in model.keywords.items() if key != "width")
    return f"{head}(width={{width}}{others})"
