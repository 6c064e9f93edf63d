"""What `sharpness` finds: the curvature that an optimizer sees, beside what it can take."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hessdiag.fields import Count, Number, Real
from hessdiag.questions.common.result import Measured

Regime = Literal["stable", "edge", "unstable"]
Kind = Literal["lambda_max", "preconditioned", "dual", "directional", "critical", "adaptive"]


@dataclass(frozen=True, kw_only=True)
class OptimizerSeen:
    """Whose steps are asked about.

    Attributes:
        name: With its settings, as people call it.
        kind: Its class, in small letters.
        lr: Learning rate; the largest, where groups differ.
        settings: Momentum, betas, epsilon, as far as they matter.
        weight_decay: The largest of all groups.
        coupled: Whether the decay is part of the gradient; `None` without one.
        state: Where its state is from: a "checkpoint", the live "optimizer", or the "gradients" here, for one that has
            none: as if it stood still here until its averages have settled.
        constant: c of "stable while learning rate times curvature, in its metric, is below c"; `None` where none is
            known.
        notes: What to keep in mind of it.
    """

    name: str
    kind: str
    lr: Real
    settings: dict[str, Number] = field(default_factory=dict)
    weight_decay: Number = None
    coupled: bool | None = None
    state: str = "gradients"
    constant: Number = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One kind of sharpness, beside the threshold of the optimizer for it.

    Attributes:
        kind: "lambda_max": the largest eigenvalue of the Hessian. "preconditioned": the same in the optimizer's metric.
            "dual": the largest curvature that a step of its norm can meet. "directional": d'Hd / d'd along its next
            step d. "critical": 2 / (learning rate at which that step would leave the loss where it is), by losses
            alone. "adaptive": the largest eigenvalue where each weight is measured by its own size, |w|.
        value: It; `None` where it was not measured, or does not exist.
        stderr: How far it can be off, by `error_of`; `None` where that is rounding, or not known, as of a bound.
        error_of: What `stderr` is: an eigenvalue's "residual", or half of the "bracket".
        bound: Whether the true value is at or above ("lower"), or at or below it ("upper").
        threshold: The value at which the optimizer is at the edge of stability; `None` where there is none for it.
        ratio: Value over threshold: 1 at the edge.
        ratio_stderr: As `stderr`.
        passes: Products with the Hessian; of "critical", evaluations of the loss.
        why: Why there is no value, or no threshold.
    """

    kind: Kind
    value: Number
    stderr: Number = None
    error_of: Literal["residual", "bracket"] | None = None
    bound: Literal["lower", "upper"] | None = None
    threshold: Number = None
    ratio: Number = None
    ratio_stderr: Number = None
    passes: Count = 0
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How much the gradients of single samples differ, against their mean.

    Attributes:
        scale: tr(H S) / g'Hg: samples of a batch at which noise costs as much of the curvature term as the mean
            gradient does, S being the covariance of samples' gradients.
        scale_stderr: Jackknife over the pieces.
        at_least: Where `scale` is not known: it is above this by two standard errors of its denominator.
        simple: The proxy tr(S) / |g|^2, which leaves the Hessian out.
        simple_stderr: Likewise.
        pieces: Parts of the data whose gradients were compared.
        samples: In each.
        why: Why there is no number.
    """

    scale: Number = None
    scale_stderr: Number = None
    at_least: Number = None
    simple: Number = None
    simple_stderr: Number = None
    pieces: Count = 0
    samples: Count = 0
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sharpness(Measured):
    """How large a step an optimizer can take here.

    Attributes:
        optimizer: Whose steps; `None` where an interrupt came before it was known.
        threshold: Of the reading that decides, in its units; `None` where none does.
        readings: The kinds of sharpness that were measured.
        decided_by: The kind whose ratio says whether the optimizer is stable; `None` where none does.
        ratio: Its ratio.
        ratio_stderr: How far it can be off.
        stable: Whether it is below the threshold by more than a few percent; `None` at the edge, or where a bound
            leaves it open.
        regime: "stable", at the "edge", "unstable", or `None` where that is open.
        largest_lr: The learning rate at which the ratio would be 1, everything else as it is.
        largest_lr_stderr: How far it can be off.
        noise_scale: `noise.scale`.
        noise_scale_stderr: Its standard error.
        noise: How gradients of samples differ; `None` where it was not measured.
        overlap: |cos| of the angle between the next step and the top eigenvector, in the metric that decides; `None`
            where one of them is missing.
        slope: By how much the loss falls per unit of the learning rate at first, along the next step: g'd.
        gradient_norm: Euclidean.
        loss: Here.
        zeros: Weights that are exactly zero, which adaptive sharpness does not see.
        hvps: Products with the Hessian that were spent.
        losses: Evaluations of the loss over all batches.
        gradients: Gradients over all batches, those of pieces counted as parts.
        engine: How products were computed.
    """

    command: ClassVar[str] = "sharpness"

    optimizer: OptimizerSeen | None
    threshold: Number
    readings: tuple[Reading, ...]
    stable: bool | None
    noise_scale: Number
    noise_scale_stderr: Number
    decided_by: Kind | None = None
    ratio: Number = None
    ratio_stderr: Number = None
    regime: Regime | None = None
    largest_lr: Number = None
    largest_lr_stderr: Number = None
    noise: Noise | None = None
    overlap: Number = None
    slope: Number = None
    gradient_norm: Number = None
    loss: Number = None
    zeros: Count = 0
    hvps: Count = 0
    losses: Count = 0
    gradients: Number = None
    engine: str | None = None

    def reading(self, kind: str) -> Reading | None:
        """One kind of sharpness; `None` where it was not measured."""
        return next((one for one in self.readings if one.kind == kind), None)
