"""Optimizers of the papers, in the form of `torch.optim`: imported on first use, so that this imports no torch."""

from hessdiag.lazy import lazily
from hessdiag.optimizers.registry import OPTIMIZERS

_HOMES = {
    "Step": "hessdiag.optimizers.step",
    **{entry.kind: f"hessdiag.optimizers.{entry.beside}" for entry in OPTIMIZERS.values()},
}

__all__ = sorted(_HOMES)

__getattr__, __dir__ = lazily(__name__, _HOMES)
