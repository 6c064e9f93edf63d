"""Written by docs/generate_reference.py from the registries: for type checkers and editors."""

from hessdiag import linalg as linalg
from hessdiag import optimizers as optimizers
from hessdiag import results as results
from hessdiag.curvature.dense import hessian as hessian
from hessdiag.curvature.dense import hessian_block as hessian_block
from hessdiag.curvature.fisher import FisherOperator as FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator as GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator as HessianOperator
from hessdiag.curvature.metric import in_metric as in_metric
from hessdiag.errors import HessdiagError as HessdiagError
from hessdiag.monitor.monitor import Monitor as Monitor
from hessdiag.problem.load import ProblemRequest as ProblemRequest
from hessdiag.problem.loading.stored import read_data as read_data
from hessdiag.problem.problem import Problem as Problem
from hessdiag.questions.blocks.by.result import BlocksBy as BlocksBy
from hessdiag.questions.blocks.measure import blocks as blocks
from hessdiag.questions.blocks.result import Blocks as Blocks
from hessdiag.questions.bounds.measure import bounds as bounds
from hessdiag.questions.bounds.result import Bounds as Bounds
from hessdiag.questions.chain.measure import chain as chain
from hessdiag.questions.chain.result import Chain as Chain
from hessdiag.questions.check.measure import check as check
from hessdiag.questions.check.result import Check as Check
from hessdiag.questions.compare.measure import compare as compare
from hessdiag.questions.compare.result import Compare as Compare
from hessdiag.questions.diag_share.measure import diag_share as diag_share
from hessdiag.questions.diag_share.result import DiagShare as DiagShare
from hessdiag.questions.diag_share.trajectory import diag_share_along as diag_share_along
from hessdiag.questions.documents import load as load
from hessdiag.questions.eigs.measure import eigs as eigs
from hessdiag.questions.eigs.result import Eigs as Eigs
from hessdiag.questions.escape.measure import escape as escape
from hessdiag.questions.escape.measure import escape_of as escape_of
from hessdiag.questions.escape.result import Escape as Escape
from hessdiag.questions.forward.measure import forward as forward
from hessdiag.questions.forward.model import forward_model as forward_model
from hessdiag.questions.forward.result import Forward as Forward
from hessdiag.questions.precondition.measure import precondition as precondition
from hessdiag.questions.precondition.result import Precondition as Precondition
from hessdiag.questions.report.measure import full_report as full_report
from hessdiag.questions.report.result import Report as Report
from hessdiag.questions.report.run.result import MonitoredRun as MonitoredRun
from hessdiag.questions.sharpness.measure import sharpness as sharpness
from hessdiag.questions.sharpness.result import Sharpness as Sharpness
from hessdiag.questions.spectrum.measure import spectrum as spectrum
from hessdiag.questions.spectrum.result import Spectrum as Spectrum
from hessdiag.questions.transfer.measure import transfer as transfer
from hessdiag.questions.transfer.result import Transfer as Transfer
from hessdiag.questions.trust_radius.measure import trust_radius as trust_radius
from hessdiag.questions.trust_radius.result import TrustRadius as TrustRadius
from hessdiag.questions.vanishing.measure import vanishing as vanishing
from hessdiag.questions.vanishing.models import vanishing_of as vanishing_of
from hessdiag.questions.vanishing.result import Vanishing as Vanishing
from hessdiag.shards.load import load_problem as load_problem
from hessdiag.shards.problem import sharded as sharded

__version__: str

__all__ = [
    "Blocks",
    "BlocksBy",
    "Bounds",
    "Chain",
    "Check",
    "Compare",
    "DiagShare",
    "Eigs",
    "Escape",
    "FisherOperator",
    "Forward",
    "GaussNewtonOperator",
    "HessdiagError",
    "HessianOperator",
    "Monitor",
    "MonitoredRun",
    "Precondition",
    "Problem",
    "ProblemRequest",
    "Report",
    "Sharpness",
    "Spectrum",
    "Transfer",
    "TrustRadius",
    "Vanishing",
    "__version__",
    "blocks",
    "bounds",
    "chain",
    "check",
    "compare",
    "diag_share",
    "diag_share_along",
    "eigs",
    "escape",
    "escape_of",
    "forward",
    "forward_model",
    "full_report",
    "hessian",
    "hessian_block",
    "in_metric",
    "linalg",
    "load",
    "load_problem",
    "optimizers",
    "precondition",
    "read_data",
    "results",
    "sharded",
    "sharpness",
    "spectrum",
    "transfer",
    "trust_radius",
    "vanishing",
    "vanishing_of",
]
