"""What `trust-radius` finds: how far from here the quadratic model of the loss can be believed."""

from dataclasses import dataclass
from typing import ClassVar

from hessdiag.fields import Count, NonEmpty, Number, Real
from hessdiag.questions.common.result import Measured


@dataclass(frozen=True, kw_only=True)
class Radius:
    """One step of the quadratic model, and what became of it.

    Attributes:
        radius: Root mean square of the step, in the metric of mean 1.
        norm: The metric: "uniform", "rmsprop", "adagrad".
        rho: Actual over predicted decrease; 1 where the model tells the truth.
        exit: How the step ended: inside the region, on its boundary, along negative curvature, or at its limit
            of products.
        products: With the Hessian.
        quadratic_share: Of the predicted decrease, what the quadratic term takes or gives: |s'Hs/2| over |g's|.
        gates_flipped: Share of units of piecewise linear layers that change side; `None` where there are none.
        rho_frozen_gates: The same with all units held to the side on which they are here; `None` where there are none.
        cauchy: Predicted decrease along the gradient alone, over that of this step.
        gltr: Predicted decrease by GLTR, over that of this step.
    """

    radius: Real
    norm: str
    rho: Number
    exit: str
    products: Count
    quadratic_share: Number = None
    gates_flipped: Number = None
    rho_frozen_gates: Number = None
    cauchy: Number = None
    gltr: Number = None


@dataclass(frozen=True, kw_only=True)
class TrustRadius(Measured):
    """How far from here the Hessian can be believed.

    Attributes:
        radii: For each metric, from the smallest radius on.
        trusted_radius: For each metric, the largest radius up to which rho stays in the band; 0 where it never is.
        band: Of rho, within which the model is believed.
        gates: How many units of piecewise linear layers there are, over all samples; 0 for a smooth network.
        missing_share: At the largest radius at which rho with frozen gates is in the band, how much of the curvature
            along the step autograd leaves out; `None` where there are no gates.
        gradient_norm: Euclidean.
        weight_rms: Root mean square of the parameters, for comparison with radii.
    """

    command: ClassVar[str] = "trust-radius"

    radii: NonEmpty[Radius]
    trusted_radius: dict[str, Real]
    band: tuple[Real, Real]
    gates: Count = 0
    missing_share: Number = None
    gradient_norm: Real = 0.0
    weight_rms: Real = 0.0
