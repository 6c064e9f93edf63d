"""What results consist of: the classes of the attributes of `Eigs`, `Spectrum` and the others, for annotations."""

from typing import TYPE_CHECKING

from hessdiag.lazy import lazily

if TYPE_CHECKING:
    from hessdiag.curvature.point.result import Kink, Point
    from hessdiag.linalg.component import Component
    from hessdiag.questions.blocks.result import IndefinitePair
    from hessdiag.questions.chain.result import AtLength, CriticalScale, Magnitude, Plateau, Sample, Share, SignShares
    from hessdiag.questions.common.agreement import Agreement
    from hessdiag.questions.common.certificate import Certificate
    from hessdiag.questions.common.inertia import Inertia
    from hessdiag.questions.common.measured import Measured
    from hessdiag.questions.common.prediction import Theory
    from hessdiag.questions.common.verdict import Finding
    from hessdiag.questions.diag_share.result import (
        Baselines,
        Change,
        Checkpoint,
        CheckpointLayer,
        Difference,
        LayerShare,
        Trend,
    )
    from hessdiag.questions.eigs.result import Eigenpair
    from hessdiag.questions.forward.result import (
        Achieved,
        ForwardTheory,
        InitRatios,
        LayerAgreement,
        LayerGain,
        LayerRatio,
        RatioStatistics,
        Solution,
    )
    from hessdiag.questions.spectrum.result import Curve, LogCurve, Moment, Outlier, Semicircle
    from hessdiag.questions.vanishing.result import DepthNorms, Failure, LayerNorms, NormStatistics, Rate

_HOMES = {
    "Achieved": "hessdiag.questions.forward.result",
    "Agreement": "hessdiag.questions.common.agreement",
    "AtLength": "hessdiag.questions.chain.result",
    "Baselines": "hessdiag.questions.diag_share.result",
    "Certificate": "hessdiag.questions.common.certificate",
    "Change": "hessdiag.questions.diag_share.result",
    "Checkpoint": "hessdiag.questions.diag_share.result",
    "CheckpointLayer": "hessdiag.questions.diag_share.result",
    "Component": "hessdiag.linalg.component",
    "CriticalScale": "hessdiag.questions.chain.result",
    "Curve": "hessdiag.questions.spectrum.result",
    "DepthNorms": "hessdiag.questions.vanishing.result",
    "Difference": "hessdiag.questions.diag_share.result",
    "Eigenpair": "hessdiag.questions.eigs.result",
    "Failure": "hessdiag.questions.vanishing.result",
    "Finding": "hessdiag.questions.common.verdict",
    "ForwardTheory": "hessdiag.questions.forward.result",
    "IndefinitePair": "hessdiag.questions.blocks.result",
    "Inertia": "hessdiag.questions.common.inertia",
    "InitRatios": "hessdiag.questions.forward.result",
    "Kink": "hessdiag.curvature.point.result",
    "LayerAgreement": "hessdiag.questions.forward.result",
    "LayerGain": "hessdiag.questions.forward.result",
    "LayerNorms": "hessdiag.questions.vanishing.result",
    "LayerRatio": "hessdiag.questions.forward.result",
    "LayerShare": "hessdiag.questions.diag_share.result",
    "LogCurve": "hessdiag.questions.spectrum.result",
    "Magnitude": "hessdiag.questions.chain.result",
    "Measured": "hessdiag.questions.common.measured",
    "Moment": "hessdiag.questions.spectrum.result",
    "NormStatistics": "hessdiag.questions.vanishing.result",
    "Outlier": "hessdiag.questions.spectrum.result",
    "Plateau": "hessdiag.questions.chain.result",
    "Point": "hessdiag.curvature.point.result",
    "Rate": "hessdiag.questions.vanishing.result",
    "RatioStatistics": "hessdiag.questions.forward.result",
    "Sample": "hessdiag.questions.chain.result",
    "Semicircle": "hessdiag.questions.spectrum.result",
    "Share": "hessdiag.questions.chain.result",
    "SignShares": "hessdiag.questions.chain.result",
    "Solution": "hessdiag.questions.forward.result",
    "Theory": "hessdiag.questions.common.prediction",
    "Trend": "hessdiag.questions.diag_share.result",
}

__all__ = [
    "Achieved",
    "Agreement",
    "AtLength",
    "Baselines",
    "Certificate",
    "Change",
    "Checkpoint",
    "CheckpointLayer",
    "Component",
    "CriticalScale",
    "Curve",
    "DepthNorms",
    "Difference",
    "Eigenpair",
    "Failure",
    "Finding",
    "ForwardTheory",
    "IndefinitePair",
    "Inertia",
    "InitRatios",
    "Kink",
    "LayerAgreement",
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
    "Semicircle",
    "Share",
    "SignShares",
    "Solution",
    "Theory",
    "Trend",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
