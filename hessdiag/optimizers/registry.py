"""Which optimizers of this package there are, by name: the only list. Imports no torch."""

from typing import Any, NamedTuple


class Named(NamedTuple):
    """An optimizer with a name.

    Attributes:
        beside: The module in this folder.
        kind: Its class.
        settings: With which it is made, unless told otherwise.
        says: What it is, in a line.
        output: Whether its closure returns the model's output beside the loss.
        products: Whether it takes products with curvature.
        draws: Whether it draws random numbers, so that two runs on the same samples differ.
    """

    beside: str
    kind: str
    settings: dict[str, Any]
    says: str
    output: bool = False
    products: bool = True
    draws: bool = False


OPTIMIZERS: dict[str, Named] = {
    "tr-uniform": Named("trust_region", "EllipsoidalTrustRegion", {"metric": "uniform"}, "trust region, a ball"),
    "tr-rmsprop": Named(
        "trust_region", "EllipsoidalTrustRegion", {"metric": "rmsprop"}, "trust region, RMSprop's ellipsoid"
    ),
    "tr-adagrad": Named(
        "trust_region", "EllipsoidalTrustRegion", {"metric": "adagrad"}, "trust region, Adagrad's ellipsoid"
    ),
    "newton-cg": Named("newton_cg", "NewtonCG", {}, "damped Newton by conjugate gradients, with line search"),
    "gn-cg": Named("newton_cg", "GaussNewtonCG", {}, "damped Gauss-Newton by conjugate gradients", output=True),
    "cubic": Named("cubic", "AdaptiveCubic", {}, "adaptive cubic regularization"),
    "sfn": Named("saddle_free", "SaddleFreeNewton", {}, "saddle-free Newton on a Lanczos subspace"),
    "lodo": Named("lodo", "LODO", {}, "a quasi-Newton matrix that is learned on the way", products=False, draws=True),
}
