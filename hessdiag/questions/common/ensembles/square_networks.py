"""Predictions for square random networks of a named initialization and activation."""

import math

from hessdiag.nets.activations import activation
from hessdiag.nets.initializers import Distribution, law
from hessdiag.questions.common.ensembles.prediction import Theory
from hessdiag.theory.rates import growth, rates


def predict(init: str, name: str, width: int, distribution: Distribution | None = None) -> Theory | None:
    """Predictions for square networks; `None` for curved activations and dependent weights, which have no closed form.

    >>> round(predict("he_normal", "relu", 32).typical_growth, 4)
    0.9596
    """
    slope = activation(name).slope
    weights = law(init, width, width, distribution)
    if slope is None or weights is None:
        return None
    per_layer = growth(width, weights.variance, slope, weights.kurtosis)
    critical = growth(width, weights.variance / math.exp(2 * per_layer.rms), slope, weights.kurtosis)
    return Theory(
        mean_square_growth=math.exp(2 * per_layer.rms),
        typical_growth=math.exp(per_layer.median),
        rates={key: value["median"] for key, value in rates(width, weights.variance, slope, weights.kurtosis).items()},
        critical_width_per_depth=-critical.median * width / math.log(2),
        exact=weights.distribution == "normal",
    )
