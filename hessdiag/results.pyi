"""Written by docs/generate_reference.py from the registries: for type checkers and editors."""

from types import ModuleType

from hessdiag.curvature.point.result import Kink as Kink
from hessdiag.curvature.point.result import Point as Point
from hessdiag.linalg.component import Component as Component
from hessdiag.questions.blocks.by.result import Block as Block
from hessdiag.questions.blocks.by.result import BlockSpectra as BlockSpectra
from hessdiag.questions.blocks.by.result import ClassTheory as ClassTheory
from hessdiag.questions.blocks.by.result import Extreme as Extreme
from hessdiag.questions.blocks.result import IndefinitePair as IndefinitePair
from hessdiag.questions.chain.result import AtLength as AtLength
from hessdiag.questions.chain.result import ChainPlateau as ChainPlateau
from hessdiag.questions.chain.result import ChainTheory as ChainTheory
from hessdiag.questions.chain.result import CriticalScale as CriticalScale
from hessdiag.questions.chain.result import Magnitude as Magnitude
from hessdiag.questions.chain.result import Sample as Sample
from hessdiag.questions.chain.result import Share as Share
from hessdiag.questions.chain.result import SignShares as SignShares
from hessdiag.questions.chain.result import StatisticAgreement as StatisticAgreement
from hessdiag.questions.check.result import Cause as Cause
from hessdiag.questions.check.result import Symptom as Symptom
from hessdiag.questions.check.result import Trial as Trial
from hessdiag.questions.check.result import TrialRun as TrialRun
from hessdiag.questions.common.certificate import Certificate as Certificate
from hessdiag.questions.common.inertia import Inertia as Inertia
from hessdiag.questions.common.metric import Metric as Metric
from hessdiag.questions.common.result import Arithmetic as Arithmetic
from hessdiag.questions.common.result import AveragedOver as AveragedOver
from hessdiag.questions.common.result import File as File
from hessdiag.questions.common.result import Finding as Finding
from hessdiag.questions.common.result import LayerSize as LayerSize
from hessdiag.questions.common.result import Measured as Measured
from hessdiag.questions.common.result import ModelSubject as ModelSubject
from hessdiag.questions.common.result import Provenance as Provenance
from hessdiag.questions.common.result import Result as Result
from hessdiag.questions.common.result import Sharding as Sharding
from hessdiag.questions.common.result import Subject as Subject
from hessdiag.questions.compare.result import ComparedRun as ComparedRun
from hessdiag.questions.compare.result import Course as Course
from hessdiag.questions.compare.result import CourseStep as CourseStep
from hessdiag.questions.compare.result import NumberChange as NumberChange
from hessdiag.questions.compare.result import SettingDifference as SettingDifference
from hessdiag.questions.diag_share.result import Baselines as Baselines
from hessdiag.questions.diag_share.result import Change as Change
from hessdiag.questions.diag_share.result import Checkpoint as Checkpoint
from hessdiag.questions.diag_share.result import CheckpointLayer as CheckpointLayer
from hessdiag.questions.diag_share.result import Difference as Difference
from hessdiag.questions.diag_share.result import LayerShare as LayerShare
from hessdiag.questions.diag_share.result import ShareTheory as ShareTheory
from hessdiag.questions.diag_share.result import Trend as Trend
from hessdiag.questions.eigs.result import Eigenpair as Eigenpair
from hessdiag.questions.escape.result import Contender as Contender
from hessdiag.questions.escape.result import Flow as Flow
from hessdiag.questions.escape.result import Landscape as Landscape
from hessdiag.questions.escape.result import Milestone as Milestone
from hessdiag.questions.escape.result import Plateau as Plateau
from hessdiag.questions.escape.result import Prediction as Prediction
from hessdiag.questions.escape.result import Region as Region
from hessdiag.questions.escape.result import Run as Run
from hessdiag.questions.escape.result import Spent as Spent
from hessdiag.questions.escape.result import Stability as Stability
from hessdiag.questions.forward.own_result import OwnLayer as OwnLayer
from hessdiag.questions.forward.own_result import OwnSignal as OwnSignal
from hessdiag.questions.forward.result import Achieved as Achieved
from hessdiag.questions.forward.result import ForwardTheory as ForwardTheory
from hessdiag.questions.forward.result import InitRatios as InitRatios
from hessdiag.questions.forward.result import Layer as Layer
from hessdiag.questions.forward.result import LayerAgreement as LayerAgreement
from hessdiag.questions.forward.result import LayerGain as LayerGain
from hessdiag.questions.forward.result import LayerRatio as LayerRatio
from hessdiag.questions.forward.result import RatioStatistics as RatioStatistics
from hessdiag.questions.forward.result import Solution as Solution
from hessdiag.questions.precondition.result import LeftOut as LeftOut
from hessdiag.questions.precondition.result import Preconditioned as Preconditioned
from hessdiag.questions.report.result import KeyNumber as KeyNumber
from hessdiag.questions.report.result import NotAnswered as NotAnswered
from hessdiag.questions.report.result import Section as Section
from hessdiag.questions.report.run.result import RunOptimizer as RunOptimizer
from hessdiag.questions.report.run.result import Track as Track
from hessdiag.questions.sharpness.result import Noise as Noise
from hessdiag.questions.sharpness.result import OptimizerSeen as OptimizerSeen
from hessdiag.questions.sharpness.result import Reading as Reading
from hessdiag.questions.spectrum.result import Curve as Curve
from hessdiag.questions.spectrum.result import LogCurve as LogCurve
from hessdiag.questions.spectrum.result import Moment as Moment
from hessdiag.questions.spectrum.result import Outlier as Outlier
from hessdiag.questions.spectrum.result import Semicircle as Semicircle
from hessdiag.questions.transfer.result import LayerPowers as LayerPowers
from hessdiag.questions.transfer.result import SizeMeans as SizeMeans
from hessdiag.questions.transfer.result import Slope as Slope
from hessdiag.questions.transfer.result import Slopes as Slopes
from hessdiag.questions.transfer.result import UnmeasuredSize as UnmeasuredSize
from hessdiag.questions.trust_radius.result import Radius as Radius
from hessdiag.questions.vanishing.result import DepthAgreement as DepthAgreement
from hessdiag.questions.vanishing.result import DepthNorms as DepthNorms
from hessdiag.questions.vanishing.result import Failure as Failure
from hessdiag.questions.vanishing.result import LayerNorms as LayerNorms
from hessdiag.questions.vanishing.result import NormStatistics as NormStatistics
from hessdiag.questions.vanishing.result import Rate as Rate

def parts(module: ModuleType) -> list[str]: ...

__all__ = [
    "Achieved",
    "Arithmetic",
    "AtLength",
    "AveragedOver",
    "Baselines",
    "Block",
    "BlockSpectra",
    "Cause",
    "Certificate",
    "ChainPlateau",
    "ChainTheory",
    "Change",
    "Checkpoint",
    "CheckpointLayer",
    "ClassTheory",
    "ComparedRun",
    "Component",
    "Contender",
    "Course",
    "CourseStep",
    "CriticalScale",
    "Curve",
    "DepthAgreement",
    "DepthNorms",
    "Difference",
    "Eigenpair",
    "Extreme",
    "Failure",
    "File",
    "Finding",
    "Flow",
    "ForwardTheory",
    "IndefinitePair",
    "Inertia",
    "InitRatios",
    "KeyNumber",
    "Kink",
    "Landscape",
    "Layer",
    "LayerAgreement",
    "LayerGain",
    "LayerNorms",
    "LayerPowers",
    "LayerRatio",
    "LayerShare",
    "LayerSize",
    "LeftOut",
    "LogCurve",
    "Magnitude",
    "Measured",
    "Metric",
    "Milestone",
    "ModelSubject",
    "Moment",
    "Noise",
    "NormStatistics",
    "NotAnswered",
    "NumberChange",
    "OptimizerSeen",
    "Outlier",
    "OwnLayer",
    "OwnSignal",
    "Plateau",
    "Point",
    "Preconditioned",
    "Prediction",
    "Provenance",
    "Radius",
    "Rate",
    "RatioStatistics",
    "Reading",
    "Region",
    "Result",
    "Run",
    "RunOptimizer",
    "Sample",
    "Section",
    "Semicircle",
    "SettingDifference",
    "Sharding",
    "Share",
    "ShareTheory",
    "SignShares",
    "SizeMeans",
    "Slope",
    "Slopes",
    "Solution",
    "Spent",
    "Stability",
    "StatisticAgreement",
    "Subject",
    "Symptom",
    "Track",
    "Trend",
    "Trial",
    "TrialRun",
    "UnmeasuredSize",
]
