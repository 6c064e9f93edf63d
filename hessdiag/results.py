"""What results consist of: the classes of the attributes of `Eigs`, `Spectrum` and the others, for annotations."""

from typing import TYPE_CHECKING

from hessdiag.lazy import lazily

if TYPE_CHECKING:
    from hessdiag.curvature.point.result import Kink, Point
    from hessdiag.diagnostics.baselines import Baselines
    from hessdiag.diagnostics.blocks_proof import IndefinitePair
    from hessdiag.diagnostics.certificate import Certificate
    from hessdiag.diagnostics.chain import Agreement, AtLength, CriticalScale, Share, SignShares
    from hessdiag.diagnostics.chain_plateau import Plateau
    from hessdiag.diagnostics.chain_sample import Magnitude, Sample
    from hessdiag.diagnostics.diag_share_totals import LayerShare
    from hessdiag.diagnostics.eigs import Eigenpair
    from hessdiag.diagnostics.ensemble_statistics import NormStatistics
    from hessdiag.diagnostics.forward import InitRatios, LayerRatio
    from hessdiag.diagnostics.forward_norms import RatioStatistics
    from hessdiag.diagnostics.forward_solution import Achieved, LayerGain, Solution
    from hessdiag.diagnostics.inertia import Inertia
    from hessdiag.diagnostics.measured import Measured
    from hessdiag.diagnostics.spectrum import Curve, LogCurve, Moment, Outlier
    from hessdiag.diagnostics.vanishing import Failure, Rate
    from hessdiag.diagnostics.vanishing_norms import DepthNorms, LayerNorms
    from hessdiag.diagnostics.vanishing_theory import Theory
    from hessdiag.diagnostics.verdict import Finding
    from hessdiag.linalg.inclusion import Component

_HOMES = {
    "Achieved": "hessdiag.diagnostics.forward_solution",
    "Agreement": "hessdiag.diagnostics.chain",
    "AtLength": "hessdiag.diagnostics.chain",
    "Baselines": "hessdiag.diagnostics.baselines",
    "Certificate": "hessdiag.diagnostics.certificate",
    "Component": "hessdiag.linalg.inclusion",
    "CriticalScale": "hessdiag.diagnostics.chain",
    "Curve": "hessdiag.diagnostics.spectrum",
    "DepthNorms": "hessdiag.diagnostics.vanishing_norms",
    "Eigenpair": "hessdiag.diagnostics.eigs",
    "Failure": "hessdiag.diagnostics.vanishing",
    "Finding": "hessdiag.diagnostics.verdict",
    "IndefinitePair": "hessdiag.diagnostics.blocks_proof",
    "Inertia": "hessdiag.diagnostics.inertia",
    "InitRatios": "hessdiag.diagnostics.forward",
    "Kink": "hessdiag.curvature.point.result",
    "LayerGain": "hessdiag.diagnostics.forward_solution",
    "LayerNorms": "hessdiag.diagnostics.vanishing_norms",
    "LayerRatio": "hessdiag.diagnostics.forward",
    "LayerShare": "hessdiag.diagnostics.diag_share_totals",
    "LogCurve": "hessdiag.diagnostics.spectrum",
    "Magnitude": "hessdiag.diagnostics.chain_sample",
    "Measured": "hessdiag.diagnostics.measured",
    "Moment": "hessdiag.diagnostics.spectrum",
    "NormStatistics": "hessdiag.diagnostics.ensemble_statistics",
    "Outlier": "hessdiag.diagnostics.spectrum",
    "Plateau": "hessdiag.diagnostics.chain_plateau",
    "Point": "hessdiag.curvature.point.result",
    "Rate": "hessdiag.diagnostics.vanishing",
    "RatioStatistics": "hessdiag.diagnostics.forward_norms",
    "Sample": "hessdiag.diagnostics.chain_sample",
    "Share": "hessdiag.diagnostics.chain",
    "SignShares": "hessdiag.diagnostics.chain",
    "Solution": "hessdiag.diagnostics.forward_solution",
    "Theory": "hessdiag.diagnostics.vanishing_theory",
}

__all__ = [
    "Achieved",
    "Agreement",
    "AtLength",
    "Baselines",
    "Certificate",
    "Component",
    "CriticalScale",
    "Curve",
    "DepthNorms",
    "Eigenpair",
    "Failure",
    "Finding",
    "IndefinitePair",
    "Inertia",
    "InitRatios",
    "Kink",
    "LayerGain",
    "LayerNorms",
    "LayerRatio",
    "LayerShare",
    "LogCurve",
    "Magnitude",
    "Measured",
    "Moment",
    "NormStatistics",
    "Outlier",
    "Plateau",
    "Point",
    "Rate",
    "RatioStatistics",
    "Sample",
    "Share",
    "SignShares",
    "Solution",
    "Theory",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
