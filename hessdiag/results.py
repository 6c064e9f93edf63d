"""What results consist of: the classes of the attributes of `Eigs`, `Spectrum` and the others, for annotations."""

import dataclasses
from importlib import import_module
from types import ModuleType

from hessdiag.lazy import lazily
from hessdiag.questions.registry import QUESTIONS

_BESIDE = {  # what results hold of rooms below
    "Certificate": "hessdiag.questions.common.certificate",
    "Component": "hessdiag.linalg.component",
    "Inertia": "hessdiag.questions.common.inertia",
    "Kink": "hessdiag.curvature.point.result",
    "Metric": "hessdiag.questions.common.metric",
    "OwnLayer": "hessdiag.questions.forward.own_result",
    "OwnSignal": "hessdiag.questions.forward.own_result",
    "Point": "hessdiag.curvature.point.result",
}
_MODULES = (
    "hessdiag.questions.common.result",
    *(f"{asked.package}.result" for asked in QUESTIONS),
    *(f"{asked.package}.{kind.package}.result" for asked in QUESTIONS for kind in asked.variants),
)


def parts(module: ModuleType) -> list[str]:
    """The dataclasses that a module defines, in its order."""
    return [
        name
        for name, thing in vars(module).items()
        if dataclasses.is_dataclass(thing) and thing.__module__ == module.__name__ and not name.startswith("_")
    ]


_HOMES = _BESIDE | {
    name: module
    for module in _MODULES
    for name in parts(import_module(module))
    if not any(name in asked.public for asked in QUESTIONS)
}

__all__ = sorted(_HOMES)

__getattr__, __dir__ = lazily(__name__, _HOMES)
