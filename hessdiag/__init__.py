"""How is this network curved, and can an optimizer move from where it is initialized?

The names below are imported on first use, so that `import hessdiag` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hessdiag.curvature.dense import hessian, hessian_block
    from hessdiag.curvature.hessian import HessianOperator
    from hessdiag.diagnostics.diag_share import DiagShare, diag_share
    from hessdiag.diagnostics.vanishing import Vanishing, vanishing
    from hessdiag.errors import ExitCode, HessdiagError
    from hessdiag.problem.load import ProblemRequest, load_problem
    from hessdiag.problem.problem import Problem

__version__ = "0.1.0"

_HOMES = {
    "DiagShare": "hessdiag.diagnostics.diag_share",
    "ExitCode": "hessdiag.errors",
    "HessdiagError": "hessdiag.errors",
    "HessianOperator": "hessdiag.curvature.hessian",
    "Problem": "hessdiag.problem.problem",
    "ProblemRequest": "hessdiag.problem.load",
    "Vanishing": "hessdiag.diagnostics.vanishing",
    "diag_share": "hessdiag.diagnostics.diag_share",
    "hessian": "hessdiag.curvature.dense",
    "hessian_block": "hessdiag.curvature.dense",
    "load_problem": "hessdiag.problem.load",
    "vanishing": "hessdiag.diagnostics.vanishing",
}

__all__ = [
    "DiagShare",
    "ExitCode",
    "HessdiagError",
    "HessianOperator",
    "Problem",
    "ProblemRequest",
    "Vanishing",
    "__version__",
    "diag_share",
    "hessian",
    "hessian_block",
    "load_problem",
    "vanishing",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hessdiag' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
