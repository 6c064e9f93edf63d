"""How is this network curved, and can an optimizer move from where it is initialized?

The names below are imported on first use, so that `import hessdiag` does not import torch.
"""

from typing import TYPE_CHECKING

from hessdiag.curvature.registry import OPERATORS
from hessdiag.lazy import lazily
from hessdiag.version import __version__

if TYPE_CHECKING:
    from hessdiag import linalg, results
    from hessdiag.curvature.dense import hessian, hessian_block
    from hessdiag.curvature.fisher import FisherOperator
    from hessdiag.curvature.gauss_newton import GaussNewtonOperator
    from hessdiag.curvature.hessian import HessianOperator
    from hessdiag.errors import HessdiagError
    from hessdiag.problem.load import ProblemRequest, load_problem
    from hessdiag.problem.problem import Problem
    from hessdiag.questions.blocks.measure import blocks
    from hessdiag.questions.blocks.result import Blocks
    from hessdiag.questions.bounds.measure import bounds
    from hessdiag.questions.bounds.result import Bounds
    from hessdiag.questions.chain.measure import chain
    from hessdiag.questions.chain.result import Chain
    from hessdiag.questions.diag_share.measure import diag_share
    from hessdiag.questions.diag_share.result import DiagShare
    from hessdiag.questions.diag_share.trajectory import diag_share_along
    from hessdiag.questions.documents import load
    from hessdiag.questions.eigs.measure import eigs
    from hessdiag.questions.eigs.result import Eigs
    from hessdiag.questions.forward.measure import forward
    from hessdiag.questions.forward.model import forward_model
    from hessdiag.questions.forward.result import Forward
    from hessdiag.questions.spectrum.measure import spectrum
    from hessdiag.questions.spectrum.result import Spectrum
    from hessdiag.questions.vanishing.measure import vanishing
    from hessdiag.questions.vanishing.models import vanishing_of
    from hessdiag.questions.vanishing.result import Vanishing

_HOMES = {
    "Blocks": "hessdiag.questions.blocks.result",
    "Bounds": "hessdiag.questions.bounds.result",
    "Chain": "hessdiag.questions.chain.result",
    "DiagShare": "hessdiag.questions.diag_share.result",
    "Eigs": "hessdiag.questions.eigs.result",
    "Forward": "hessdiag.questions.forward.result",
    "HessdiagError": "hessdiag.errors",
    "Problem": "hessdiag.problem.problem",
    "ProblemRequest": "hessdiag.problem.load",
    "Spectrum": "hessdiag.questions.spectrum.result",
    "Vanishing": "hessdiag.questions.vanishing.result",
    "blocks": "hessdiag.questions.blocks.measure",
    "bounds": "hessdiag.questions.bounds.measure",
    "chain": "hessdiag.questions.chain.measure",
    "diag_share": "hessdiag.questions.diag_share.measure",
    "diag_share_along": "hessdiag.questions.diag_share.trajectory",
    "eigs": "hessdiag.questions.eigs.measure",
    "forward": "hessdiag.questions.forward.measure",
    "forward_model": "hessdiag.questions.forward.model",
    "hessian": "hessdiag.curvature.dense",
    "hessian_block": "hessdiag.curvature.dense",
    "linalg": "",
    "load": "hessdiag.questions.documents",
    "load_problem": "hessdiag.problem.load",
    "results": "",
    "spectrum": "hessdiag.questions.spectrum.measure",
    "vanishing": "hessdiag.questions.vanishing.measure",
    "vanishing_of": "hessdiag.questions.vanishing.models",
} | {entry.kind: entry.module for entry in OPERATORS}

__all__ = [
    "Blocks",
    "Bounds",
    "Chain",
    "DiagShare",
    "Eigs",
    "FisherOperator",
    "Forward",
    "GaussNewtonOperator",
    "HessdiagError",
    "HessianOperator",
    "Problem",
    "ProblemRequest",
    "Spectrum",
    "Vanishing",
    "__version__",
    "blocks",
    "bounds",
    "chain",
    "diag_share",
    "diag_share_along",
    "eigs",
    "forward",
    "forward_model",
    "hessian",
    "hessian_block",
    "linalg",
    "load",
    "load_problem",
    "results",
    "spectrum",
    "vanishing",
    "vanishing_of",
]


__getattr__, __dir__ = lazily(__name__, _HOMES)
