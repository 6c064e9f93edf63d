"""Classes of optimizers by name: torch's, those of this package, and those of the package `pytorch_optimizer`."""

import importlib
import importlib.util
from typing import Any

import torch

from hessdiag.errors import LoadError, said
from hessdiag.optimizers.registry import OPTIMIZERS, Named

PACKAGE = "pytorch_optimizer"
PACKAGED = {  # people ask for these; all others of the package are found once it is installed
    "soap": "SOAP",
    "shampoo": "Shampoo",
    "lion": "Lion",
    "sophiah": "SophiaH",
    "adahessian": "AdaHessian",
    "kron": "Kron",
    "schedulefreeadamw": "ScheduleFreeAdamW",
}

Kind = type[torch.optim.Optimizer]


def of_torch() -> dict[str, Kind]:
    """Torch's own optimizers, by their names in small letters."""
    return _kinds(torch.optim)


def of_package(name: str) -> Kind | None:
    """A class of `pytorch_optimizer`; `None` where it has none of that name, or is not there.

    Raises:
        LoadError: if it is known to have that class, and is not installed or does not work.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        if name not in PACKAGED:
            return None
        raise LoadError(
            f"{PACKAGED[name]} is an optimizer of the package {PACKAGE}, which is not installed.",
            f"pip install {PACKAGE}",
        )
    try:
        return _kinds(importlib.import_module(PACKAGE)).get(name)
    except Exception as error:  # of another version of torch, for one
        raise LoadError(
            f"{PACKAGE} is installed and does not work: {said(error)}", f"pip install -U {PACKAGE}"
        ) from error


def of_this(name: str) -> tuple[Kind, Named]:
    """The class of an optimizer of this package, with its entry."""
    entry = OPTIMIZERS[name]
    return getattr(importlib.import_module(f"hessdiag.optimizers.{entry.beside}"), entry.kind), entry


def own(text: str) -> str | None:
    """Which optimizer of this package a spec names; `None` where it names another.

    >>> own("TR_RMSprop(preset='paper')"), own("builtin:lodo"), own("adam") is None
    ('tr-rmsprop', 'lodo', True)
    """
    head = text.strip().partition("(")[0].strip().removeprefix("builtin:")
    plain = head.lower().replace("_", "-")
    return plain if plain in OPTIMIZERS else None


def _kinds(module: Any) -> dict[str, Kind]:
    return {
        name.lower(): kind
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
