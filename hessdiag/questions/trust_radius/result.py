"""What `trust-radius` finds: how far from here the quadratic model of the loss can be believed."""

from dataclasses import dataclass, field
from typing import ClassVar

from hessdiag.fields import Count, Number, Real
from hessdiag.questions.common.result import Measured


@dataclass(frozen=True, kw_only=True)
class Radius:
    """One step of the quadratic model, and what became of it.

    Attributes:
        radius: Root mean square of the step, in the metric of mean 1, that was allowed.
        norm: The metric: "uniform", "rmsprop", "adagrad".
        rho: Actual over predicted decrease; 1 where the model tells the truth. `None` where the decrease is below what
            rounding does to the loss.
        exit: How the step ended: "interior" of the region, on its "boundary", along "negative curvature", or at its
            "limit" of products.
        products: With the Hessian.
        reach: Root mean square of the step that was taken: less than the radius inside the region.
        quadratic_share: Of the predicted decrease, what the quadratic term takes or gives: |s'Hs/2| over |g's|.
        gates_flipped: Share of units with a kink that change side; `None` where there are none.
        rho_frozen_gates: The same with all units held to the side on which they are here; `None` where there are none.
        missing_share: What kinks do to the loss, over that and the quadratic term: the part of the curvature along this
            step that autograd's Hessian leaves out.
        cauchy: Predicted decrease along the gradient alone, over that of this step.
        gltr: Predicted decrease by GLTR, over that of this step.
        decrease: Predicted.
    """

    radius: Real
    norm: str
    rho: Number
    exit: str
    products: Count
    reach: Number = None
    quadratic_share: Number = None
    gates_flipped: Number = None
    rho_frozen_gates: Number = None
    missing_share: Number = None
    cauchy: Number = None
    gltr: Number = None
    decrease: Number = None


@dataclass(frozen=True, kw_only=True)
class TrustRadius(Measured):
    """How far from here the Hessian can be believed.

    Attributes:
        radii: For each metric, from the smallest radius on.
        trusted_radius: For each metric, the largest radius up to which rho stays in the band; 0 where it never is,
            `None` where all of it is below rounding.
        band: Of rho, within which the model is believed.
        trusted_radius_frozen_gates: The same with gates held; empty where there are none.
        gates: How many units with a kink there are, over all samples; 0 for a smooth network.
        missing_share: At the largest radius at which rho with frozen gates is in the band, how much of the curvature
            along the step autograd leaves out; `None` where there are no gates.
        unfrozen: Why gates were not held, where they were not.
        gradient_norm: Euclidean.
        weight_rms: Root mean square of the parameters, for comparison with radii.
        loss: Here.
        gradients: Of how many batches the metrics are; of one, RMSprop's and Adagrad's are the same.
        hvps: Products spent.
        engine: How products were computed.
    """

    command: ClassVar[str] = "trust-radius"

    radii: tuple[Radius, ...]
    trusted_radius: dict[str, Number]
    band: tuple[Real, Real]
    trusted_radius_frozen_gates: dict[str, Number] = field(default_factory=dict)
    gates: Count = 0
    missing_share: Number = None
    unfrozen: str | None = None
    gradient_norm: Number = None
    weight_rms: Number = None
    loss: Number = None
    gradients: Count = 1
    hvps: Count = 0
    engine: str | None = None

    def of(self, norm: str) -> tuple[Radius, ...]:
        """The steps of one metric."""
        return tuple(row for row in self.radii if row.norm == norm)

    @property
    def norms(self) -> tuple[str, ...]:
        """The metrics, in order."""
        return tuple(dict.fromkeys(row.norm for row in self.radii))
