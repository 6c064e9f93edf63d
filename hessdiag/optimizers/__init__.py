"""Optimizers of the papers, in the form of `torch.optim`: imported on first use, so that this imports no torch."""

from typing import TYPE_CHECKING

from hessdiag.lazy import lazily
from hessdiag.optimizers.registry import OPTIMIZERS

if TYPE_CHECKING:
    from hessdiag.optimizers.cubic import AdaptiveCubic
    from hessdiag.optimizers.lodo import LODO
    from hessdiag.optimizers.newton_cg import GaussNewtonCG, NewtonCG
    from hessdiag.optimizers.saddle_free import SaddleFreeNewton
    from hessdiag.optimizers.step import Step
    from hessdiag.optimizers.trust_region import EllipsoidalTrustRegion

_HOMES = {
    "Step": "hessdiag.optimizers.step",
    **{entry.kind: f"hessdiag.optimizers.{entry.beside}" for entry in OPTIMIZERS.values()},
}

__all__ = [
    "LODO",
    "AdaptiveCubic",
    "EllipsoidalTrustRegion",
    "GaussNewtonCG",
    "NewtonCG",
    "SaddleFreeNewton",
    "Step",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
