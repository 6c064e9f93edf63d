"""The numbers of a `vanishing` result that gates are usually set on, and what each means."""

MEANINGS = {
    "rates.gradient.per_layer": "log of the median gradient norm, per layer",
    "rates.hessian.per_layer": "log of the median Hessian norm, per layer",
    "depths.0.gradient_norm.median": "median gradient norm at the first depth",
    "depths.0.hessian_norm.median": "median Hessian norm there",
    "depths.0.dead_fraction": "share of networks whose output is zero",
}
