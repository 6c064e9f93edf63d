"""How is this network curved, and can an optimizer move from where it is initialized?

The names below are imported on first use, so that `import hessdiag` does not import torch.
"""

from typing import TYPE_CHECKING

from hessdiag.lazy import lazily

if TYPE_CHECKING:
    from hessdiag import linalg, results
    from hessdiag.curvature.dense import hessian, hessian_block
    from hessdiag.curvature.fisher import FisherOperator
    from hessdiag.curvature.gauss_newton import GaussNewtonOperator
    from hessdiag.curvature.hessian import HessianOperator
    from hessdiag.diagnostics.blocks import Blocks, blocks
    from hessdiag.diagnostics.bounds import Bounds, bounds
    from hessdiag.diagnostics.chain import Chain, chain
    from hessdiag.diagnostics.diag_share import DiagShare, diag_share
    from hessdiag.diagnostics.eigs import Eigs, eigs
    from hessdiag.diagnostics.forward import Forward, forward
    from hessdiag.diagnostics.forward_model import forward_model
    from hessdiag.diagnostics.spectrum import Spectrum, spectrum
    from hessdiag.diagnostics.vanishing import Vanishing, vanishing
    from hessdiag.diagnostics.vanishing_models import vanishing_of
    from hessdiag.errors import HessdiagError
    from hessdiag.problem.load import ProblemRequest, load_problem
    from hessdiag.problem.problem import Problem

__version__ = "0.1.0"

_HOMES = {
    "Blocks": "hessdiag.diagnostics.blocks",
    "Bounds": "hessdiag.diagnostics.bounds",
    "Chain": "hessdiag.diagnostics.chain",
    "DiagShare": "hessdiag.diagnostics.diag_share",
    "Eigs": "hessdiag.diagnostics.eigs",
    "FisherOperator": "hessdiag.curvature.fisher",
    "Forward": "hessdiag.diagnostics.forward",
    "GaussNewtonOperator": "hessdiag.curvature.gauss_newton",
    "HessdiagError": "hessdiag.errors",
    "HessianOperator": "hessdiag.curvature.hessian",
    "Problem": "hessdiag.problem.problem",
    "ProblemRequest": "hessdiag.problem.load",
    "Spectrum": "hessdiag.diagnostics.spectrum",
    "Vanishing": "hessdiag.diagnostics.vanishing",
    "blocks": "hessdiag.diagnostics.blocks",
    "bounds": "hessdiag.diagnostics.bounds",
    "chain": "hessdiag.diagnostics.chain",
    "diag_share": "hessdiag.diagnostics.diag_share",
    "eigs": "hessdiag.diagnostics.eigs",
    "forward": "hessdiag.diagnostics.forward",
    "forward_model": "hessdiag.diagnostics.forward_model",
    "hessian": "hessdiag.curvature.dense",
    "hessian_block": "hessdiag.curvature.dense",
    "linalg": "",
    "load_problem": "hessdiag.problem.load",
    "results": "",
    "spectrum": "hessdiag.diagnostics.spectrum",
    "vanishing": "hessdiag.diagnostics.vanishing",
    "vanishing_of": "hessdiag.diagnostics.vanishing_models",
}

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
    "eigs",
    "forward",
    "forward_model",
    "hessian",
    "hessian_block",
    "linalg",
    "load_problem",
    "results",
    "spectrum",
    "vanishing",
    "vanishing_of",
]


__getattr__, __dir__ = lazily(__name__, _HOMES)
